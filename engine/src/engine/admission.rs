//! Which sessions are copied, and how often: intensity, bounds, draining.

use millrace_wire::{Endpoint, TcpPacket};

use super::Engine;
use crate::intensity::{Intensity, Place};
use crate::key::SessionKey;
use crate::session::Watch;
use crate::stats::{AbortReason, RefusalReason};
use crate::time::Time;

/// New sessions are refused above this share of the memory limit, in percent: what remains is
/// for sessions that are open.
const REFUSE_ABOVE: u64 = 90;

/// What becomes of a session whose copy could begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is copied, so many times.
    Copied(u16),
    /// The intensity leaves it out.
    Unchosen,
    /// It is refused.
    Refused(RefusalReason),
}

impl Engine {
    /// From now on so many replicas are made of each session that begins. Open sessions keep the
    /// replicas that they have. A session that was left out so far and is chosen now is picked up
    /// at its next turn, unless only sessions seen from their SYN are copied.
    pub const fn set_intensity(&mut self, intensity: Intensity) {
        self.intensity = intensity;
    }

    /// Replicas per session at the moment.
    pub const fn intensity(&self) -> Intensity {
        self.intensity
    }

    /// Ends all replicas, counted as [`AbortReason::Stopped`]; their sessions are only watched
    /// from now on. New sessions begin as before: set the intensity to zero first if they must
    /// not.
    pub fn stop_replicas(&mut self, now: Time) {
        let copied = self.sessions.iter();
        let copied = copied.filter(|(_, session)| session.first_replica.is_some());
        let keys: Vec<SessionKey> = copied.map(|(key, _)| key).collect();
        for key in keys {
            self.abort_session(now, key, AbortReason::Stopped);
        }
    }

    /// Whether the intensity leaves this client's session out; counts its bytes. Nothing is kept
    /// of such a session: should the intensity rise, it is met midway.
    pub(super) fn is_unchosen(&mut self, packet: &TcpPacket<'_>) -> bool {
        let unchosen = self.copies(packet.tuple.source) == 0;
        if unchosen {
            self.leave_out(packet);
        }
        unchosen
    }

    /// Counts the bytes of a client's segment that the intensity leaves out.
    pub(super) fn leave_out(&mut self, packet: &TcpPacket<'_>) {
        let bytes = packet.payload_len as u64;
        let place = Place::of(&self.config.intensity_key, packet.tuple.source);
        self.stats.bytes_unchosen += bytes;
        if self.config.intensity.copies(place) > 0 {
            self.stats.bytes_left_out += bytes;
        }
    }

    /// Decides on a session whose copy could begin now.
    pub(super) fn admit(&mut self, now: Time, key: SessionKey) -> Admission {
        let client = self.sessions.get(key).map(|session| session.tuple.source);
        let copies = client.map_or(0, |client| self.copies(client));
        if copies == 0 {
            return Admission::Unchosen;
        }
        if !client.is_some_and(|client| self.relief.admits(self.place(client))) {
            return Admission::Refused(RefusalReason::Overload);
        }
        if let Err(reason) = self.meter.admit(now, self.copied, self.backlog) {
            return Admission::Refused(reason);
        }
        Admission::Copied(copies)
    }

    /// Decides on a session that is watched and whose next turn begins now.
    pub(super) fn admit_again(&mut self, now: Time, key: SessionKey, watch: Watch) -> Admission {
        match watch {
            Watch::Met | Watch::Refused => self.admit(now, key),
            Watch::Gap | Watch::SetAside if self.draining => {
                Admission::Refused(RefusalReason::Draining)
            }
            Watch::Gap | Watch::SetAside if self.is_nearly_full() => {
                Admission::Refused(RefusalReason::Memory)
            }
            Watch::Gap | Watch::SetAside => {
                let client = self.sessions.get(key).map(|session| session.tuple.source);
                let copies = client.map_or(0, |client| self.copies(client));
                let kept = client.is_some_and(|client| self.relief.keeps(self.place(client)));
                match copies {
                    0 => Admission::Unchosen,
                    _ if kept => Admission::Copied(copies),
                    _ => Admission::Refused(RefusalReason::Overload),
                }
            }
        }
    }

    /// Whether a session of this client would be begun now.
    pub(super) fn is_wanted(&self, client: Endpoint) -> bool {
        self.copies(client) > 0
            && !self.draining
            && !self.is_nearly_full()
            && self.relief.admits(self.place(client))
            && self.target_with(&client.ip).is_none()
    }

    /// The place of a client's session among those that are chosen now: what is given up under pressure is a part of
    /// these.
    pub(super) fn place(&self, client: Endpoint) -> Place {
        Place::of(&self.config.intensity_key, client).among(self.intensity)
    }

    pub(super) fn copies(&self, client: Endpoint) -> u16 {
        let place = Place::of(&self.config.intensity_key, client);
        let copies = self.intensity.copies(place);
        copies
            .saturating_mul(self.config.factor)
            .min(Intensity::MOST_REPLICAS)
    }

    /// Whether a new session must be refused; counts it.
    pub(super) fn refuses(&mut self, packet: &TcpPacket<'_>) -> bool {
        let reason = if self.draining {
            RefusalReason::Draining
        } else if self.is_nearly_full() {
            RefusalReason::Memory
        } else if !self.relief.admits(self.place(packet.tuple.source)) {
            RefusalReason::Overload
        } else {
            return false;
        };
        self.stats.sessions_refused.add(reason);
        self.stats.bytes_refused += packet.payload_len as u64;
        true
    }

    pub(super) fn is_nearly_full(&self) -> bool {
        self.memory() > self.config.memory_limit / 100 * REFUSE_ABOVE
    }
}
