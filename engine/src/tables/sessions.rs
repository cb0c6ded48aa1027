//! All sessions, by key and by four-tuple.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use millrace_wire::FourTuple;

use super::ENTRY_COST;
use super::timed::{Armed, Timed};
use crate::key::{ReplicaKey, SessionKey};
use crate::session::{Load, Session, SessionChange};
use crate::time::Time;

/// Memory for each session but for what it stores, in bytes.
pub(crate) const SESSION_COST: usize = size_of::<Session>() + ENTRY_COST;

/// All sessions.
pub(crate) struct Sessions {
    pub(crate) all: Timed<SessionKey, Session>,
    /// Those that have their four-tuple: the latest of each.
    by_tuple: HashTable<SessionKey>,
    hasher: FixedState,
    load: Load,
    /// Those with replicas.
    copied: usize,
    /// Those with busy replicas.
    busy: usize,
}

impl Armed for Session {
    fn armed(&self) -> Time {
        self.armed
    }

    fn armed_mut(&mut self) -> &mut Time {
        &mut self.armed
    }
}

impl Sessions {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            all: Timed::new(),
            by_tuple: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            load: Load::default(),
            copied: 0,
            busy: 0,
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.all.get(key)
    }

    /// A session of which nothing is to change that has a part in its load.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.all.get_mut(key)
    }

    /// A session of which anything may change. The sums are right again when what this gives is dropped.
    #[inline]
    pub(crate) fn change(&mut self, key: SessionKey) -> Option<SessionChange<'_>> {
        let session = self.all.get_mut(key)?;
        Some(SessionChange::new(session, &mut self.load))
    }

    /// The session that has this four-tuple.
    #[inline]
    pub(crate) fn find(&self, tuple: &FourTuple) -> Option<SessionKey> {
        let is_it = |key: &SessionKey| self.all.get(*key).is_some_and(|it| it.tuple == *tuple);
        let hash = self.hasher.hash_one(tuple);
        self.by_tuple.find(hash, is_it).copied()
    }

    /// Enters a session, which has its four-tuple from now on.
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        let hash = self.hasher.hash_one(session.tuple);
        self.load += session.load();
        let key = self.all.insert(session);
        let (all, hasher) = (&self.all, &self.hasher);
        self.by_tuple.insert_unique(hash, key, |key| {
            all.get(*key)
                .map_or(0, |session| hasher.hash_one(session.tuple))
        });
        key
    }

    /// Takes its four-tuple from a session. Says whether it had it.
    pub(crate) fn unlist(&mut self, key: SessionKey) -> bool {
        let Some(session) = self.all.get(key) else {
            return false;
        };
        let hash = self.hasher.hash_one(session.tuple);
        let entry = self.by_tuple.find_entry(hash, |other| *other == key);
        entry.map(|entry| entry.remove()).is_ok()
    }

    /// Forgets a session. It must not have its four-tuple any more.
    pub(crate) fn remove(&mut self, key: SessionKey) {
        if let Some(session) = self.all.remove(key) {
            self.load -= session.load();
            self.copied -= usize::from(session.first_replica().is_some());
            self.busy -= usize::from(session.is_busy());
        }
    }

    /// The first of a session's replicas; the others are its siblings.
    #[inline]
    pub(crate) fn first_replica(&self, key: SessionKey) -> Option<ReplicaKey> {
        self.all.get(key)?.first_replica()
    }

    pub(crate) fn set_first_replica(&mut self, key: SessionKey, first: Option<ReplicaKey>) {
        if let Some(session) = self.all.get_mut(key) {
            let before = session.set_first_replica(first);
            self.copied += usize::from(first.is_some());
            self.copied -= usize::from(before.is_some());
        }
    }

    /// One more, or one less, of a session's replicas is busy.
    pub(crate) fn count_busy(&mut self, key: SessionKey, more: bool) {
        let Some(session) = self.all.get_mut(key) else {
            return;
        };
        let before = session.is_busy();
        session.count_busy(more);
        self.busy += usize::from(session.is_busy());
        self.busy -= usize::from(before);
    }

    /// Has a session looked at again by `deadline`.
    #[inline]
    pub(crate) fn arm(&mut self, key: SessionKey, deadline: Time) {
        self.all.arm(key, |_| deadline);
    }

    /// Has a session looked at again when it must be by its own state.
    #[inline]
    pub(crate) fn arm_as_due(&mut self, key: SessionKey, deadline: impl FnOnce(&Session) -> Time) {
        self.all.arm(key, deadline);
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = SessionKey> {
        self.all.iter().map(|(key, _)| key)
    }

    /// Those that are copied, in these words of the command line: with replicas.
    pub(crate) const fn copied(&self) -> usize {
        self.copied
    }

    /// Those with busy replicas; counted of recordings alone.
    pub(crate) const fn busy(&self) -> usize {
        self.busy
    }

    /// Bytes that targets have not taken yet.
    pub(crate) const fn backlog(&self) -> u64 {
        self.load.backlog
    }

    /// Memory in use but for the blocks of the streams, in bytes.
    pub(crate) fn memory(&self) -> usize {
        self.all.len() * SESSION_COST + self.load.heap
    }
}
