//! How sessions and replicas begin and end, and their timers.

use std::hash::BuildHasher;

use millrace_wire::{Endpoint, FourTuple};

use super::{Engine, Event};
use crate::config::Way;
use crate::key::ReplicaKey;
use crate::key::SessionKey;
use crate::replica::{Needs, Replica};
use crate::session::{Phase, Watch};
use crate::stats::{AbortReason, RefusalReason};
use crate::stream::EndKind;
use crate::time::Time;

impl Engine {
    pub(super) fn enter_session(&mut self, key: SessionKey, tuple: &FourTuple) {
        let hash = self.hasher.hash_one(tuple);
        let (sessions, hasher) = (&self.sessions, &self.hasher);
        self.by_tuple.insert_unique(hash, key, |key| {
            sessions
                .get(*key)
                .map_or(0, |session| hasher.hash_one(session.tuple))
        });
    }

    /// A new connection took the four-tuple of this session. Its replicas deliver what they have.
    /// What lies behind holes is delivered, too.
    pub(super) fn retire(&mut self, now: Time, key: SessionKey) {
        let tuple = self.sessions.get(key).map(|session| session.tuple);
        let listed = tuple.filter(|tuple| self.find_session(tuple) == Some(key));
        // Whoever has the connection afterwards: an heir perhaps, or nobody any more.
        let holder = |engine: &Self, key| match listed {
            Some(tuple) => engine.find_session(&tuple),
            None => Some(key),
        };
        self.settle_reset(now, key);
        let Some(key) = holder(self, key) else {
            return;
        };
        self.settle_ack(key);
        self.check_gap(now, key);
        self.settle_waiting(now, key, true);
        let Some(key) = holder(self, key) else {
            return;
        };
        let mut last = key;
        if self.has_gap(key)
            && let Some(heir) = self.heal(now, key, true)
        {
            last = heir;
        }
        self.retire_whole(now, last);
    }

    fn retire_whole(&mut self, now: Time, key: SessionKey) {
        let clock = self.live_now(now);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if !matches!(session.phase, Phase::Active { .. }) {
            self.remove_session(key);
            return;
        }
        self.stats.sessions_ended += u64::from(session.end(clock));
        self.stats.bytes_missing += session.note_acked();
        if session.stream.end().is_none() {
            // A FIN that was announced behind a hole will never be reached.
            let before = session.load();
            let given_up = session.stream.cut_short(EndKind::Severed);
            self.stats.give_up(given_up, session.copies());
            session.mark_end();
            self.account(key, before);
        }
        self.unlist_session(key);
        self.advance_replicas(now, key);
        if self.replicas_of(key).is_none() {
            self.remove_session(key);
        } else {
            self.arm_session(key);
        }
    }

    pub(super) fn unlist_session(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let hash = self.hasher.hash_one(session.tuple);
        let Ok(entry) = self.by_tuple.find_entry(hash, |other| *other == key) else {
            return;
        };
        entry.remove();
        if session.has_departed() {
            let (first, len) = (session.stream.first_seq(), session.stream.known_end());
            self.departed
                .remember(session.last_seen, session.tuple, first, len);
        }
    }

    /// Forgets a session whose course is over; it must have no replicas.
    pub(super) fn remove_session(&mut self, key: SessionKey) {
        match self.sessions.get(key).map(|session| &session.phase) {
            Some(Phase::Opening) => self.stats.sessions_unopened += 1,
            Some(Phase::Midway(midway)) => match midway.watch {
                Watch::Met => self.stats.sessions_unpicked += 1,
                Watch::Refused => {}
                Watch::Gap | Watch::SetAside => self.stats.sessions_ended += 1,
            },
            Some(Phase::Active { .. }) | None => {}
        }
        self.forget_session(key);
    }

