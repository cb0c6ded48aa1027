//! What acknowledgements, windows and SACK blocks of the target mean for the sender.

use millrace_wire::TcpHeader;

use super::super::recovery::{DUP_THRESH, Mode, Recovery};
use crate::time::Time;

use super::{Sender, Tail};

impl Sender {
    /// RFC 9293 3.10.7.4: the window of the newest segment counts.
    pub(super) fn update_window(&mut self, header: &TcpHeader, ack: u64, window_end: u64) {
        let newer = header.seq.since(self.wl1) > 0
            || (header.seq == self.wl1 && (ack > self.una || window_end > self.window_end))
            || (ack > self.una && window_end >= self.window_end)
            // A window that shrank is announced in a segment without data of its own.
            || (header.seq == self.wl1 && ack == self.una);
        if newer {
            // Open again, or for what was sent before it was closed.
            if window_end > ack && self.probes > 0 {
                self.probes = 0;
                self.rto_at = Time::NEVER;
            }
            self.window_end = window_end;
            self.wl1 = header.seq;
        }
    }

    pub(super) fn take_sack(&mut self, header: &TcpHeader) -> bool {
        if !self.sack || header.options.sack.is_empty() || !self.has_flight() {
            return false;
        }
        let (una, max, first) = (self.una, self.max, self.first);
        let recovery = self
            .recovery
            .get_or_insert_with(|| Box::new(Recovery::new(una)));
        let near = first.add(una as u32);
        recovery.on_sack(&header.options.sack, una, max, |seq| {
            seq.offset_near(near, una)
        })
    }

    pub(super) fn advance(&mut self, now: Time, ack: u64) {
        let bytes = ack - self.una;
        self.una = ack;
        self.alone = false;
        self.probes = 0;
        self.tail = Tail::Unwatched;
        self.rtt.reset_backoff();
        // Karn's algorithm (RFC 6298 (3)): `timed_at` is dropped whenever something is sent again.
        if self.timed_at != Time::NEVER && !self.seq_of(ack).before(self.timed_end) {
            self.rtt.sample(now.micros_since(self.timed_at));
            self.timed_at = Time::NEVER;
        }
        match &mut self.recovery {
            None => self.congestion.on_ack(bytes, self.mss),
            Some(recovery) => {
                recovery.on_advance(ack);
                let done = ack >= recovery.point;
                match recovery.mode {
                    Mode::Fast if !done => {
                        // A partial acknowledgement: the next hole begins here (RFC 6582 3.2).
                        recovery.resend_first |= !self.sack;
                    }
                    Mode::Fast => recovery.mode = Mode::Disorder,
                    Mode::Timeout => {
                        self.congestion.on_ack(bytes, self.mss);
                        if done {
                            recovery.mode = Mode::Disorder;
                        }
                    }
                    Mode::Disorder => self.congestion.on_ack(bytes, self.mss),
                }
                if recovery.is_over(ack) {
                    self.recovery = None;
                }
            }
        }
        // RFC 6298 (5.2), (5.3).
        match self.has_flight() {
            true => self.arm(now),
            false => self.rto_at = Time::NEVER,
        }
    }

    pub(super) fn on_duplicate(&mut self) -> bool {
        let una = self.una;
        let recovery = self
            .recovery
            .get_or_insert_with(|| Box::new(Recovery::new(una)));
        recovery.dup_acks = recovery.dup_acks.saturating_add(1);
        self.enter_fast_if_lost()
    }

    pub(super) fn enter_fast_if_lost(&mut self) -> bool {
        let Some(recovery) = &mut self.recovery else {
            return false;
        };
        // The tail has arrived the second time, and what lies before it has not.
        recovery.tail_arrived |= self.tail == Tail::Probed && recovery.has_sacked();
        let lost = recovery.dup_acks >= DUP_THRESH || recovery.lost_below(self.mss) > self.una;
        // Below the point of an earlier recovery, duplicates tell nothing new (RFC 6582 4.1).
        if !lost || recovery.mode != Mode::Disorder || self.una < recovery.point {
            return false;
        }
        recovery.enter_fast(self.una, self.max);
        self.congestion
            .on_fast_retransmit(self.max - self.una, self.mss);
        true
    }
}
