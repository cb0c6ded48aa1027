//! Segments of clients that wait for what bears them out.
//!
//! A receiver drops a segment that acknowledges what it never sent (RFC 9293 3.10.7.4, RFC 5961 5), and a FIN ends
//! nothing before all bytes before it have come. Capture cannot tell such a segment from one whose neighbours it has
//! lost. So both wait: until the live server acknowledges them, until what they lacked has come, or until it is clear
//! that the live server has not taken them.

use bytes::Bytes;
use millrace_wire::{Flags, FourTuple, TcpHeader, TcpPacket};

use super::Engine;
use super::client::ClientSegment;
use super::doubts::BORNE_OUT_AFTER;
use crate::payload::Payload;
use crate::session::{Phase, Session, SessionKey};
use crate::stream::ClientStream;
use crate::time::Time;

/// Segments that wait in one session. The first of more goes in as it is.
const MOST: usize = 32;

/// A segment that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    at: Time,
    tuple: FourTuple,
    header: TcpHeader,
    payload: Bytes,
    payload_len: usize,
    /// It begins a turn if it is what it seems.
    fresh: bool,
    /// When the matter is decided by what is known then.
    until: Time,
    /// The live server has acknowledged it.
    acked: bool,
    /// The live server has spoken since, and not acknowledged it.
    passed_over: bool,
}

/// What becomes of a segment that waits.
enum Decision {
    Wait,
    Take,
    Drop,
}

impl Waiting {
    /// Memory that it takes.
    fn cost(&self) -> usize {
        size_of::<Self>() + self.payload.len()
    }

    /// Where it begins and ends in this stream, a FIN included.
    fn place(&self, stream: &ClientStream) -> (u64, u64) {
        let offset = stream.offset_of(self.header.seq).unwrap_or(0);
        (offset, self.end(offset))
    }

    /// Where it ends if it begins at this offset, a FIN included.
    fn end(&self, offset: u64) -> u64 {
        offset + self.payload_len as u64 + u64::from(self.header.flags.has(Flags::FIN))
    }

    fn packet(&self) -> TcpPacket<'_> {
        TcpPacket {
            tuple: self.tuple,
            header: self.header,
            payload: &self.payload,
            payload_len: self.payload_len,
        }
    }
}

