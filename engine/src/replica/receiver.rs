//! The receiving half of a replica (RFC 9293 3.10.7.4): it has only headers, counts the bytes by
//! their lengths, and acknowledges them as a client would.

use millrace_wire::{Flags, SackBlocks, Seq, TcpHeader};

use super::asked::Asked;
use crate::ranges::RangeSet;
use crate::time::Time;

/// The window that replicas advertise: nothing is stored, so it is always open.
pub(crate) const WINDOW: u16 = u16::MAX;
/// The scale offered for it (RFC 7323 2): 8 MiB.
pub(crate) const WINDOW_SCALE: u8 = 7;
/// A single small segment is acknowledged after this time at the latest, in microseconds, so that
/// the next turn can carry the acknowledgement (RFC 9293 3.8.6.3 allows 500 ms).
const DELAYED_ACK: u32 = 10_000;
/// Numbers further ahead than this are not those of this connection.
const PLAUSIBLE: u64 = 1 << 30;

/// What a segment brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes by which the contiguous answer grew.
    pub(crate) bytes: u64,
    /// Whether the target's FIN was reached just now.
    pub(crate) finished: bool,
}

/// The receiver.
#[derive(Debug)]
pub(crate) struct Receiver {
    first: Seq,
    next: u64,
    /// Where the FIN lies; [`NO_FIN`] while none was seen.
    fin: u64,
    finished: bool,
    ack_now: bool,
    unacked: u32,
    /// Deadline of a delayed acknowledgement.
    pub(crate) ack_at: Time,
    beyond: Option<Box<Beyond>>,
    /// The timestamp to echo (RFC 7323 4.3, TS.Recent).
    ts_recent: u32,
    /// RFC 7323 4.3, Last.ACK.sent.
    last_ack_sent: Seq,
    /// Since when an answer is due.
    pub(super) asked: Asked,
}

/// See [`Receiver::fin`].
const NO_FIN: u64 = u64::MAX;

/// What lies behind a hole.
#[derive(Debug, Default)]
struct Beyond {
    ranges: RangeSet,
    /// The start of what came last.
    latest: u64,
}

impl Receiver {
    /// A receiver whose first byte has the sequence number `first`.
    pub(crate) const fn new(first: Seq, ts_recent: u32) -> Self {
        Self {
            first,
            next: 0,
            fin: NO_FIN,
            finished: false,
            ack_now: false,
            unacked: 0,
            ack_at: Time::NEVER,
            beyond: None,
            ts_recent,
            last_ack_sent: first,
            asked: Asked::NOTHING,
        }
    }

    /// Contiguous bytes of the target's answer; its FIN counts as one more.
    pub(crate) const fn answered(&self) -> u64 {
        self.next + self.finished as u64
    }

    /// Whether the target's FIN was reached.
    pub(crate) const fn finished(&self) -> bool {
        self.finished
    }

    /// The acknowledgement number to send.
    pub(crate) const fn ack_number(&self) -> Seq {
        // Truncation is arithmetic modulo 2^32.
        self.first.add(self.answered() as u32)
    }

    /// The timestamp to echo.
    pub(crate) const fn ts_recent(&self) -> u32 {
        self.ts_recent
    }

    /// Whether an acknowledgement must go out now.
    pub(crate) const fn must_ack(&self) -> bool {
        self.ack_now
    }

    /// Whether something has come in that is not acknowledged yet, at once or a moment later.
    pub(crate) const fn owes_ack(&self) -> bool {
        self.ack_now || self.unacked > 0
    }

    /// Demands an acknowledgement.
    pub(crate) const fn demand_ack(&mut self) {
        self.ack_now = true;
    }

    /// A delayed acknowledgement that is due goes out with the next packet, or as one.
    pub(crate) fn on_timer(&mut self, now: Time) {
        if self.ack_at <= now {
            self.ack_at = Time::NEVER;
            self.ack_now = true;
        }
    }

    /// A segment with the current acknowledgement went out.
    pub(crate) const fn acked(&mut self) {
        self.ack_now = false;
        self.unacked = 0;
        self.ack_at = Time::NEVER;
        self.last_ack_sent = self.ack_number();
    }

    /// Whether `seq` lies so near the expected number that it can be of this connection.
    pub(crate) fn is_plausible(&self, seq: Seq) -> bool {
        self.offset_of(seq)
            .is_none_or(|offset| offset <= self.next + PLAUSIBLE)
    }

