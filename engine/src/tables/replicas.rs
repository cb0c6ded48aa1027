//! All replicas, by key and by flow, and the queue of those that may have something to send.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::ops::{Deref, DerefMut};

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use millrace_wire::{Endpoint, FourTuple};
use slotmap::{SecondaryMap, SparseSecondaryMap};

use super::timed::{Armed, Timed};
use super::{ENTRY_COST, Kept};
use crate::config::Config;
use crate::key::{ReplicaKey, SessionKey};
use crate::pool::BlockPool;
use crate::protocol::Talk;
use crate::replica::{Needs, Replica, Stage};
use crate::session::Session;
use crate::time::Time;

/// Memory for each replica but for its connection, in bytes. While idle it has no timer.
pub(crate) const REPLICA_COST: usize =
    size_of::<Replica>() + ENTRY_COST - size_of::<(Time, ReplicaKey)>();
/// Memory for what is kept of a session with several replicas, in bytes: key, entry, and its place in the hash table at
/// half full.
const KEPT_COST: usize = 2 * (size_of::<SessionKey>() + size_of::<Kept>());

/// Memory for the place of a conversation, in bytes: there is one for each replica up to the last that has a conversation.
const TALK_COST: usize = 2 * size_of::<Box<Talk>>();

/// All replicas.
pub(crate) struct Replicas {
    pub(crate) all: Timed<ReplicaKey, Replica>,
    by_flow: HashTable<ReplicaKey>,
    /// The targets, by service.
    targets: Box<[Endpoint]>,
    /// Targets see another address of themselves: flows are told by their sources alone.
    nat: bool,
    hasher: FixedState,
    /// Those that may have something to send.
    ready: VecDeque<ReplicaKey>,
    /// By session, where it has several replicas.
    kept: SparseSecondaryMap<SessionKey, Kept, FixedState>,
    /// The conversations of those that play scripts of their own.
    talks: SecondaryMap<ReplicaKey, Box<Talk>>,
    counts: Counts,
    /// Replicas that were looked at to find out what may be freed.
    #[cfg(test)]
    pub(crate) looks: u64,
}

/// How many replicas are at some stages, and what all take.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    held_back: usize,
    connecting: usize,
    lingering: usize,
    /// Memory of their connections and conversations, in bytes.
    heap: usize,
    /// Bytes of scripts that targets have not taken yet.
    backlog: u64,
    /// Conversations that hold their clients back.
    holding: usize,
}

impl Counts {
    #[inline]
    fn enter(&mut self, stage: Stage) {
        self.held_back += usize::from(stage.is_held_back());
        self.connecting += usize::from(stage.is_connecting());
        self.lingering += usize::from(stage.is_lingering());
        self.heap += stage.heap_size();
    }

    #[inline]
    fn leave(&mut self, stage: Stage) {
        self.held_back -= usize::from(stage.is_held_back());
        self.connecting -= usize::from(stage.is_connecting());
        self.lingering -= usize::from(stage.is_lingering());
        self.heap -= stage.heap_size();
    }
}

/// A replica that may change: counts follow when this is dropped.
pub(crate) struct ReplicaChange<'a> {
    replica: &'a mut Replica,
    counts: &'a mut Counts,
    before: Stage,
    /// What is kept of its session, and what it needed before.
    kept: Option<(&'a mut Kept, Needs)>,
    talk: Option<&'a Talk>,
}

impl<'a> ReplicaChange<'a> {
    /// Its conversation, if it plays a script of its own.
    #[inline]
    pub(crate) const fn talk(&self) -> Option<&'a Talk> {
        self.talk
    }
}

impl Deref for ReplicaChange<'_> {
    type Target = Replica;

    #[inline]
    fn deref(&self) -> &Replica {
        self.replica
    }
}

impl DerefMut for ReplicaChange<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Replica {
        self.replica
    }
}

impl Drop for ReplicaChange<'_> {
    #[inline]
    fn drop(&mut self) {
        let after = self.replica.stage();
        if after != self.before {
            self.counts.leave(self.before);
            self.counts.enter(after);
        }
        if let Some((kept, needs)) = &mut self.kept {
            kept.change(*needs, needs_of(self.replica, self.talk));
        }
    }
}

impl Armed for Replica {
    fn armed(&self) -> Time {
        self.armed
    }

    fn armed_mut(&mut self) -> &mut Time {
        &mut self.armed
    }
}