impl Engine {
    /// Whether this segment, whose first byte has this offset, has to wait; if so it does. Where nothing is seen of the
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
        let is_active = matches!(session.phase, Phase::Active { .. });
        if (packet.payload_len == 0 && !fin) || !is_active || !session.live.is_heard() {
            return false;
        }
        let end = offset + packet.payload_len as u64;
        let is_new = end > session.stream.len() || fin && session.stream.announced_end().is_none();
        let is_loose = fin && offset > session.stream.len();
        let is_unsent = session.live.is_unsent(&packet.header);
        // Whoever recorded the live server may have been ahead.
        let is_acked = session.live.acked == end + u64::from(fin);
        if !is_new || is_acked || !(is_loose || is_unsent) {
            return false;
        }
        let patience = match is_loose {
            true => BORNE_OUT_AFTER,
            false => self.gap_grace(),
        };
        let known = known_end(&session.stream, self.waiting.get(key).into_iter().flatten());
        let fresh = offset == known.max(session.live.acked)
            && session.live.is_turn_after(packet.header.ack);
        self.put_waiting(key, segment, fresh, segment.at + patience)
    }

    fn put_waiting(
        &mut self,
        key: SessionKey,
        segment: ClientSegment<'_>,
        fresh: bool,
        until: Time,
    ) -> bool {
        let packet = segment.packet;
        let repeats = |other: &Waiting| {
            (other.header.seq, other.payload_len) == (packet.header.seq, packet.payload_len)
                && other.header.ack == packet.header.ack
                && other.header.flags == packet.header.flags
        };
        let queue = self.waiting.get(key);
        if queue.is_some_and(|queue| queue.iter().any(repeats)) {
            return true;
        }
        if self.is_nearly_full() || queue.is_some_and(|queue| queue.len() >= MOST) {
            return false;
        }
        let waiting = Waiting {
            at: segment.at,
            tuple: packet.tuple,
            header: packet.header,
            payload: segment.payload.keep(packet.payload),
            payload_len: packet.payload_len,
            fresh,
            until,
            acked: false,
            passed_over: false,
        };
        self.heap += waiting.cost();
        let mut queue = self.waiting.remove(key).unwrap_or_default();
        queue.push(waiting);
        self.waiting.insert(key, queue);
        self.arm_session(key);
        true
    }

    /// The live server has spoken, and acknowledged the client's stream up to here.
    pub(super) fn note_answer(&mut self, key: SessionKey, acked: u64) {
        if self.waiting.is_empty() {
            return;
        }
        let (Some(session), Some(queue)) = (self.sessions.get(key), self.waiting.get_mut(key))
        else {
            return;
        };
        // An acknowledgement of what the client is not known to have sent says nothing.
        let known = known_end(&session.stream, queue.iter());
        for one in queue {
            let (offset, end) = one.place(&session.stream);
            one.acked |= (end..=known.max(end)).contains(&acked);
            one.passed_over |= acked <= offset;
        }
    }

    /// When the first of a session's waiting segments is decided at the latest.
    pub(super) fn waiting_until(&self, key: SessionKey) -> Time {
        if self.waiting.is_empty() {
            return Time::NEVER;
        }
        let queue = self.waiting.get(key).into_iter().flatten();
        queue.map(|one| one.until).min().unwrap_or(Time::NEVER)
    }

    /// Looks whether segments of this session wait no longer. With `all` every one is decided by what is known now.
    pub(super) fn settle_waiting(&mut self, now: Time, key: SessionKey, all: bool) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some((waiting, taken)) = self.next_decided(now, key, all) {
            match taken {
                true => {
                    let segment = ClientSegment {
                        at: waiting.at,
                        packet: &waiting.packet(),
                        payload: Payload::Shared(&waiting.payload),
                    };
                    self.take_borne_out(now, key, segment, waiting.fresh);
                }
                false => self.stats.segments_out_of_window += 1,
            }
        }
    }

    /// Takes out the first segment that waits no longer, and whether it is taken.
    fn next_decided(&mut self, now: Time, key: SessionKey, all: bool) -> Option<(Waiting, bool)> {
        let clock = self.live_now(now);
        let session = self.sessions.get(key)?;
        let queue = self.waiting.get_mut(key)?;
        let decided = queue.iter().enumerate().find_map(|(index, one)| {
            let decision = decide(session, one, all || one.until <= clock);
            match decision {
                Decision::Wait => None,
                Decision::Take => Some((index, true)),
                Decision::Drop => Some((index, false)),
            }
        });
        let (index, taken) = decided?;
        let waiting = queue.remove(index);
        if queue.is_empty() {
            self.waiting.remove(key);
        }
        self.heap = self.heap.saturating_sub(waiting.cost());
        Some((waiting, taken))
    }

    /// What waits for this session waits for the one that goes on with its connection.
    pub(super) fn bequeath_waiting(&mut self, key: SessionKey, heir: SessionKey) {
        if let Some(queue) = self.waiting.remove(key) {
            self.waiting.insert(heir, queue);
        }
    }

    /// Nothing waits for this session any more.
    pub(super) fn forget_waiting(&mut self, key: SessionKey) {
        let queue = self.waiting.remove(key).unwrap_or_default();
        let cost: usize = queue.iter().map(Waiting::cost).sum();
        self.heap = self.heap.saturating_sub(cost);
    }
}

/// How far the client is known to have sent: what is in the stream, and what waits and continues that.
fn known_end<'w>(stream: &ClientStream, waiting: impl Iterator<Item = &'w Waiting>) -> u64 {
    let mut places: Vec<(u64, u64)> = waiting.map(|one| one.place(stream)).collect();
    places.sort_unstable();
    let continued = |known: u64, (offset, end)| match offset <= known {
        true => known.max(end),
        false => known,
    };
    places.into_iter().fold(stream.known_end(), continued)
}

/// What becomes of a segment, `finally` or for now.
fn decide(session: &Session, one: &Waiting, finally: bool) -> Decision {
    if !matches!(session.phase, Phase::Active { .. }) {
        return Decision::Take;
    }
    let Some(offset) = session.stream.offset_of(one.header.seq) else {
        return Decision::Drop;
    };
    let has = session.stream.len();
    let fin = one.header.flags.has(Flags::FIN);
    let is_there = match fin {
        true => has >= one.end(offset) || session.stream.announced_end().is_some(),
        false => has >= one.end(offset),
    };
    if is_there {
        return Decision::Drop;
    }
    let is_loose = fin && offset > has;
    if one.acked || (!is_loose && !session.live.is_unsent(&one.header)) {
        return Decision::Take;
    }
    match (finally, one.passed_over) {
        (false, _) => Decision::Wait,
        (true, true) => Decision::Drop,
        (true, false) => Decision::Take,
    }
}
