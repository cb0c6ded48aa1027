//! Loss recovery: the SACK scoreboard (RFC 6675), NewReno without it (RFC 6582), and going back
//! after a retransmission time-out (RFC 6298 (5.4), RFC 5681 3.1).

use millrace_wire::SackBlocks;
use millrace_wire::Seq;

use crate::ranges::RangeSet;

/// Duplicate acknowledgements, or segments sacked above a hole, that mean loss (RFC 6675 2).
pub(crate) const DUP_THRESH: u32 = 3;

/// What the sender is doing about loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Something arrived out of order; not yet taken for loss.
    Disorder,
    /// Fast recovery, until the recovery point is acknowledged.
    Fast,
    /// Everything outstanding is sent again from the first unacknowledged byte.
    Timeout,
}

/// The state of recovery. It exists only while something is amiss.
#[derive(Debug)]
pub(crate) struct Recovery {
    /// What is being done.
    pub(crate) mode: Mode,
    /// Recovery is over when everything below is acknowledged (RFC 6675 2, "RecoveryPoint").
    pub(crate) point: u64,
    /// Highest byte retransmitted in fast recovery (RFC 6675 2, "HighRxt").
    high_rxt: u64,
    /// Duplicate acknowledgements since the last new one.
    pub(crate) dup_acks: u32,
    /// After a time-out: what is to be sent again next.
    pub(crate) next: u64,
    /// What the receiver has selectively acknowledged.
    sacked: RangeSet,
    /// Without SACK: the first unacknowledged segment is to be sent again (RFC 6582 3.2).
    pub(crate) resend_first: bool,
    /// The tail was sent again and has arrived: whatever is missing before it is lost.
    pub(crate) tail_arrived: bool,
    /// Since the last acknowledgement time-outs have made segments smaller.
    pub(crate) narrowed: bool,
}

impl Recovery {
    pub(crate) fn new(una: u64) -> Self {
        Self {
            mode: Mode::Disorder,
            point: una,
            high_rxt: una,
            dup_acks: 0,
            next: una,
            sacked: RangeSet::default(),
            resend_first: false,
            tail_arrived: false,
            narrowed: false,
        }
    }

    /// Takes the blocks of an acknowledgement (RFC 2018 4). Blocks outside what is outstanding
    /// are ignored. Says whether any of it was news.
    pub(crate) fn on_sack(
        &mut self,
        blocks: &SackBlocks,
        una: u64,
        max: u64,
        offset_of: impl Fn(Seq) -> Option<u64>,
    ) -> bool {
        let mut news = 0;
        for (left, right) in blocks.as_slice() {
            if let Some((left, right)) = offset_of(*left).zip(offset_of(*right))
                && una < right
                && left < right
                && right <= max
            {
                // A duplicate SACK (RFC 2883) lies below `una` and was skipped above.
                news += self.sacked.insert(left.max(una), right);
            }
        }
        news > 0
    }

    /// Everything below `una` was acknowledged.
    pub(crate) fn on_advance(&mut self, una: u64) {
        self.sacked.remove_below(una);
        self.high_rxt = self.high_rxt.max(una);
        self.next = self.next.max(una);
        self.dup_acks = 0;
    }

    /// Whether something below `max` is still to be sent again after a time-out, before anything
    /// new.
    pub(crate) fn is_going_back(&self, max: u64) -> bool {
        self.mode == Mode::Timeout && self.next < max
    }

    /// Whether nothing is left to recover from.
    pub(crate) fn is_over(&self, una: u64) -> bool {
        una >= self.point && self.sacked.is_empty()
    }

    /// Whether anything is selectively acknowledged.
    pub(crate) fn has_sacked(&self) -> bool {
        !self.sacked.is_empty()
    }

    /// Bytes of `from..to` that were selectively acknowledged.
    pub(crate) fn sacked_within(&self, from: u64, to: u64) -> u64 {
        self.sacked.len_within(from, to)
    }

    /// The end of the sacked range that holds `offset`.
    pub(crate) fn sacked_until(&self, offset: u64) -> Option<u64> {
        self.sacked.end_of_range_at(offset)
    }

    /// How far a segment that begins at `offset` may reach before it meets a sacked range.
    pub(crate) fn hole_end(&self, offset: u64, limit: u64) -> u64 {
        self.sacked
            .next_start(offset)
            .map_or(limit, |next| next.min(limit))
    }