impl Replicas {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            all: Timed::new(),
            by_flow: HashTable::new(),
            targets: config.services.iter().map(|it| it.target).collect(),
            nat: config.nat,
            hasher: FixedState::with_seed(config.seed),
            ready: VecDeque::new(),
            kept: SparseSecondaryMap::with_hasher(FixedState::with_seed(config.seed)),
            talks: SecondaryMap::new(),
            counts: Counts::default(),
            #[cfg(test)]
            looks: 0,
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: ReplicaKey) -> Option<&Replica> {
        self.all.get(key)
    }

    /// A replica of which nothing is to change that it is counted by: neither its stage nor what it needs.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: ReplicaKey) -> Option<&mut Replica> {
        self.all.get_mut(key)
    }

    /// As [`Replicas::get_mut`], with its flow, and its conversation if it plays a script of its own.
    #[inline]
    pub(crate) fn for_sending(
        &mut self,
        key: ReplicaKey,
    ) -> Option<(&mut Replica, FourTuple, Option<&Talk>)> {
        let replica = self.all.get_mut(key)?;
        let flow = flow_of(&self.targets, replica);
        let talk = match replica.traits.is_scripted() {
            true => talk_of(&self.talks, key),
            false => None,
        };
        Some((replica, flow, talk))
    }

    /// A replica of which anything may change. Counts are right again when what this gives is dropped.
    #[inline]
    pub(crate) fn change(&mut self, key: ReplicaKey) -> Option<ReplicaChange<'_>> {
        let replica = self.all.get_mut(key)?;
        let kept = match self.kept.is_empty() {
            true => None,
            false => self.kept.get_mut(replica.session),
        };
        let talk = match replica.traits.is_scripted() {
            true => talk_of(&self.talks, key),
            false => None,
        };
        Some(ReplicaChange {
            before: replica.stage(),
            kept: kept.map(|kept| (kept, needs_of(replica, talk))),
            talk,
            replica,
            counts: &mut self.counts,
        })
    }

    #[inline]
    fn flow_of(&self, replica: &Replica) -> FourTuple {
        flow_of(&self.targets, replica)
    }

    /// The flow of a replica, as its target sees it.
    pub(crate) fn flow(&self, key: ReplicaKey) -> Option<FourTuple> {
        Some(self.flow_of(self.all.get(key)?))
    }

    /// The replica that has this flow.
    pub(crate) fn find(&self, flow: &FourTuple) -> Option<ReplicaKey> {
        let wanted = identity(self.nat, flow);
        let is_it = |key: &ReplicaKey| {
            let flow = self.flow(*key);
            flow.is_some_and(|flow| identity(self.nat, &flow) == wanted)
        };
        let hash = self.hasher.hash_one(wanted);
        self.by_flow.find(hash, is_it).copied()
    }

    /// Enters a replica.
    pub(crate) fn insert(&mut self, replica: Replica) -> ReplicaKey {
        self.counts.enter(replica.stage());
        let key = self.all.insert(replica);
        self.enter_flow(key);
        key
    }

    fn enter_flow(&mut self, key: ReplicaKey) {
        let (all, targets, nat, hasher) = (&self.all, &self.targets, self.nat, &self.hasher);
        let hash_of = |key: &ReplicaKey| {
            let flow = all.get(*key).map(|replica| flow_of(targets, replica));
            flow.map_or(0, |flow| hasher.hash_one(identity(nat, &flow)))
        };
        self.by_flow.insert_unique(hash_of(&key), key, hash_of);
    }

    fn leave_flow(&mut self, key: ReplicaKey) {
        let Some(flow) = self.flow(key) else { return };
        let hash = self.hasher.hash_one(identity(self.nat, &flow));
        if let Ok(entry) = self.by_flow.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
    }

    /// Gives a replica another source.
    pub(crate) fn move_to(&mut self, key: ReplicaKey, source: Endpoint) {
        self.leave_flow(key);
        if let Some(replica) = self.all.get_mut(key) {
            replica.move_to(source);
            self.enter_flow(key);
        }
    }

    /// Lets a replica play a script of its own.
    pub(crate) fn give_talk(&mut self, key: ReplicaKey, talk: Talk) {
        if let Some(replica) = self.all.get_mut(key) {
            replica.traits.set_scripted(true);
            self.counts.heap += talk.heap_size();
            self.counts.backlog += talk.backlog();
            self.counts.holding += usize::from(talk.holds_client());
            self.talks.insert(key, Box::new(talk));
        }
    }

    /// Whether any replica plays a script of its own.
    #[inline]
    pub(crate) fn has_talks(&self) -> bool {
        !self.talks.is_empty()
    }

    /// Whether any conversation holds its client back.
    pub(crate) const fn has_holding(&self) -> bool {
        self.counts.holding > 0
    }

    /// The conversation of a replica that plays a script of its own.
    pub(crate) fn talk(&self, key: ReplicaKey) -> Option<&Talk> {
        self.talks.get(key).map(Box::as_ref)
    }

    /// Lets a conversation do something. The sums are right again afterwards.
    pub(crate) fn with_talk<R>(
        &mut self,
        key: ReplicaKey,
        f: impl FnOnce(&mut Talk, &Replica) -> R,
    ) -> Option<R> {
        let (talk, replica) = (self.talks.get_mut(key)?, self.all.get(key)?);
        let before = (talk.heap_size(), talk.backlog(), talk.needs());
        let held = talk.holds_client();
        let result = f(talk, replica);
        self.counts.heap = self.counts.heap - before.0 + talk.heap_size();
        self.counts.backlog = self.counts.backlog - before.1 + talk.backlog();
        let holding = self.counts.holding - usize::from(held);
        self.counts.holding = holding + usize::from(talk.holds_client());
        if !self.kept.is_empty()
            && !replica.is_lingering()
            && let Some(kept) = self.kept.get_mut(replica.session)
        {
            kept.change(before.2, talk.needs());
        }
        Some(result)
    }

    /// Takes the conversation of a replica that is forgotten next.
    pub(crate) fn take_talk(&mut self, key: ReplicaKey) -> Option<Talk> {
        let talk = self.talks.remove(key)?;
        self.counts.heap -= talk.heap_size();
        self.counts.backlog -= talk.backlog();
        self.counts.holding -= usize::from(talk.holds_client());
        if let Some(replica) = self.all.get_mut(key) {
            if let Some(kept) = self.kept.get_mut(replica.session) {
                kept.change(needs_of(replica, Some(&talk)), Needs::NOTHING);
            }
            replica.traits.set_scripted(false);
        }
        Some(*talk)
    }

    /// Bytes of scripts that targets have not taken yet.
    pub(crate) const fn backlog(&self) -> u64 {
        self.counts.backlog
    }

    /// Forgets a replica. `first` is the first of its session; gives the first of those that are left.
    pub(crate) fn remove(
        &mut self,
        key: ReplicaKey,
        first: Option<ReplicaKey>,
    ) -> Option<(Replica, Option<ReplicaKey>)> {
        self.leave_flow(key);
        let replica = self.all.remove(key)?;
        self.counts.leave(replica.stage());
        if !self.kept.is_empty()
            && let Some(kept) = self.kept.get_mut(replica.session)
        {
            kept.change(replica.needs(), Needs::NOTHING);
        }
        if first == Some(key) {
            let left = replica.sibling;
            return Some((replica, left));
        }
        let mut at = first;
        while let Some(other) = at.and_then(|at| self.all.get_mut(at)) {
            if other.sibling == Some(key) {
                other.sibling = replica.sibling;
                break;
            }
            at = other.sibling;
        }
        Some((replica, first))
    }

    /// The next replica of the same session.
    #[inline]
    pub(crate) fn sibling_of(&self, key: ReplicaKey) -> Option<ReplicaKey> {
        self.all.get(key)?.sibling
    }

    /// The replicas from `first` on along their siblings.
    pub(crate) fn siblings(
        &self,
        first: Option<ReplicaKey>,
    ) -> impl Iterator<Item = (ReplicaKey, &Replica)> {
        let mut next = first;
        std::iter::from_fn(move || {
            let key = next?;
            let replica = self.all.get(key)?;
            next = replica.sibling;
            Some((key, replica))
        })
    }

    /// Whether something may be free that no replica of this session needs any more.
    #[inline]
    pub(crate) fn may_free(&self, key: SessionKey, session: &Session, pool: &BlockPool) -> bool {
        if !self.kept.is_empty()
            && let Some(kept) = self.kept.get(key)
        {
            return kept.is_outdated(session);
        }
        // One replica is looked at faster than it is counted.
        let first = session.first_replica();
        let Some((first, replica)) = first.and_then(|key| Some((key, self.all.get(key)?))) else {
            return true;
        };
        let talk = match replica.traits.is_scripted() {
            true => self.talk(first),
            false => None,
        };
        replica.sibling.is_some() || session.can_free(pool, needs_of(replica, talk))
    }

    /// The least that the replicas of this session need, from the first of them on: looks at all of them.
    pub(crate) fn least_needs(&mut self, key: SessionKey, first: Option<ReplicaKey>) -> Needs {
        let mut kept = Kept::NOBODYS;
        let mut count: u64 = 0;
        for (key, replica) in self.siblings(first) {
            count += 1;
            kept.look(needs_of(replica, self.talks.get(key).map(Box::as_ref)));
        }
        #[cfg(test)]
        {
            self.looks += count;
        }
        let least = kept.least();
        if count > 1 {
            self.kept.insert(key, kept);
        } else {
            self.forget_kept(key);
        }
        least
    }

    /// Nothing is kept of this session any more.
    pub(crate) fn forget_kept(&mut self, key: SessionKey) {
        if !self.kept.is_empty() {
            self.kept.remove(key);
        }
    }

    /// A replica may have something to send.
    #[inline]
    pub(crate) fn queue(&mut self, key: ReplicaKey) {
        if let Some(replica) = self.all.get_mut(key)
            && !replica.traits.is_queued()
        {
            replica.traits.set_queued(true);
            self.ready.push_back(key);
        }
    }

    /// What a replica has to say goes before what others have.
    pub(crate) fn hurry(&mut self, key: ReplicaKey) {
        if let Some(replica) = self.all.get_mut(key) {
            // Where it stands in the queue already, it finds nothing more to say there.
            replica.traits.set_queued(true);
            self.ready.push_front(key);
        }
    }

    /// The first that may have something to send.
    #[inline]
    pub(crate) fn first_ready(&self) -> Option<ReplicaKey> {
        self.ready.front().copied()
    }

    /// The first has nothing more to send.
    #[inline]
    pub(crate) fn pass_first_ready(&mut self) {
        let key = self.ready.pop_front();
        if let Some(replica) = key.and_then(|key| self.all.get_mut(key)) {
            replica.traits.set_queued(false);
        }
    }

    /// All that may have something to send.
    pub(crate) fn ready(&self) -> impl Iterator<Item = ReplicaKey> {
        self.ready.iter().copied()
    }

    /// Has a replica looked at again by `deadline`.
    #[inline]
    pub(crate) fn arm(&mut self, key: ReplicaKey, deadline: Time) {
        self.all.arm(key, |_| deadline);
    }

    /// Has a replica looked at again when it must be by its own state. Gives its session, unless it is closed.
    #[inline]
    pub(crate) fn arm_as_due(&mut self, key: ReplicaKey, config: &Config) -> Option<SessionKey> {
        let replica = self.all.get(key)?;
        if replica.is_closed() {
            return None;
        }
        let session = replica.session;
        self.all.arm(key, |replica| replica.deadline(config));
        Some(session)
    }

    /// The keys of those for which this holds.
    pub(crate) fn keys_where(&self, holds: impl Fn(&Replica) -> bool) -> Vec<ReplicaKey> {
        let those = self.all.iter().filter(|(_, replica)| holds(replica));
        those.map(|(key, _)| key).collect()
    }

    /// All flows.
    pub(crate) fn flows(&self) -> impl Iterator<Item = (ReplicaKey, FourTuple)> {
        self.all
            .iter()
            .map(|(key, replica)| (key, self.flow_of(replica)))
    }

    /// Whether this replica exists and is held back.
    pub(crate) fn is_held_back(&self, key: ReplicaKey) -> bool {
        self.all.get(key).is_some_and(Replica::is_held_back)
    }

    /// Whether this replica exists and has nothing more to deliver.
    #[inline]
    pub(crate) fn is_lingering(&self, key: ReplicaKey) -> bool {
        self.all.get(key).is_some_and(Replica::is_lingering)
    }

    /// Those that have not begun because they are held back.
    pub(crate) const fn held_back(&self) -> usize {
        self.counts.held_back
    }

    /// Those whose handshake is under way.
    pub(crate) const fn connecting(&self) -> usize {
        self.counts.connecting
    }

    /// Those that have nothing more to deliver.
    pub(crate) const fn lingering(&self) -> usize {
        self.counts.lingering
    }

    /// Memory in use, in bytes.
    pub(crate) fn memory(&self) -> usize {
        // As with the other tables, what stays for later users is no session's.
        let talks = match self.talks.is_empty() {
            true => 0,
            false => self.talks.capacity() * TALK_COST,
        };
        self.all.len() * REPLICA_COST + self.kept.len() * KEPT_COST + talks + self.counts.heap
    }
}

/// Not inlined: where no module is, nothing is paid for it.
#[inline(never)]
fn talk_of(talks: &SecondaryMap<ReplicaKey, Box<Talk>>, key: ReplicaKey) -> Option<&Talk> {
    talks.get(key).map(Box::as_ref)
}

#[inline]
fn flow_of(targets: &[Endpoint], replica: &Replica) -> FourTuple {
    // The index was taken from this list.
    let target = targets.get(usize::from(replica.service()));
    replica.tuple(target.copied().unwrap_or(replica.source()))
}

/// What a replica needs of its session: one with a conversation what that has not heard.
#[inline]
fn needs_of(replica: &Replica, talk: Option<&Talk>) -> Needs {
    match talk {
        None => replica.needs(),
        Some(_) if replica.is_lingering() => Needs::NOTHING,
        Some(talk) => talk.needs(),
    }
}

/// What tells a flow from all others.
const fn identity(nat: bool, flow: &FourTuple) -> FourTuple {
    match nat {
        true => FourTuple::new(flow.source, flow.source),
        false => *flow,
    }
}
