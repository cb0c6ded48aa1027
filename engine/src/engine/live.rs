//! Segments from the live server to clients.

use millrace_wire::{Flags, TcpPacket};

use super::Engine;
use crate::session::Phase;
use crate::stream::EndKind;
use crate::time::Time;

impl Engine {
    pub(super) fn on_live_segment(&mut self, now: Time, at: Time, packet: &TcpPacket<'_>) {
        let Some(key) = self.find_session(&packet.tuple.reversed()) else {
            self.stats.segments_unowned += 1;
            return;
        };
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.last_seen = session.last_seen.max(at);
        let reset = packet.header.flags.has(Flags::RST);
        match &mut session.phase {
            Phase::Midway(midway) => {
                midway.on_live(packet);
                if reset {
                    self.remove_session(key);
                }
                return;
            }
            Phase::Opening if reset => {
                // The live server refused: the client's connection never existed. A RST that
                // acknowledges something else is meant for an earlier connection of the four-tuple
                // (RFC 9293 3.10.7.3).
                let header = &packet.header;
                let refused =
                    !header.flags.has(Flags::ACK) || header.ack == session.stream.first_seq();
                if refused {
                    self.remove_session(key);
                }
                return;
            }
            // Before it has answered the SYN, it speaks of an earlier connection of the four-tuple
            // that it still knows (RFC 5961 4.2), in numbers that mean nothing here.
            Phase::Opening if !session.live.is_known() && !packet.header.flags.has(Flags::SYN) => {
                return;
            }
            Phase::Opening | Phase::Active { .. } => {}
        }
        let stream = &session.stream;
        let finished = session.live.finished;
        let asked = session.live.clock.is_asking();
        session
            .live
            .on_segment(at, packet, |ack| stream.offset_of(ack));
        let answered = asked && !session.live.clock.is_asking();
        self.stats.live_turns_answered += u64::from(answered);
        if reset || session.live.finished {
            self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
        }
        session.check_gap(clock);
        let closed = session.live.finished != finished;
        let severed = reset && session.stream.announced_end().is_none();
        if severed {
            let before = session.load();
            self.stats.bytes_missing += session.note_acked();
            let given_up = session.stream.cut_short(EndKind::Severed);
            self.stats.give_up(given_up, session.copies());
            self.stats.sessions_ended += u64::from(session.end(clock));
            session.mark_end();
            self.account(key, before);
        }
        if severed || closed {
            self.advance_replicas(now, key);
        }
        let urgent = self
            .sessions
            .get(key)
            .is_some_and(|s| s.gap_since != Time::NEVER);
        if severed || urgent {
            self.arm_session(key);
        }
    }
}
