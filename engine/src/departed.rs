//! Connections that are over, by their numbers: a late repetition of their segments, from a second tap, a slow mirror or
//! the network, begins nothing and ends nothing.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use millrace_wire::{FourTuple, Seq};

use crate::time::Time;

/// Repetitions that come late make for a longer memory, up to this.
const LONGEST: Duration = Duration::from_secs(600);

/// Connections of one four-tuple that are remembered: the newest.
const MOST_OF_ONE: usize = 8;

/// A connection that is over.
#[derive(Clone, Copy, Debug)]
struct Gone {
    tuple: FourTuple,
    /// Number of the client's first byte, and how many bytes it sent.
    first: Seq,
    len: u64,
    at: Time,
}

/// Connections that are over.
#[derive(Debug)]
pub(crate) struct Departed {
    gone: VecDeque<Gone>,
    /// Number of the oldest.
    base: u64,
    by_tuple: HashTable<u64>,
    hasher: FixedState,
    /// For how long they are remembered, and how many at most.
    keep: Duration,
    most: usize,
}

impl Departed {
    pub(crate) fn new(keep: Duration, most: usize, seed: u64) -> Self {
        Self {
            gone: VecDeque::new(),
            base: 0,
            by_tuple: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            keep,
            most,
        }
    }

    /// Remembers a connection from client to live server: the number of the client's first byte, and how many it sent.
    pub(crate) fn remember(&mut self, at: Time, tuple: FourTuple, first: Seq, len: u64) {
        self.forget_old(at);
        if self.gone.len() >= self.most {
            self.forget_oldest();
        }
        if self.keep.is_zero() || self.most == 0 {
            return;
        }
        self.forget_others(&tuple);
        let number = self.base + self.gone.len() as u64;
        self.gone.push_back(Gone {
            tuple,
            first,
            len,
            at,
        });
        let Self {
            gone,
            base,
            by_tuple,
            hasher,
            ..
        } = self;
        by_tuple.insert_unique(hasher.hash_one(tuple), number, |number| {
            let index = usize::try_from(*number - *base).unwrap_or(usize::MAX);
            gone.get(index)
                .map_or(0, |gone| hasher.hash_one(gone.tuple))
        });
    }

    /// Whether a client's segment with this number, or a live server's that acknowledges it, belongs to one of them.
    /// `syn`: to its beginning.
    pub(crate) fn knows(&mut self, at: Time, tuple: &FourTuple, seq: Seq, syn: bool) -> bool {
        let hash = self.hasher.hash_one(tuple);
        let mut found = self.by_tuple.iter_hash(hash).filter_map(|number| {
            let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
            self.gone.get(index).filter(|gone| gone.tuple == *tuple)
        });
        let found = found.find(|gone| match syn {
            true => seq == gone.first,
            // A keepalive probe stands before the first byte, the acknowledgement of a FIN behind the last.
            false => seq.add(1) == gone.first || in_range(gone, seq),
        });
        let Some(age) = found.map(|gone| at.since(gone.at)) else {
            return false;
        };
        if age > self.keep {
            return false;
        }
        self.keep = self.keep.max((age * 2).min(LONGEST));
        true
    }

    /// What follows is another recording: its connections are others, even with the same numbers.
    pub(crate) fn clear(&mut self) {
        self.base += self.gone.len() as u64;
        self.gone.clear();
        self.by_tuple.clear();
    }

    fn forget_old(&mut self, now: Time) {
        while let Some(oldest) = self.gone.front() {
            if now.since(oldest.at) <= self.keep {
                break;
            }
            self.forget_oldest();
        }
    }