    /// Forgets a session whose outcome is counted already; it must have no replicas.
    pub(super) fn forget_session(&mut self, key: SessionKey) {
        self.unlist_session(key);
        self.settle_ack(key);
        self.kept.remove(key);
        self.forget_doubts(key);
        self.forget_waiting(key);
        self.joinable.forget(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before = session.load();
        let active = matches!(session.phase, Phase::Active { .. });
        if active {
            self.stats.bytes_missing += session.note_acked();
        }
        let given_up = session.stream.discard(&mut self.pool);
        if active {
            self.stats.give_up(given_up, session.copies());
            // What a recording cut might have been answered.
            let unanswered = !self.recorded.over && session.live.clock.give_up();
            self.stats.live_turns_overdue += u64::from(unanswered);
        }
        session.turns.clear();
        self.account(key, before);
        self.sessions.remove(key);
    }

    /// Opens the replicas of a session that has just become active.
    pub(super) fn open_replicas(&mut self, now: Time, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let (index, copies) = (session.service, session.copies());
        let Some(service) = self.config.services.get(usize::from(index)).copied() else {
            return;
        };
        let client = self.recorded.in_this_round(session.tuple.source);
        let Ok(client) = self.apparent_client(client, &service) else {
            for _ in 0..copies {
                self.stats.replicas_refused.add(RefusalReason::Loopback);
            }
            return;
        };
        if let Some(reason) = self.refused(&client.ip, index, &service) {
            for _ in 0..copies {
                self.stats.replicas_refused.add(reason);
            }
            return;
        }
        for number in 0..copies {
            let random = self.hasher.hash_one((client, index, number));
            let Some(source) = self.choose_source(now, client, index, random) else {
                self.stats.replicas_refused.add(RefusalReason::Sources);
                continue;
            };
            // The first keeps to the client's own time.
            let shift = if number == 0 { 0 } else { (random >> 24) as u8 };
            self.open_replica(now, key, index, source, shift);
        }
        let opened = self.replicas_of(key).is_some();
        self.copied += usize::from(opened);
    }

    pub(super) fn is_lingering(&self, key: ReplicaKey) -> bool {
        self.replicas.get(key).is_some_and(Replica::is_lingering)
    }

    fn open_replica(
        &mut self,
        now: Time,
        session: SessionKey,
        service: u16,
        source: Endpoint,
        shift: u8,
    ) {
        let Some(target) = self.config.services.get(usize::from(service)) else {
            return;
        };
        let kind = self.config.kind_of(&source.ip, &target.target.ip);
        let mut replica = Replica::new(session, Way::new(service, kind), source);
        replica.sibling = self.replicas_of(session);
        replica.delay(now, shift, &self.config);
        let delayed = replica.is_delayed();
        let tuple = replica.tuple(self.target_of(&replica));
        let key = self.replicas.insert(replica);
        if let Some(session) = self.sessions.get_mut(session) {
            session.first_replica = Some(key);
        }
        self.enter_flow(key, &tuple);
        self.stats.replicas_opened += 1;
        self.count_busy(session, true);
        self.events.push_back(Event::FlowOpened { key, tuple });
        if delayed {
            self.arm_replica(key);
        } else {
            self.begin_replica(now, key);
        }
    }

    /// Begins a handshake; `in_crowd` says that many begin at the same time.
    pub(super) fn connect(&mut self, now: Time, key: ReplicaKey, in_crowd: bool) {
        let Some(replica) = self.replicas.get(key) else {
            return;
        };
        let iss = self.initial_sequence(now, replica.source(), replica.service());
        self.with_replica(now, key, |replica, cx| {
            replica.connect(cx.now, iss, in_crowd);
        });
    }

    pub(super) fn enter_flow(&mut self, key: ReplicaKey, tuple: &FourTuple) {
        let hash = self.flow_hash(tuple);
        let mut by_flow = std::mem::take(&mut self.by_flow);
        by_flow.insert_unique(hash, key, |key| {
            self.flow(*key).map_or(0, |tuple| self.flow_hash(&tuple))
        });
        self.by_flow = by_flow;
    }

    /// Forgets a replica.
    pub(super) fn remove_replica(&mut self, now: Time, key: ReplicaKey) {
        let Some(tuple) = self.flow(key) else { return };
        let hash = self.flow_hash(&tuple);
        if let Ok(entry) = self.by_flow.find_entry(hash, |other| *other == key) {
            entry.remove();
        }
        let Some(replica) = self.replicas.remove(key) else {
            return;
        };
        self.heap = self.heap.saturating_sub(replica.heap_size());
        self.connecting = self
            .connecting
            .saturating_sub(usize::from(replica.is_connecting()));
        self.allocator
            .release(now, replica.service(), replica.source());
        self.events.push_back(Event::FlowClosed { key });
        self.lingering = self
            .lingering
            .saturating_sub(usize::from(replica.is_lingering()));
        self.unlink_replica(&replica, key);
        if replica.is_busy() {
            self.count_busy(replica.session, false);
        }
        let clock = self.live_now(now);
        if let Some(kept) = self.kept.get_mut(replica.session) {
            kept.change(replica.needs(), Needs::NOTHING);
        }
        self.trim_if_due(replica.session);
        if let Some(session) = self.sessions.get_mut(replica.session)
            && session.first_replica.is_none()
        {
            session.last_seen = session.last_seen.max(clock);
            self.copied = self.copied.saturating_sub(1);
            if self.recorded.over {
                self.remove_session(replica.session);
            } else {
                self.arm_session(replica.session);
            }
        }
    }

    fn unlink_replica(&mut self, replica: &Replica, key: ReplicaKey) {
        let Some(session) = self.sessions.get_mut(replica.session) else {
            return;
        };
        if session.first_replica == Some(key) {
            session.first_replica = replica.sibling;
            return;
        }
        let mut at = session.first_replica;
        while let Some(other) = at.and_then(|at| self.replicas.get_mut(at)) {
            if other.sibling == Some(key) {
                other.sibling = replica.sibling;
                return;
            }
            at = other.sibling;
        }
    }

    /// Ends all replicas of a session, counted. The session itself stays, so that its further
    /// segments are known to be its own.
    pub(super) fn abort_session(&mut self, now: Time, key: SessionKey, reason: AbortReason) {
        let mut next = self.replicas_of(key);
        while let Some(replica) = next {
            next = self.sibling_of(replica);
            self.with_replica(now, replica, |replica, cx| replica.abort(cx, reason));
        }
        if let Some(session) = self.sessions.get_mut(key) {
            // Nothing of it is delivered any more.
            session.gap_since = Time::NEVER;
        }
        self.trim(key);
        self.arm_session(key);
    }

    pub(super) fn abort_everything(&mut self, now: Time) {
        let sessions: Vec<SessionKey> = self.sessions.keys().collect();
        for key in sessions {
            match self.sessions.get(key).map(|session| &session.phase) {
                Some(Phase::Active { .. }) => self.abort_session(now, key, AbortReason::Shutdown),
                Some(Phase::Opening | Phase::Midway(_)) | None => self.remove_session(key),
            }
        }
    }
}
