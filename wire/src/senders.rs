//! Whose checksums can be believed.
//!
//! A recording may come from the host that sent: there segments hold checksums that its device was
//! to fill in, or none, and many are larger than what went over the wire. So a wrong checksum says
//! that a segment was damaged only where the same sender's others are right.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Senders that are remembered. When there are more, all are got to know anew.
const MOST: usize = 4096;
/// The most bytes of a segment that went over the wire as it was seen, without jumbo frames. Larger ones may have been
/// put together by the device that received them (LRO), under the checksum of the first.
const ONE_FRAME: usize = 1460;

/// What a segment's checksum says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is right.
    Right,
    /// It is not, or not yet, filled in: the sum of the pseudo-header alone, or nothing.
    Unfilled,
    /// It is wrong.
    Wrong,
}

#[derive(Debug, Default)]
struct Tally {
    right: u32,
    wrong: u32,
}

/// What is known of the checksums of each sender.
#[derive(Debug, Default)]
pub(crate) struct Senders(BTreeMap<IpAddr, Tally>);

impl Senders {
    /// Whether this segment was damaged on its way. Each is to be shown once, in the order in which they were
    /// captured.
    pub(crate) fn is_damaged(&mut self, sender: IpAddr, verdict: Verdict, payload: usize) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&sender) {
            self.0.clear();
        }
        let tally = self.0.entry(sender).or_default();
        match verdict {
            Verdict::Right => tally.right = tally.right.saturating_add(1),
            Verdict::Unfilled => {}
            Verdict::Wrong => {
                let known = tally.right > tally.wrong;
                tally.wrong = tally.wrong.saturating_add(1);
                return known && payload <= ONE_FRAME;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1));

    #[test]
    fn one_wrong_checksum_among_right_ones_is_damage() {
        let mut senders = Senders::default();
        assert!(!senders.is_damaged(SENDER, Verdict::Right, 0));
        assert!(senders.is_damaged(SENDER, Verdict::Wrong, 1460));
        // As many wrong as right ones may be a device that fills them in later.
        assert!(!senders.is_damaged(SENDER, Verdict::Wrong, 1460));
        for _ in 0..3 {
            assert!(!senders.is_damaged(SENDER, Verdict::Right, 0));
        }
        assert!(senders.is_damaged(SENDER, Verdict::Wrong, 100));
        assert!(!senders.is_damaged(SENDER, Verdict::Right, 100));
    }

    #[test]
    fn where_checksums_are_filled_in_later_none_is() {
        let mut senders = Senders::default();
        for n in 0..100 {
            let verdict = [Verdict::Wrong, Verdict::Unfilled][n % 2];
            assert!(!senders.is_damaged(SENDER, verdict, 100));
        }
        // One by chance is right, and what a device put together has the sum of its first part.
        let other = IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 2));
        assert!(!senders.is_damaged(SENDER, Verdict::Right, 0));
        assert!(!senders.is_damaged(SENDER, Verdict::Wrong, 100));
        assert!(!senders.is_damaged(other, Verdict::Right, 0));
        assert!(!senders.is_damaged(other, Verdict::Wrong, 2920));
    }

    #[test]
    fn memory_is_bounded() {
        let mut senders = Senders::default();
        for n in 0..10_000u32 {
            let sender = IpAddr::V4(n.into());
            assert!(!senders.is_damaged(sender, Verdict::Right, 0));
            assert!(senders.0.len() <= MOST);
        }
    }
}