    /// Makes room among connections of one four-tuple, so that to look one up never takes long.
    fn forget_others(&mut self, tuple: &FourTuple) {
        let hash = self.hasher.hash_one(tuple);
        let is_its = |number: &u64| {
            let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
            self.gone.get(index).filter(|gone| gone.tuple == *tuple)
        };
        let its = self.by_tuple.iter_hash(hash).copied();
        let its = its.filter(|number| is_its(number).is_some());
        let (count, oldest) = its.fold((0, u64::MAX), |(count, oldest), number| {
            (count + 1, oldest.min(number))
        });
        if count >= MOST_OF_ONE
            && let Ok(entry) = self.by_tuple.find_entry(hash, |other| *other == oldest)
        {
            entry.remove();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.gone.pop_front() else {
            return;
        };
        let (number, hash) = (self.base, self.hasher.hash_one(oldest.tuple));
        if let Ok(entry) = self.by_tuple.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.base += 1;
    }
}

fn in_range(gone: &Gone, seq: Seq) -> bool {
    // Of a long one what was sent last: numbers come again.
    let last = gone.first.add(gone.len as u32).add(1);
    let back = last.since(seq);
    back >= 0 && u64::from(back.unsigned_abs()) <= gone.len + 1
}

#[cfg(test)]
mod tests {
    use millrace_wire::Endpoint;

    use super::*;

    fn tuple(port: u16) -> FourTuple {
        let end = |last, port| Endpoint::new([198, 18, 0, last].into(), port);
        FourTuple::new(end(1, port), end(10, 80))
    }

    fn at(seconds: u64) -> Time {
        Time::from_micros(1_000_000 * (1000 + seconds))
    }

    #[test]
    fn numbers_of_a_connection_that_is_over_are_known_for_a_while() {
        let mut departed = Departed::new(Duration::from_secs(30), 1000, 7);
        departed.remember(at(0), tuple(1), Seq(100), 300);
        departed.remember(at(0), tuple(1), Seq(u32::MAX - 9), 60);
        let mut knows =
            |seconds, port, seq, syn| departed.knows(at(seconds), &tuple(port), Seq(seq), syn);
        assert!(knows(10, 1, 100, true) && !knows(10, 1, 101, true));
        for (seq, known) in [
            (99, true),
            (100, true),
            (401, true),
            (402, false),
            (u32::MAX, true),
        ] {
            assert_eq!(knows(10, 1, seq, false), known, "{seq}");
        }
        assert!(!knows(10, 2, 100, true), "another client");
        assert!(!knows(31, 1, 100, true), "too late");
    }

    #[test]
    fn late_repetitions_make_for_a_longer_memory() {
        let mut departed = Departed::new(Duration::from_secs(30), 1000, 7);
        departed.remember(at(0), tuple(1), Seq(100), 300);
        assert!(departed.knows(at(25), &tuple(1), Seq(100), true));
        assert!(departed.knows(at(45), &tuple(1), Seq(100), true));
    }

    #[test]
    fn of_one_four_tuple_the_newest_are_known() {
        let mut departed = Departed::new(Duration::from_secs(30), 1000, 7);
        for n in 0..100 {
            departed.remember(at(0), tuple(1), Seq(n * 1000), 10);
        }
        let known = (0..100).filter(|n| departed.knows(at(1), &tuple(1), Seq(n * 1000), true));
        assert_eq!(known.collect::<Vec<_>>(), Vec::from_iter(92..100));
        assert_eq!(departed.by_tuple.len(), MOST_OF_ONE);
        departed.remember(at(60), tuple(1), Seq(7), 10);
        assert_eq!((departed.gone.len(), departed.by_tuple.len()), (1, 1));
    }

    #[test]
    fn of_a_long_connection_the_last_bytes_are_known() {
        let mut departed = Departed::new(Duration::from_secs(30), 1000, 7);
        departed.remember(at(0), tuple(1), Seq(0), 0x9000_0000);
        let mut knows = |seq| departed.knows(at(1), &tuple(1), Seq(seq), false);
        assert!(knows(0x8fff_0000) && knows(0x9000_0001) && !knows(0x9000_0002));
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let mut departed = Departed::new(Duration::from_secs(30), 3, 7);
        for port in 1..=5 {
            departed.remember(at(0), tuple(port), Seq(100), 300);
        }
        let known: Vec<u16> = (1..=5)
            .filter(|port| departed.knows(at(1), &tuple(*port), Seq(100), true))
            .collect();
        assert_eq!(known, [3, 4, 5]);
        departed.remember(at(60), tuple(6), Seq(100), 300);
        assert_eq!((departed.gone.len(), departed.by_tuple.len()), (1, 1));
        departed.clear();
        assert!(!departed.knows(at(60), &tuple(6), Seq(100), true));
    }
}
