//! Deadlines of sessions and replicas: a heap that is corrected lazily.
//!
//! A deadline that moves later, as a retransmission timer does with every acknowledgement, costs
//! nothing: the entry fires early, its owner finds nothing due and is entered again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::replica::ReplicaKey;
use crate::session::SessionKey;
use crate::time::Time;

/// Whose deadline it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Owner {
    Session(SessionKey),
    Replica(ReplicaKey),
}

#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Owner)>>,
}

impl Timers {
    /// Makes sure that `owner` is woken at `deadline` or before. `armed` is the earliest entry
    /// that the owner has in the heap, which the owner keeps.
    pub(crate) fn arm(&mut self, owner: Owner, deadline: Time, armed: &mut Time) {
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
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((time, _))| *time)
    }

    /// Takes the earliest entry if it is due: its time and its owner. An owner whose `armed` is
    /// another time has been woken already.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, Owner)> {
        let Reverse((time, _)) = self.heap.peek()?;
        if *time > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}
