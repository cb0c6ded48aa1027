//! Running replicas: what each must see, and what its new state demands of timers, memory and counters.

use super::Engine;
use crate::key::ReplicaKey;
use crate::key::SessionKey;
use crate::replica::{Context, Replica, Stage};
use crate::session::Phase;
use crate::time::Time;

impl Engine {
    /// Runs `f` on a replica with all it must see, and then does what its new state demands.
    pub(super) fn with_replica(
        &mut self,
        now: Time,
        key: ReplicaKey,
        f: impl FnOnce(&mut Replica, &mut Context<'_>),
    ) {
        if self.run_replica(now, key, f).is_none() {
            return;
        }
        if let Some(replica) = self.replicas.get_mut(key)
            && !replica.queued
        {
            replica.queued = true;
            self.ready.push_back(key);
        }
        self.settle(now, key);
    }

    /// Runs `f` on a replica with all it must see.
    pub(super) fn run_replica<R>(
        &mut self,
        now: Time,
        key: ReplicaKey,
        f: impl FnOnce(&mut Replica, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let replica = self.replicas.get_mut(key)?;
        let (way, index) = (replica.way(), usize::from(replica.service()));
        let session = self.sessions.get(replica.session)?;
        let target = self.ways.get_mut(way.index())?;
        let mut cx = Context {
            now,
            config: &self.config,
            stats: &mut self.stats,
            floor: &mut target.floor,
            max_packet: target.max_packet,
            target: self.config.services.get(index)?.target,
            stream: &session.stream,
            turns: &session.turns,
            reset_after_fin: session.reset_after_fin,
            live_over: session.is_over(),
            live_heard_at: session.last_seen.min(now),
            shift: replica.shift_micros(&self.config),
        };
        let (before, needs) = (replica.stage(), replica.needs());
        let was_busy = replica.is_busy();
        let result = f(replica, &mut cx);
        let after = replica.stage();
        if after != before {
            let recount = |count: usize, is: fn(Stage) -> bool| {
                (count + usize::from(is(after))).saturating_sub(usize::from(is(before)))
            };
            self.connecting = recount(self.connecting, Stage::is_connecting);
            self.held_back = recount(self.held_back, Stage::is_held_back);
            self.lingering = recount(self.lingering, Stage::is_lingering);
            self.heap = (self.heap + after.heap_size()).saturating_sub(before.heap_size());
        }
        if let Some(kept) = self.kept.get_mut(replica.session) {
            kept.change(needs, replica.needs());
        }
        if self.config.recorded.is_some() {
            replica.note_busy(&cx);
            let (busy, session) = (replica.is_busy(), replica.session);
            if busy != was_busy {
                self.count_busy(session, busy);
            }
        }
        Some(result)
    }

    /// Does what the new state of a replica demands: its timer, memory that is free now, its end.
    pub(super) fn settle(&mut self, now: Time, key: ReplicaKey) {
        let Some(replica) = self.replicas.get(key) else {
            return;
        };
        if replica.is_done() {
            self.remove_replica(now, key);
        } else {
            let session = replica.session;
            self.arm_replica(key);
            self.trim_if_due(session);
        }
    }

    pub(super) fn arm_replica(&mut self, key: ReplicaKey) {
        if let Some(replica) = self.replicas.get_mut(key) {
            let deadline = replica.deadline(&self.config);
            self.replica_timers.arm(key, deadline, &mut replica.armed);
        }
    }

    pub(super) fn arm_session(&mut self, key: SessionKey) {
        let doubt = self.reset_counts_at(key).min(self.waiting_until(key));
        let grace = self.gap_grace();
        if let Some(session) = self.sessions.get_mut(key) {
            let deadline = session.deadline(&self.config, grace).min(doubt);
            self.session_timers.arm(key, deadline, &mut session.armed);
        }
    }

    /// The replicas of a session.
    pub(super) fn replicas_of(&self, key: SessionKey) -> Option<ReplicaKey> {
        self.sessions.get(key)?.first_replica
    }

    pub(super) fn sibling_of(&self, key: ReplicaKey) -> Option<ReplicaKey> {
        self.replicas.get(key)?.sibling
    }

    /// One more, or one less, of a session's replicas is busy.
    pub(super) fn count_busy(&mut self, session: SessionKey, more: bool) {
        if self.config.recorded.is_none() {
            // Nobody asks, and it would be asked of every packet.
            return;
        }
        let session = self.sessions.get_mut(session);
        let Some(Phase::Active { busy, .. }) = session.map(|session| &mut session.phase) else {
            return;
        };
        let was_busy = *busy > 0;
        *busy = match more {
            true => busy.saturating_add(1),
            false => busy.saturating_sub(1),
        };
        let is_busy = *busy > 0;
        self.busy = (self.busy + usize::from(is_busy)).saturating_sub(usize::from(was_busy));
    }

    /// Lets every replica of a session see what has changed.
    pub(super) fn advance_replicas(&mut self, now: Time, session: SessionKey) {
        let mut next = self.replicas_of(session);
        let any = next.is_some();
        while let Some(key) = next {
            next = self.sibling_of(key);
            self.with_replica(now, key, Replica::advance);
        }
        if any {
            self.trim_if_due(session);
        }
    }
}
