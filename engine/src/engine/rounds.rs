//! Recordings: whose time the live side has, and what becomes of sessions when one ends.

use millrace_wire::{Flags, TcpPacket};

use super::Engine;
use crate::key::SessionKey;
use crate::session::{Course, Phase, Watch};
use crate::time::Time;

impl Engine {
    /// The recording ends here. Whatever is still open was cut by its end: its replicas deliver what
    /// there is of it, and are then cut too. What follows, if anything does, is another recording:
    /// its connections are others, even with the same addresses and ports. Its replicas come from
    /// other source ports; which of its sessions the intensity chooses stays the same.
    pub fn end_of_recording(&mut self, now: Time) {
        // What is due by then is due, however fast the recording was taken in.
        self.timeout(now);
        self.clock.end_round();
        let keys: Vec<SessionKey> = self.sessions.keys().collect();
        for key in keys {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            let running = match session.phase() {
                Phase::Active { .. } => session.course == Course::Running,
                // It goes on behind a gap, and has come to no turn there.
                Phase::Midway(midway) => matches!(midway.watch, Watch::Gap | Watch::SetAside),
                Phase::Opening => false,
            };
            self.stats.sessions_cut += u64::from(running);
            if session.is_active() {
                // The live server's last words may lie beyond the end.
                session.live.finished = true;
            }
            self.retire(now, key);
        }
        self.departed.clear();
    }

    /// Whether a copy would begin with this segment of a recording: one that completes a client's
    /// handshake, or payload of a session that was met in its middle.
    pub fn may_begin(&self, packet: &TcpPacket<'_>) -> bool {
        let session = self.sessions.find(&packet.tuple);
        let session = session.and_then(|key| self.sessions.get(key));
        session.is_some_and(|session| match session.phase() {
            Phase::Opening => packet.header.flags.has(Flags::ACK),
            Phase::Midway(_) => packet.payload_len > 0,
            Phase::Active { .. } => false,
        })
    }

    /// Gaps count as final now, however little of the recording has followed them: to be called when
    /// nothing else goes on, since what waits behind a gap holds memory.
    pub fn end_gaps(&mut self, now: Time) {
        let keys: Vec<SessionKey> = self.sessions.keys().collect();
        for key in keys {
            let has_hole = self
                .sessions
                .get(key)
                .is_some_and(|it| it.stream().has_hole());
            if has_hole && self.has_gap(key) {
                self.heal(now, key, true);
            }
        }
    }
}
