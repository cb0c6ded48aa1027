//! Segments of clients that wait for what bears them out.
//!
//! A receiver drops a segment that acknowledges what it never sent (RFC 9293 3.10.7.4, RFC 5961 5), and a FIN ends
//! nothing before all bytes before it have come; the same goes for urgent data, which end what is replayed. Capture cannot
//! tell such a segment from one whose neighbours it has lost. So both wait until the live server acknowledges them, the client goes on behind them, or what they lacked has
//! come. They are dropped when the live server has gone on without them.

use bytes::Bytes;
use millrace_wire::{Flags, FourTuple, Seq, TcpHeader, TcpPacket};

use super::Engine;
use super::client_segments::{BorneOut, ClientSegment};
use super::doubts::BORNE_OUT_AFTER;
use crate::key::SessionKey;
use crate::live_view::{ACKS_APART, Said};
use crate::payload::Payload;
use crate::session::{Phase, Session};
use crate::stream::ClientStream;
use crate::time::Time;

/// Segments that wait in one session. Of more, those are dropped that the live server has passed over, or the newest.
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
    /// It ends the stream, ahead of bytes that have not come.
    loose: bool,
    /// For so long the live server may still accept it though it has passed it over, and nobody asks why bytes before
    /// a FIN do not come.
    until: Time,
    /// What it acknowledges is so near what the live server is known to have sent that it may be lost.
    likely: bool,
    /// The live server has acknowledged it, or the client has gone on behind it.
    borne_out: bool,
    /// The live server has answered it: what it said reaches beyond what the client had seen.
    answered: bool,
    /// The live server has spoken since, and not acknowledged it.
    passed_over: bool,
}

/// What becomes of a segment that waits.
enum Decision {
    Wait,
    Take,
    Drop,
    /// All of it has come by other segments.
    Repeated,
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

    /// Whether a segment of its client begins where it ends, and acknowledges as much or a little more.
    fn is_continued_by(&self, header: &TcpHeader) -> bool {
        let length = self.end(0) as u32;
        let further = header.ack.since(self.header.ack);
        length > 0
            && header.seq == self.header.seq.add(length)
            && header.flags.has(Flags::ACK)
            && u64::try_from(further).is_ok_and(|further| further <= ACKS_APART)
    }

    /// When it is decided if nothing more is said.
    fn due(&self) -> Time {
        match self.passed_over || self.loose || self.likely {
            true => self.until,
            false => Time::NEVER,
        }
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
        if (packet.payload_len == 0 && !fin) || !matches!(session.phase, Phase::Active { .. }) {
            return false;
        }
        let end = offset + packet.payload_len as u64;
        let is_new = end > session.stream.len() || fin && session.stream.announced_end().is_none();
        // Of this session the SYN-ACK may be missing.
        let is_seen = session.live.is_heard() || self.stats.live_segments > 0;
        let is_loose = ends(&packet.header) && offset > session.stream.len() && is_seen;
        let is_unsent = session.live.is_unsent(&packet.header);
        // Whoever recorded the live server may have been ahead.
        let is_acked = session.live.acked == end + u64::from(fin);
        // Whoever sees nothing of live servers has nothing to go by.
        let is_doubted = is_loose || is_unsent && is_seen;
        if !is_new || is_acked || !is_doubted {
            return false;
        }
        let known = known_end(&session.stream, self.waiting.get(key).into_iter().flatten());
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
        let queue = self.waiting.get(key);
        if queue.is_some_and(|queue| queue.iter().any(repeats)) {
            return;
        }
        let mut queue = self.waiting.remove(key).unwrap_or_default();
        if queue.len() >= MOST
            && let Some(index) = queue.iter().position(|one| one.passed_over)
        {
            let dropped = queue.remove(index);
            self.heap = self.heap.saturating_sub(dropped.cost());
            self.stats.segments_out_of_window += 1;
        }
        if queue.len() >= MOST || self.is_nearly_full() {
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
            self.heap += waiting.cost();
            queue.push(waiting);
        }
        if !queue.is_empty() {
            self.waiting.insert(key, queue);
            self.arm_session(key);
        }
    }

    /// The live server has spoken; `before` it had acknowledged so much of the client's stream.
    pub(super) fn note_answer(&mut self, key: SessionKey, said: &Said, before: u64) {
        if self.waiting.is_empty() {
            return;
        }
        let (Some(session), Some(queue)) = (self.sessions.get(key), self.waiting.get_mut(key))
        else {
            return;
        };
        // An acknowledgement of what the client is not known to have sent says nothing.
        let known = known_end(&session.stream, queue.iter());
        let acked = said.acked();
        for one in queue {
            let (_, end) = one.place(&session.stream);
            // Whoever had accepted it had sent what it acknowledges.
            let accepts = one.end(0) > 0 && session.live.is_sent_by(said, &one.header);
            let acknowledges = accepts && (end..=known.max(end)).contains(&acked);
            one.borne_out |= acknowledges;
            one.answered |= acknowledges && session.live.goes_beyond(said, &one.header);
            one.passed_over |= acked < end && acked >= before;
        }
        self.arm_session(key);
    }

