//! Asks whether sessions are copied, and counts those that are not. What decides is [`crate::admission`].

use millrace_wire::{Endpoint, TcpPacket};

use super::Engine;
use crate::admission::{Decision, Situation};
use crate::intensity::Intensity;
use crate::key::SessionKey;
use crate::session::Watch;
use crate::stats::AbortReason;
use crate::time::Time;

/// New sessions are refused above this share of the memory limit, in percent: what remains is
/// for sessions that are open.
const REFUSE_ABOVE: u64 = 90;

impl Engine {
    /// From now on so many replicas are made of each session that begins. Open sessions keep the
    /// replicas that they have. A session that was left out so far and is chosen now is picked up
    /// at its next turn, unless only sessions seen from their SYN are copied.
    pub const fn set_intensity(&mut self, intensity: Intensity) {
        self.admission.set_intensity(intensity);
    }

    /// Replicas per session at the moment.
    pub const fn intensity(&self) -> Intensity {
        self.admission.intensity()
    }

    /// Ends all replicas, counted as [`AbortReason::Stopped`]; their sessions are only watched
    /// from now on. New sessions begin as before: set the intensity to zero first if they must
    /// not.
    pub fn stop_replicas(&mut self, now: Time) {
        let copied = self.sessions.all.iter();
        let copied = copied.filter(|(_, session)| session.first_replica().is_some());
        let keys: Vec<SessionKey> = copied.map(|(key, _)| key).collect();
        for key in keys {
            self.abort_session(now, key, AbortReason::Stopped);
        }
    }

    /// Whether the intensity leaves this client's session out; counts its bytes. Nothing is kept
    /// of such a session: should the intensity rise, it is met midway.
    pub(super) fn is_unchosen(&mut self, packet: &TcpPacket<'_>) -> bool {
        let unchosen = self.admission.copies(packet.tuple.source) == 0;
        if unchosen {
            self.leave_out(packet);
        }
        unchosen
    }

    /// Counts the bytes of a client's segment that the intensity leaves out.
    pub(super) fn leave_out(&mut self, packet: &TcpPacket<'_>) {
        let bytes = packet.payload_len as u64;
        self.stats.bytes_unchosen += bytes;
        if self.admission.is_chosen_in_full(packet.tuple.source) {
            self.stats.bytes_left_out += bytes;
        }
    }

    /// Decides on a session whose copy could begin now; on one that is watched (for this reason) and whose next turn does.
    pub(super) fn admit(&mut self, now: Time, key: SessionKey, watch: Option<Watch>) -> Decision {
        let Some(client) = self.sessions.get(key).map(|session| session.tuple.source) else {
            return Decision::Unchosen;
        };
        let situation = Situation {
            now,
            copied: self.sessions.copied(),
            backlog: self.backlog(),
            is_nearly_full: self.is_nearly_full(),
        };
        match watch {
            None => self.admission.decide(client, situation),
            Some(watch) => self.admission.decide_again(client, situation, watch),
        }
    }

    /// Whether a session of this client would be begun now.
    pub(super) fn is_wanted(&self, client: Endpoint) -> bool {
        self.admission.wants(client, self.is_nearly_full())
            && self.target_with(&client.ip).is_none()
    }

    /// Whether a new session must be refused; counts it.
    pub(super) fn refuses(&mut self, packet: &TcpPacket<'_>) -> bool {
        let refusal = self
            .admission
            .refusal(packet.tuple.source, self.is_nearly_full());
        if let Some(reason) = refusal {
            self.stats.sessions_refused.add(reason);
            self.stats.bytes_refused += packet.payload_len as u64;
        }
        refusal.is_some()
    }

    pub(super) fn is_nearly_full(&self) -> bool {
        self.memory() > self.config.memory_limit / 100 * REFUSE_ABOVE
    }
}
