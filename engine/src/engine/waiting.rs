//! Segments of clients that wait for what bears them out.
//!
//! A receiver drops a segment that acknowledges what it never sent (RFC 9293 3.10.7.4, RFC 5961 5), and a FIN ends
//! nothing before all bytes before it have come; the same goes for urgent data, which end what is replayed. Capture cannot
//! tell such a segment from one whose neighbours it has lost. So both wait until the live server acknowledges them, the client goes on behind them, or what they lacked has
//! come. They are dropped when the live server has gone on without them.

use millrace_wire::{Flags, Seq, TcpPacket};

use super::Engine;
use super::client_segments::{BorneOut, ClientSegment};
use super::doubts::BORNE_OUT_AFTER;
use crate::evidence::{Fate, Waiting, decide, ends, known_end};
use crate::key::SessionKey;
use crate::live_view::Said;
use crate::payload::Payload;
use crate::time::Time;

/// Segments that wait in one session. Of more, those are dropped that the live server has passed over, or the newest.
const MOST: usize = 32;

impl Engine {
    /// Whether this segment, whose first byte has this offset, has to wait; if so it does. Where nothing is seen of any
    /// live server nothing has: there is nothing to go by.
    pub(super) fn waits(
        &mut self,
        key: SessionKey,
        segment: ClientSegment<'_>,
        offset: u64,
    ) -> bool {
        let packet = segment.packet;
        let fin = packet.header.flags.has(Flags::FIN);
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        if (packet.payload_len == 0 && !fin) || !session.is_active() {
            return false;
        }
        let end = offset + packet.payload_len as u64;
        let is_new =
            end > session.stream().len() || fin && session.stream().announced_end().is_none();
        // Of this session the SYN-ACK may be missing.
        let is_seen = session.live.is_heard() || self.stats.live_segments > 0;
        let is_loose = ends(&packet.header) && offset > session.stream().len() && is_seen;
        let is_unsent = session.live.is_unsent(&packet.header);
        // Whoever recorded the live server may have been ahead.
        let is_acked = session.live.acked == end + u64::from(fin);
        // Whoever sees nothing of live servers has nothing to go by.
        let is_doubted = is_loose || is_unsent && is_seen;
        if !is_new || is_acked || !is_doubted {
            return false;
        }
        let known = known_end(session.stream(), self.evidence.waiting(key).iter());
        let fresh = offset == known.max(session.live.acked)
            && session.live.is_turn_after(packet.header.ack);
        self.put_waiting(key, segment, fresh, is_loose);
        true
    }

    /// Lets a segment wait, or drops it where there is no room for more.
    pub(super) fn put_waiting(
        &mut self,
        key: SessionKey,
        segment: ClientSegment<'_>,
        fresh: bool,
        loose: bool,
    ) {
        let packet = segment.packet;
        let Some(live) = self.sessions.get(key).map(|session| session.live) else {
            return;
        };
        // Without a word of the live server two segments of the client say as much as one of both.
        let likely = live.is_likely(&packet.header) || !live.is_heard();
        let repeats = |other: &Waiting| {
            (other.header.seq, other.payload_len) == (packet.header.seq, packet.payload_len)
                && other.header.ack == packet.header.ack
                && other.header.flags == packet.header.flags
                && *other.payload == *packet.payload
        };
        let queue = self.evidence.waiting(key);
        if queue.iter().any(repeats) {
            return;
        }
        let passed_over = queue.iter().position(|one| one.passed_over);
        if queue.len() >= MOST
            && let Some(index) = passed_over
        {
            self.evidence.take_one(key, index);
            self.stats.segments_out_of_window += 1;
        }
        if self.evidence.waiting(key).len() >= MOST || self.is_nearly_full() {
            self.stats.segments_out_of_window += 1;
        } else {
            let patience = match loose {
                true => BORNE_OUT_AFTER,
                false => self.gap_grace(),
            };
            let waiting = Waiting {
                at: segment.at,
                tuple: packet.tuple,
                header: packet.header,
                payload: segment.payload.keep(packet.payload),
                payload_len: packet.payload_len,
                fresh,
                loose,
                likely,
                until: segment.at + patience,
                borne_out: false,
                answered: false,
                passed_over: false,
            };
            self.evidence.wait(key, waiting);
        }
        if !self.evidence.waiting(key).is_empty() {
            self.arm_session(key);
        }
    }