    /// The client has sent this. Segments that it continues are borne out, and go first.
    pub(super) fn note_continued(&mut self, now: Time, key: SessionKey, packet: &TcpPacket<'_>) {
        if self.waiting.is_empty() {
            return;
        }
        let Some(queue) = self.waiting.get_mut(key) else {
            return;
        };
        let mut found = false;
        for one in queue {
            if one.likely && one.is_continued_by(&packet.header) && !one.passed_over {
                one.borne_out = true;
                found = true;
            }
        }
        if found {
            self.settle_waiting(now, key, false);
        }
    }

    /// The live server has reset somebody who acknowledged this number, which it never sent (RFC 9293 3.10.7.4).
    pub(super) fn refute(&mut self, key: SessionKey, ack: Seq) {
        let Some(mut queue) = self.waiting.remove(key) else {
            return;
        };
        let (refuted, rest): (Vec<_>, Vec<_>) =
            queue.drain(..).partition(|one| one.header.ack == ack);
        self.stats.segments_out_of_window += refuted.len() as u64;
        let cost: usize = refuted.iter().map(Waiting::cost).sum();
        self.heap = self.heap.saturating_sub(cost);
        if !rest.is_empty() {
            self.waiting.insert(key, rest);
        }
    }

    /// When the first of a session's waiting segments is decided at the latest.
    pub(super) fn waiting_until(&self, key: SessionKey) -> Time {
        if self.waiting.is_empty() {
            return Time::NEVER;
        }
        let queue = self.waiting.get(key).into_iter().flatten();
        queue.map(Waiting::due).min().unwrap_or(Time::NEVER)
    }

    /// Looks whether segments of this session wait no longer. With `all` every one is decided by what is known now.
    pub(super) fn settle_waiting(&mut self, now: Time, key: SessionKey, all: bool) {
        if self.waiting.is_empty() {
            return;
        }
        while let Some((waiting, decision)) = self.next_decided(now, key, all) {
            match decision {
                Decision::Take => {
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
                Decision::Drop => self.stats.segments_out_of_window += 1,
                Decision::Repeated => self.stats.bytes_repeated += waiting.payload_len as u64,
                Decision::Wait => {}
            }
        }
    }

    /// Takes out the first segment that waits no longer.
    fn next_decided(
        &mut self,
        now: Time,
        key: SessionKey,
        all: bool,
    ) -> Option<(Waiting, Decision)> {
        let clock = self.live_now(now);
        let session = self.sessions.get(key)?;
        let queue = self.waiting.get_mut(key)?;
        // Those that the live server has passed over come last: another one may be what it has acknowledged.
        let is_last = |(_, one): &(usize, &Waiting)| one.passed_over;
        let (last, first): (Vec<_>, Vec<_>) = queue.iter().enumerate().partition(is_last);
        let (index, decision) =
            first.into_iter().chain(last).find_map(|(index, one)| {
                match decide(session, one, clock, all) {
                    Decision::Wait => None,
                    decision => Some((index, decision)),
                }
            })?;
        let waiting = queue.remove(index);
        if queue.is_empty() {
            self.waiting.remove(key);
        }
        self.heap = self.heap.saturating_sub(waiting.cost());
        Some((waiting, decision))
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

/// Whether a segment ends what is replayed: a FIN, or urgent data.
fn ends(header: &TcpHeader) -> bool {
    header.flags.has(Flags::FIN) || header.flags.has(Flags::URG)
}

/// What becomes of a segment now; `all` says that nothing else is to come.
fn decide(session: &Session, one: &Waiting, clock: Time, all: bool) -> Decision {
    let is_unsent = session.live.is_unsent(&one.header);
    let is_due = all || one.due() <= clock;
    match session.phase {
        // What is watched goes by what it takes for the client's: nothing that the live server would not have taken.
        Phase::Midway(_) => {
            let is_doubted = one.passed_over || is_unsent && !one.likely;
            return match one.borne_out || !is_doubted {
                true => Decision::Take,
                false => Decision::Drop,
            };
        }
        // The live server resets whoever acknowledges what it never sent.
        Phase::Opening => {
            return match (one.borne_out || !is_unsent, is_due) {
                (true, _) => Decision::Take,
                (false, true) => Decision::Drop,
                (false, false) => Decision::Wait,
            };
        }
        Phase::Active { .. } => {}
    }
    let Some(offset) = session.stream.offset_of(one.header.seq) else {
        return Decision::Drop;
    };
    let has = session.stream.len();
    let fin = one.header.flags.has(Flags::FIN);
    if has >= one.end(offset) || fin && session.stream.announced_end().is_some() {
        return Decision::Repeated;
    }
    let is_loose = ends(&one.header) && offset > has;
    if one.borne_out || !(is_loose || is_unsent) {
        return Decision::Take;
    }
    match (is_due, one.passed_over || is_unsent && !one.likely) {
        (true, true) => Decision::Drop,
        // The live server's words are not captured.
        (true, false) => Decision::Take,
        (false, _) => Decision::Wait,
    }
}
