//! What was captured and does not count yet: its receiver may not have accepted it (RFC 9293 3.10.7.4, RFC 5961 3.2 and
//! 4.2). It counts once what follows bears it out.

mod doubts;
mod waiting;

use foldhash::fast::FixedState;
use slotmap::SparseSecondaryMap;

pub(crate) use self::doubts::{DoubtfulReset, Doubts, Greeting};
pub(crate) use self::waiting::{Fate, Waiting, decide, ends, known_end};
use crate::key::SessionKey;
use crate::time::Time;

/// Memory that the doubts about one connection take, in bytes, with their place in a table.
const DOUBTS_COST: usize = 2 * size_of::<Doubts>();

/// What is in doubt, by session.
pub(crate) struct Evidence {
    doubts: SparseSecondaryMap<SessionKey, Doubts, FixedState>,
    /// Segments that wait for what bears them out, in the order in which they were captured.
    waiting: SparseSecondaryMap<SessionKey, Vec<Waiting>, FixedState>,
    /// Memory in use, in bytes.
    memory: usize,
}

impl Evidence {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            doubts: SparseSecondaryMap::with_hasher(FixedState::with_seed(seed)),
            waiting: SparseSecondaryMap::with_hasher(FixedState::with_seed(seed)),
            memory: 0,
        }
    }

    /// Memory in use, in bytes.
    pub(crate) const fn memory(&self) -> usize {
        self.memory
    }

    /// What is in doubt about this session.
    #[inline]
    pub(crate) fn doubts(&self, key: SessionKey) -> Option<&Doubts> {
        match self.doubts.is_empty() {
            true => None,
            false => self.doubts.get(key),
        }
    }

    /// Notes something of a session that does not count yet.
    pub(crate) fn doubt(&mut self, key: SessionKey, note: impl FnOnce(&mut Doubts)) {
        let before = self.doubts.remove(key);
        let mut doubts = before.unwrap_or_default();
        note(&mut doubts);
        let is_held = doubts != Doubts::default();
        if is_held {
            self.doubts.insert(key, doubts);
        }
        self.memory += DOUBTS_COST * usize::from(is_held);
        self.memory -= DOUBTS_COST * usize::from(before.is_some());
    }

    /// Nothing of this session is in doubt any more, and nothing waits for it.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        if !self.doubts.is_empty() && self.doubts.remove(key).is_some() {
            self.memory -= DOUBTS_COST;
        }
        if !self.waiting.is_empty() {
            let queue = self.waiting.remove(key).unwrap_or_default();
            self.memory -= queue.iter().map(Waiting::cost).sum::<usize>();
        }
    }

    /// Whether any segment of any session waits.
    #[inline]
    pub(crate) fn is_any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The segments of this session that wait.
    #[inline]
    pub(crate) fn waiting(&self, key: SessionKey) -> &[Waiting] {
        match self.waiting.is_empty() {
            true => &[],
            false => self.waiting.get(key).map_or(&[], Vec::as_slice),
        }
    }

    /// As [`Evidence::waiting`].
    pub(crate) fn waiting_mut(&mut self, key: SessionKey) -> &mut [Waiting] {
        self.waiting.get_mut(key).map_or(&mut [], Vec::as_mut_slice)
    }

    /// Lets a segment wait behind the others of its session.
    pub(crate) fn wait(&mut self, key: SessionKey, segment: Waiting) {
        self.memory += segment.cost();
        let mut queue = self.waiting.remove(key).unwrap_or_default();
        queue.push(segment);
        self.waiting.insert(key, queue);
    }

    /// Takes out one of those that wait.
    pub(crate) fn take_one(&mut self, key: SessionKey, index: usize) -> Option<Waiting> {
        let queue = self.waiting.get_mut(key)?;
        if index >= queue.len() {
            return None;
        }
        let segment = queue.remove(index);
        if queue.is_empty() {
            self.waiting.remove(key);
        }
        self.memory -= segment.cost();
        Some(segment)
    }

    /// Drops those that are not kept. Gives how many.
    pub(crate) fn retain(&mut self, key: SessionKey, is_kept: impl FnMut(&Waiting) -> bool) -> u64 {
        let Some(mut queue) = self.waiting.remove(key) else {
            return 0;
        };
        let cost = |queue: &[Waiting]| queue.iter().map(Waiting::cost).sum::<usize>();
        let (count, before) = (queue.len(), cost(&queue));
        queue.retain(is_kept);
        self.memory -= before - cost(&queue);
        let dropped = count - queue.len();
        if !queue.is_empty() {
            self.waiting.insert(key, queue);
        }
        dropped as u64
    }

    /// What waits for this session waits for the one that goes on with its connection.
    pub(crate) fn bequeath(&mut self, key: SessionKey, heir: SessionKey) {
        if let Some(queue) = self.waiting.remove(key) {
            self.waiting.insert(heir, queue);
        }
    }

    /// When the first of a session's waiting segments is decided at the latest.
    #[inline]
    pub(crate) fn waiting_until(&self, key: SessionKey) -> Time {
        let due = self.waiting(key).iter().map(Waiting::due);
        due.min().unwrap_or(Time::NEVER)
    }
}