    /// Whether a RST with this number is to be believed. RFC 5961 3.2 wants the exact number;
    /// since response headers may be lost on the way here, anything from it up to a window ahead
    /// counts.
    pub(crate) fn accepts_reset(&self, seq: Seq) -> bool {
        let window = u64::from(WINDOW) << WINDOW_SCALE;
        self.offset_of(seq)
            .is_some_and(|o| o >= self.next && o <= self.answered() + window)
    }

    /// Takes a segment's sequence space. `mss` is what this side offered.
    pub(crate) fn on_segment(
        &mut self,
        now: Time,
        header: &TcpHeader,
        payload_len: u32,
        mss: u16,
    ) -> Received {
        let mut received = Received::default();
        let fin = header.flags.has(Flags::FIN);
        let start = self.offset_of(header.seq);
        self.note_timestamp(header);
        if header.flags.has(Flags::SYN) {
            // The SYN-ACK again: the acknowledgement of the first was lost.
            self.ack_now = true;
            return received;
        }
        let Some(start) = start else {
            // Before the first byte: a keepalive probe of a target that has sent nothing yet.
            self.ack_now = true;
            return received;
        };
        let end = start + u64::from(payload_len);
        if start > self.next + PLAUSIBLE {
            return received;
        }
        if fin && self.fin == NO_FIN {
            self.fin = end.max(self.next);
        }
        let limit = self.fin;
        if payload_len == 0 && !fin {
            // A bare acknowledgement. One that lies before what is expected is a keepalive or
            // window probe and wants an answer (RFC 9293 3.8.4).
            self.ack_now |= start < self.answered();
            return received;
        }
        if end <= self.next && (!fin || self.finished) {
            self.ack_now = true;
            return received;
        }
        if start > self.next {
            let beyond = self.beyond.get_or_insert_default();
            beyond.ranges.insert(start, end.min(limit));
            beyond.latest = start;
            self.ack_now = true;
            return received;
        }
        let before = self.next;
        self.next = self.next.max(end.min(limit));
        if let Some(beyond) = &mut self.beyond {
            if let Some(end) = beyond.ranges.end_of_range_at(self.next) {
                self.next = end.min(limit);
            }
            beyond.ranges.remove_below(self.next);
            // RFC 5681 4.2: acknowledge at once while a hole is being filled.
            self.ack_now = true;
            if beyond.ranges.is_empty() {
                self.beyond = None;
            }
        }
        received.bytes = self.next - before;
        if !self.finished && self.fin == self.next {
            self.finished = true;
            received.finished = true;
            self.ack_now = true;
        }
        self.unacked = self
            .unacked
            .saturating_add(u32::try_from(received.bytes).unwrap_or(0));
        // RFC 5681 4.2: at least every second full-sized segment.
        if self.unacked >= 2 * u32::from(mss) {
            self.ack_now = true;
        } else if self.unacked > 0 && !self.ack_now && self.ack_at == Time::NEVER {
            self.ack_at = now.plus_micros(DELAYED_ACK);
        }
        received
    }

    /// The blocks to report (RFC 2018 4): the most recent first.
    pub(crate) fn sack_blocks(&self) -> SackBlocks {
        let mut blocks = SackBlocks::default();
        let Some(beyond) = &self.beyond else {
            return blocks;
        };
        let seq = |offset: u64| self.first.add(offset as u32);
        let is_latest = |range: &&(u64, u64)| range.0 <= beyond.latest && beyond.latest < range.1;
        let ranges = beyond.ranges.as_slice();
        for range in ranges.iter().filter(is_latest) {
            blocks.push(seq(range.0), seq(range.1));
        }
        for range in ranges.iter().filter(|range| !is_latest(range)) {
            blocks.push(seq(range.0), seq(range.1));
        }
        blocks
    }

    fn offset_of(&self, seq: Seq) -> Option<u64> {
        seq.offset_near(self.first.add(self.next as u32), self.next)
    }

    /// RFC 7323 4.3 (2): keep the timestamp of a segment that covers the last acknowledgement.
    fn note_timestamp(&mut self, header: &TcpHeader) {
        if let Some((value, _)) = header.options.timestamps
            && !header.seq.after(self.last_ack_sent)
            && Seq(value).since(Seq(self.ts_recent)) >= 0
        {
            self.ts_recent = value;
        }
    }
}
