//! Entries by key, each with the deadline by which it is looked at again.

use slotmap::{Key, SlotMap};

use crate::time::Time;
use crate::timers::Timers;

/// An entry that remembers the earliest deadline that is noted for it.
pub(crate) trait Armed {
    fn armed(&self) -> Time;
    fn armed_mut(&mut self) -> &mut Time;
}

/// All entries of one kind. Who is in it, and what changes in it, is the business of the table that has it.
pub(crate) struct Timed<K: Key, V> {
    all: SlotMap<K, V>,
    timers: Timers<K>,
}

impl<K: Key, V: Armed> Timed<K, V> {
    pub(super) fn new() -> Self {
        Self {
            all: SlotMap::with_key(),
            timers: Timers::default(),
        }
    }

    #[inline]
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.all.get(key)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.all.get_mut(key)
    }

    pub(super) fn insert(&mut self, entry: V) -> K {
        self.all.insert(entry)
    }

    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        self.all.remove(key)
    }

    /// Has an entry looked at again by the deadline that `deadline` gives.
    #[inline]
    pub(super) fn arm(&mut self, key: K, deadline: impl FnOnce(&V) -> Time) {
        if let Some(entry) = self.all.get_mut(key) {
            let deadline = deadline(entry);
            self.timers.arm(key, deadline, entry.armed_mut());
        }
    }

    /// The next entry whose deadline has come, with the deadline.
    #[inline]
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<(Time, K)> {
        self.timers.pop_due(now)
    }

    /// The earliest deadline.
    pub(crate) fn next_deadline(&self) -> Time {
        self.timers.next()
    }

    /// How many deadlines are noted.
    pub(crate) fn deadlines(&self) -> usize {
        self.timers.len()
    }

    /// Drops deadlines that nobody waits for, once they are too many.
    pub(crate) fn sweep(&mut self) {
        let all = &self.all;
        self.timers
            .sweep(all.len(), |key| Some(all.get(key)?.armed()));
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.all.iter()
    }
}
