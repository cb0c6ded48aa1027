//! The receiving half of a replica (RFC 9293 3.10.7.4): it has only headers, counts the bytes by
//! their numbers, and acknowledges them as a client would.
//!
//! A header may be lost on its way here. Whatever lies before the number of a later one was sent, and nobody here reads
//! it: so it counts as received, and the target need not send it again.

use millrace_wire::{Flags, Seq, TcpHeader};

use super::asked::Asked;
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
    /// The last octet before `next` is known by a later number alone, and may be a FIN.
    doubtful: bool,
    ack_now: bool,
    unacked: u32,
    /// Deadline of a delayed acknowledgement.
    pub(crate) ack_at: Time,
    /// The timestamp to echo (RFC 7323 4.3, TS.Recent).
    ts_recent: u32,
    /// RFC 7323 4.3, Last.ACK.sent.
    last_ack_sent: Seq,
    /// Since when an answer is due.
    pub(super) asked: Asked,
}

/// See [`Receiver::fin`].
const NO_FIN: u64 = u64::MAX;

impl Receiver {
    /// A receiver whose first byte has the sequence number `first`.
    pub(crate) const fn new(first: Seq, ts_recent: u32) -> Self {
        Self {
            first,
            next: 0,
            fin: NO_FIN,
            finished: false,
            doubtful: false,
            ack_now: false,
            unacked: 0,
            ack_at: Time::NEVER,
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

    /// The acknowledgement number to send. An octet in doubt is sent again: only so it shows whether it is a FIN.
    pub(crate) const fn ack_number(&self) -> Seq {
        // Truncation is arithmetic modulo 2^32.
        self.first
            .add((self.answered() - self.doubtful as u64) as u32)
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

    /// Takes a segment's sequence space. `mss` is what this side offered; `proven` says that the segment also acknowledges
    /// what this side has sent, so that it is of this connection.
    pub(crate) fn on_segment(
        &mut self,
        now: Time,
        header: &TcpHeader,
        payload_len: u32,
        mss: u16,
        proven: bool,
    ) -> Received {
        let fin = header.flags.has(Flags::FIN);
        let start = self.offset_of(header.seq);
        self.note_timestamp(header);
        // The SYN-ACK again: the acknowledgement of the first was lost. Or a number before the first byte: a keepalive
        // probe of a target that has sent nothing yet.
        let Some(start) = start.filter(|_| !header.flags.has(Flags::SYN)) else {
            self.ack_now = true;
            return Received::default();
        };
        let window = u64::from(WINDOW) << WINDOW_SCALE;
        if start > self.next && !(proven && start <= self.next + window) {
            self.ack_now |= start <= self.next + PLAUSIBLE;
            return Received::default();
        }
        let end = start + u64::from(payload_len);
        let received = match payload_len == 0 && !fin {
            true => self.on_bare(start),
            false => self.on_bytes(start, end, fin),
        };
        let bytes = u32::try_from(received.bytes).unwrap_or(u32::MAX);
        self.unacked = self.unacked.saturating_add(bytes);
        // RFC 5681 4.2: at least every second full-sized segment.
        if self.unacked >= 2 * u32::from(mss) {
            self.ack_now = true;
        } else if self.unacked > 0 && !self.ack_now && self.ack_at == Time::NEVER {
            self.ack_at = now.plus_micros(DELAYED_ACK);
        }
        received
    }

    /// A bare acknowledgement.
    fn on_bare(&mut self, start: u64) -> Received {
        let mut received = Received::default();
        if start > self.next {
            // What was sent before it was lost on its way here. Its last octet may be a FIN.
            received.bytes = start - self.next - 1 + u64::from(self.doubtful);
            self.next = start;
            self.doubtful = true;
            self.ack_now = true;
        } else {
            // One that lies before what is expected is a keepalive or window probe and wants an answer (RFC 9293 3.8.4).
            self.ack_now |= start < self.answered();
        }
        received
    }

    /// A segment with bytes, a FIN, or both.
    fn on_bytes(&mut self, start: u64, end: u64, fin: bool) -> Received {
        let mut received = Received::default();
        if self.doubtful && fin && end + 1 == self.next {
            // The octet in doubt was this FIN.
            self.next = end;
            self.doubtful = false;
        } else if self.doubtful && end > start && end >= self.next {
            self.doubtful = false;
            received.bytes = 1;
        }
        if fin && self.fin == NO_FIN {
            self.fin = end.max(self.next);
        }
        // What is missing before it, what was there already, and an end are acknowledged at once (RFC 5681 4.2).
        self.ack_now |= start > self.next || end <= self.next;
        let reached = end.min(self.fin).max(self.next);
        received.bytes += reached - self.next;
        self.next = reached;
        if !self.finished && self.fin == self.next {
            self.finished = true;
            received.finished = true;
            self.ack_now = true;
        }
        received
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

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: Flags, offset: u32) -> TcpHeader {
        TcpHeader {
            seq: Seq(offset),
            flags: flags | Flags::ACK,
            ..TcpHeader::default()
        }
    }

    /// What a receiver has of the answer, and the number that it acknowledges, after each of these: flags, offset, bytes.
    fn after(segments: &[(Flags, u32, u32)]) -> Vec<(u64, u32)> {
        let mut receiver = Receiver::new(Seq(0), 0);
        let mut bytes = 0;
        let look = |(flags, offset, len): &(Flags, u32, u32)| {
            let header = segment(*flags, *offset);
            let received = receiver.on_segment(Time::ORIGIN, &header, *len, 1000, true);
            bytes += received.bytes;
            assert!(bytes <= receiver.answered());
            (receiver.answered(), receiver.ack_number().0)
        };
        segments.iter().map(look).collect()
    }

    const NONE: Flags = Flags::ACK;

    #[test]
    fn what_lies_before_a_later_segment_was_sent() {
        let got = after(&[(NONE, 0, 100), (NONE, 300, 100), (NONE, 100, 100)]);
        assert_eq!(got, [(100, 100), (400, 400), (400, 400)]);
    }

    #[test]
    fn a_bare_number_leaves_its_last_octet_in_doubt() {
        // It was a byte: sent again, or followed by others.
        let again = after(&[(NONE, 500, 0), (NONE, 0, 500)]);
        assert_eq!(again, [(500, 499), (500, 500)]);
        let next = after(&[(NONE, 500, 0), (NONE, 500, 10)]);
        assert_eq!(next, [(500, 499), (510, 510)]);
        // It was a FIN, alone or with the bytes before it.
        let fin = after(&[(NONE, 500, 0), (Flags::FIN, 499, 0)]);
        assert_eq!(fin, [(500, 499), (500, 500)]);
        let whole = after(&[(NONE, 500, 0), (Flags::FIN, 0, 499)]);
        assert_eq!(whole, [(500, 499), (500, 500)]);
        // Another bare one shows that it was a byte, or nothing.
        let twice = after(&[(NONE, 500, 0), (NONE, 500, 0), (NONE, 700, 0)]);
        assert_eq!(twice, [(500, 499), (500, 499), (700, 699)]);
    }

    #[test]
    fn a_number_out_of_the_window_or_of_another_connection_says_nothing() {
        let mut receiver = Receiver::new(Seq(0), 0);
        for (offset, proven) in [(1 << 24, true), (5000, false)] {
            let header = segment(NONE, offset);
            receiver.on_segment(Time::ORIGIN, &header, 10, 1000, proven);
            assert_eq!(receiver.answered(), 0);
        }
    }
}
