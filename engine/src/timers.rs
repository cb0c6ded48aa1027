//! Deadlines of sessions or replicas: a heap that is corrected lazily.
//!
//! A deadline that moves later, as a retransmission timer does with every acknowledgement, costs
//! nothing: the entry fires early, its owner finds nothing due and is entered again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::time::Time;

/// Entries that no owner waits for are swept out when there are more than this many for each
/// owner, and [`SPARE`] more.
const PER_OWNER: usize = 2;
/// See [`PER_OWNER`].
const SPARE: usize = 1024;

/// The deadlines of all owners of one kind.
pub(crate) struct Timers<K> {
    heap: BinaryHeap<Reverse<(Time, K)>>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        let heap = BinaryHeap::new();
        Self { heap }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Makes sure that `owner` is woken at `deadline` or before. `armed` is the earliest entry
    /// that the owner has in the heap, which the owner keeps.
    pub(crate) fn arm(&mut self, owner: K, deadline: Time, armed: &mut Time) {
        if deadline < *armed {
            *armed = deadline;
            self.heap.push(Reverse((deadline, owner)));
        }
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest entry.
    pub(crate) fn next(&self) -> Time {
        self.heap
            .peek()
            .map_or(Time::NEVER, |Reverse((time, _))| *time)
    }

    /// Takes the earliest entry if it is due: its time and its owner. An owner whose `armed` is
    /// another time has been woken already.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, K)> {
        let Reverse((time, _)) = self.heap.peek()?;
        if *time > now {
            return None;
        }
        self.pop()
    }

    // Mostly nothing is due: asking so must cost nothing.
    #[inline(never)]
    fn pop(&mut self) -> Option<(Time, K)> {
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Drops entries that no owner waits for, once they are too many: an owner that was woken
    /// early, or is gone, leaves its old entry behind. `armed` gives an owner's earliest entry.
    pub(crate) fn sweep(&mut self, owners: usize, armed: impl Fn(K) -> Option<Time>) {
        if self.heap.len() > owners * PER_OWNER + SPARE {
            self.heap
                .retain(|Reverse((time, owner))| armed(*owner) == Some(*time));
            self.heap.shrink_to(owners * PER_OWNER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_nobody_waits_for_are_swept_out() {
        let mut timers = Timers::default();
        for i in 0..2000u64 {
            let mut armed = Time::NEVER;
            timers.arm(1u32, Time::from_micros(10_000 - i), &mut armed);
        }
        let earliest = timers.next();
        timers.sweep(1, |owner| (owner == 1).then_some(earliest));
        assert_eq!(timers.len(), 1);
        assert_eq!(timers.pop_due(earliest), Some((earliest, 1)));
        assert_eq!(timers.next(), Time::NEVER);
    }
}
