//! Running replicas: what each must see, and what its new state demands of timers, memory and counters.

use super::Engine;
use crate::key::{ReplicaKey, SessionKey};
use crate::protocol::Talk;
use crate::replica::{Context, Replica};
use crate::time::Time;

impl Engine {
    /// Runs `f` on a replica with all it must see, and then does what its new state demands.
    pub(super) fn with_replica(
        &mut self,
        now: Time,
        key: ReplicaKey,
        f: impl FnOnce(&mut Replica, &mut Context<'_>),
    ) {
        if self.run_replica(now, key, f).is_some() {
            self.replicas.queue(key);
            self.settle(now, key);
        }
    }

    /// Runs `f` on a replica with all it must see.
    pub(super) fn run_replica<R>(
        &mut self,
        now: Time,
        key: ReplicaKey,
        f: impl FnOnce(&mut Replica, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let mut replica = self.replicas.change(key)?;
        let session = self.sessions.get(replica.session)?;
        let way = self.ways.get_mut(replica.way())?;
        let (stream, turns) = match replica.talk() {
            None => (session.stream(), session.turns()),
            Some(talk) => (&talk.played().stream, &talk.played().turns),
        };
        let mut cx = Context {
            now,
            waits: self.waits,
            config: &self.config,
            stats: &mut self.stats,
            tales: &mut self.tales,
            path: &mut way.path,
            tuple: &session.tuple,
            stream,
            turns,
            reset_after_fin: session.reset_after_fin,
            live_over: session.is_over(),
            live_heard_at: session.last_seen.min(now),
            shift: replica.shift_micros(&self.config),
        };
        let was_busy = replica.is_busy();
        let result = f(&mut replica, &mut cx);
        // Whether targets are what a recording has to wait for: nobody asks otherwise, and it would be asked of every
        // packet.
        if self.clock.is_recorded() {
            let holds_client = replica.talk().is_some_and(Talk::holds_client);
            replica.note_busy(&cx, holds_client);
            let (busy, session) = (replica.is_busy(), replica.session);
            if busy != was_busy {
                self.sessions.count_busy(session, busy);
            }
        }
        Some(result)
    }

    /// Does what the new state of a replica demands: its timer, memory that is free now, its end.
    pub(super) fn settle(&mut self, now: Time, key: ReplicaKey) {
        if self.replicas.has_talks() {
            self.give_up_script(key);
        }
        match self.replicas.arm_as_due(key, &self.config) {
            Some(session) => self.trim_if_due(session),
            None => self.remove_replica(now, key),
        }
    }

    pub(super) fn arm_session(&mut self, key: SessionKey) {
        let doubt = self.reset_counts_at(key);
        let doubt = doubt.min(self.evidence.waiting_until(key));
        let doubt = doubt.min(self.script_overdue_at(key));
        let grace = self.gap_grace();
        let config = &self.config;
        self.sessions.arm_as_due(key, |session| {
            session.deadline(config, grace).min(doubt).next_tick()
        });
    }

    /// Lets every replica of a session see what has changed.
    pub(super) fn advance_replicas(&mut self, now: Time, session: SessionKey) {
        if self.replicas.has_talks() {
            self.tell(now, session);
        }
        let mut next = self.sessions.first_replica(session);
        while let Some(key) = next {
            next = self.replicas.sibling_of(key);
            self.with_replica(now, key, Replica::advance);
        }
    }
}