    /// Everything not sacked below this offset is taken for lost (RFC 6675 4, `IsLost`): more
    /// than two segments' worth of bytes, or three separate ranges, were sacked above it.
    pub(crate) fn lost_below(&self, mss: u16) -> u64 {
        let enough = u64::from((DUP_THRESH - 1) * u32::from(mss));
        if self.tail_arrived {
            return self.sacked.as_slice().last().map_or(0, |(start, _)| *start);
        }
        let mut bytes = 0;
        for (count, (start, end)) in self.sacked.as_slice().iter().rev().enumerate() {
            bytes += end - start;
            if bytes > enough || count + 1 >= DUP_THRESH as usize {
                return *start;
            }
        }
        0
    }

    /// Begins fast recovery.
    pub(crate) fn enter_fast(&mut self, una: u64, max: u64) {
        self.mode = Mode::Fast;
        self.point = max;
        self.high_rxt = una;
        self.resend_first = true;
    }

    /// Begins sending everything again. What was sacked is forgotten: a receiver may have
    /// discarded it (RFC 2018 8).
    pub(crate) fn enter_timeout(&mut self, una: u64, max: u64) {
        self.mode = Mode::Timeout;
        self.next = una;
        self.dup_acks = 0;
        self.point = max;
        self.sacked.clear();
        self.resend_first = false;
        self.tail_arrived = false;
    }

    /// Bytes believed to be in the network (RFC 6675 4, `SetPipe`).
    pub(crate) fn pipe(&self, una: u64, max: u64, mss: u16) -> u64 {
        let unsacked = |from: u64, to: u64| {
            to.saturating_sub(from) - self.sacked.len_within(from, to.max(from))
        };
        let lost = self.lost_below(mss).max(una);
        // Not lost, or lost and sent again.
        unsacked(lost, max) + unsacked(una, self.high_rxt.min(lost))
    }

    /// The next hole to send again in fast recovery (RFC 6675 4, `NextSeg` (1) and (3)): its
    /// start and how far it reaches.
    pub(crate) fn next_hole(&self, una: u64, mss: u16) -> Option<(u64, u64)> {
        let limit = self.lost_below(mss);
        let mut at = self.high_rxt.max(una);
        if let Some(end) = self.sacked_until(at) {
            at = end;
        }
        (at < limit).then(|| (at, self.hole_end(at, limit)))
    }

    /// A segment up to `end` was sent again in fast recovery.
    pub(crate) fn resent(&mut self, end: u64) {
        self.high_rxt = self.high_rxt.max(end);
        self.resend_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sack(recovery: &mut Recovery, blocks: &[(u32, u32)]) {
        let mut list = SackBlocks::default();
        for (left, right) in blocks {
            list.push(Seq(*left), Seq(*right));
        }
        recovery.on_sack(&list, 0, 100_000, |seq| Some(u64::from(seq.0)));
    }

    #[test]
    fn two_holes_are_found_and_each_is_sent_once() {
        let mut recovery = Recovery::new(0);
        sack(&mut recovery, &[(1000, 3000), (4000, 9000)]);
        recovery.enter_fast(0, 9000);
        assert_eq!(recovery.lost_below(1000), 4000);
        assert_eq!(recovery.pipe(0, 9000, 1000), 0);
        assert_eq!(recovery.next_hole(0, 1000), Some((0, 1000)));
        recovery.resent(1000);
        assert_eq!(recovery.next_hole(0, 1000), Some((3000, 4000)));
        recovery.resent(4000);
        assert_eq!(recovery.next_hole(0, 1000), None);
        assert_eq!(recovery.pipe(0, 9000, 1000), 2000);
    }

    #[test]
    fn a_little_disorder_is_not_loss() {
        let mut recovery = Recovery::new(0);
        sack(&mut recovery, &[(1000, 3000)]);
        assert_eq!(recovery.lost_below(1000), 0);
        sack(&mut recovery, &[(4000, 4100), (5000, 5100)]);
        assert_eq!(recovery.lost_below(1000), 1000);
    }

    #[test]
    fn blocks_that_make_no_sense_are_ignored() {
        let mut recovery = Recovery::new(0);
        sack(&mut recovery, &[(5, 5), (9, 2), (99_000, 200_000), (0, 0)]);
        assert!(recovery.sacked.is_empty());
    }
}