    /// The live server has spoken; `before` it had acknowledged so much of the client's stream.
    pub(super) fn note_answer(&mut self, key: SessionKey, said: &Said, before: u64) {
        if self.evidence.waiting(key).is_empty() {
            return;
        }
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let queue = self.evidence.waiting_mut(key);
        // An acknowledgement of what the client is not known to have sent says nothing.
        let known = known_end(session.stream(), queue.iter());
        let acked = said.acked();
        for one in queue {
            let (_, end) = one.place(session.stream());
            // Whoever had accepted it had sent what it acknowledges.
            let accepts = one.end(0) > 0 && session.live.is_sent_by(said, &one.header);
            let acknowledges = accepts && (end..=known.max(end)).contains(&acked);
            one.borne_out |= acknowledges;
            one.answered |= acknowledges && session.live.goes_beyond(said, &one.header);
            one.passed_over |= acked < end && acked >= before;
        }
        self.arm_session(key);
    }

    /// The client has sent this. Segments that it continues are borne out, and go first. Says whether there are any.
    pub(super) fn note_continued(
        &mut self,
        now: Time,
        key: SessionKey,
        packet: &TcpPacket<'_>,
    ) -> bool {
        if !self.evidence.is_any_waiting() {
            return false;
        }
        let mut found = false;
        for one in self.evidence.waiting_mut(key) {
            if one.likely && one.is_continued_by(&packet.header) && !one.passed_over {
                one.borne_out = true;
                found = true;
            }
        }
        if found {
            self.settle_waiting(now, key, false);
        }
        found
    }

    /// The live server has reset somebody who acknowledged this number, which it never sent (RFC 9293 3.10.7.4).
    pub(super) fn refute(&mut self, key: SessionKey, ack: Seq) {
        let refuted = self.evidence.retain(key, |one| one.header.ack != ack);
        self.stats.segments_out_of_window += refuted;
    }

    /// Looks whether segments of this session wait no longer. With `all` every one is decided by what is known now.
    pub(super) fn settle_waiting(&mut self, now: Time, key: SessionKey, all: bool) {
        if !self.evidence.is_any_waiting() {
            return;
        }
        while let Some((waiting, decision)) = self.next_decided(now, key, all) {
            match decision {
                Fate::Take => {
                    if let Some(session) = self.sessions.get_mut(key).filter(|_| waiting.borne_out)
                    {
                        // The live server has sent what it acknowledges, captured or not.
                        session.live.believe(&waiting.header);
                    }
                    let segment = ClientSegment {
                        at: waiting.at,
                        packet: &waiting.packet(),
                        payload: Payload::Shared(&waiting.payload),
                    };
                    let borne_out = BorneOut {
                        fresh: waiting.fresh,
                        answered: waiting.answered,
                    };
                    self.take_borne_out(now, key, segment, borne_out);
                }
                Fate::Drop => self.stats.segments_out_of_window += 1,
                Fate::Repeated => self.stats.bytes_repeated += waiting.payload_len as u64,
                Fate::Wait => {}
            }
        }
    }

    /// Takes out the first segment that waits no longer.
    fn next_decided(&mut self, now: Time, key: SessionKey, all: bool) -> Option<(Waiting, Fate)> {
        let clock = self.clock.now(now);
        let session = self.sessions.get(key)?;
        let queue = self.evidence.waiting(key);
        // Those that the live server has passed over come last: another one may be what it has acknowledged.
        let is_last = |(_, one): &(usize, &Waiting)| one.passed_over;
        let (last, first): (Vec<_>, Vec<_>) = queue.iter().enumerate().partition(is_last);
        let (index, decision) =
            first.into_iter().chain(last).find_map(|(index, one)| {
                match decide(session, one, clock, all) {
                    Fate::Wait => None,
                    decision => Some((index, decision)),
                }
            })?;
        Some((self.evidence.take_one(key, index)?, decision))
    }
}
