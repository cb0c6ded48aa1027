//! How sessions and replicas begin and end, and their timers.

use std::hash::BuildHasher;

use millrace_wire::Endpoint;

use super::{Engine, Event};
use crate::config::Way;
use crate::key::ReplicaKey;
use crate::key::SessionKey;
use crate::protocol::{Beginning, Talk};
use crate::replica::Replica;
use crate::session::{Phase, Watch};
use crate::stats::{AbortReason, RefusalReason};
use crate::stream::EndKind;
use crate::time::Time;

impl Engine {
    /// A new connection took the four-tuple of this session. Its replicas deliver what they have.
    /// What lies behind holes is delivered, too.
    pub(super) fn retire(&mut self, now: Time, key: SessionKey) {
        let tuple = self.sessions.get(key).map(|session| session.tuple);
        let listed = tuple.filter(|tuple| self.sessions.find(tuple) == Some(key));
        // Whoever has the connection afterwards: an heir perhaps, or nobody any more.
        let holder = |engine: &Self, key| match listed {
            Some(tuple) => engine.sessions.find(&tuple),
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
        let clock = self.clock.now(now);
        let session = self.sessions.change(key);
        let Some(mut session) = session.filter(|session| session.is_active()) else {
            self.remove_session(key);
            return;
        };
        self.stats.sessions_ended += u64::from(session.end(clock));
        self.stats.bytes_missing += session.note_acked();
        if session.stream().end().is_none() {
            // A FIN that was announced behind a hole will never be reached.
            let given_up = session.stream_mut().cut_short(EndKind::Severed);
            self.stats.give_up(given_up, session.copies());
            session.mark_end();
        }
        drop(session);
        self.unlist_session(key);
        self.advance_replicas(now, key);
        if self.sessions.first_replica(key).is_none() {
            self.remove_session(key);
        } else {
            self.arm_session(key);
        }
    }

    pub(super) fn unlist_session(&mut self, key: SessionKey) {
        let had_it = self.sessions.unlist(key);
        let session = self.sessions.get(key).filter(|_| had_it);
        if let Some(session) = session.filter(|session| session.has_departed()) {
            let (first, len) = (session.stream().first_seq(), session.stream().known_end());
            self.departed
                .remember(session.last_seen, session.tuple, first, len);
        }
    }

    /// Forgets a session whose course is over; it must have no replicas.
    pub(super) fn remove_session(&mut self, key: SessionKey) {
        match self.sessions.get(key).map(|session| session.phase()) {
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
        self.replicas.forget_kept(key);
        self.evidence.forget(key);
        if self.hears_live {
            self.overheard.forget(key);
        }
        self.joinable.forget(key);
        let Some(mut session) = self.sessions.change(key) else {
            return;
        };
        if session.is_active() {
            self.stats.bytes_missing += session.note_acked();
            let copies = session.copies();
            let (stream, _, live) = session.parts();
            self.stats.give_up(stream.discard(&mut self.pool), copies);
            // What a recording cut might have been answered.
            let unanswered = !self.clock.is_over() && live.clock.give_up();
            self.stats.live_turns_overdue += u64::from(unanswered);
        } else {
            session.stream_mut().discard(&mut self.pool);
        }
        drop(session);
        self.sessions.remove(key);
    }

    /// Opens the replicas of a session that has just become active.
    pub(super) fn open_replicas(&mut self, now: Time, key: SessionKey, beginning: Beginning) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let (index, copies) = (session.service, session.copies());
        let Some(service) = self.config.services.get(usize::from(index)).copied() else {
            return;
        };
        let client = self.clock.in_this_round(session.tuple.source);
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
            let talk = match self.begin_talk(index, beginning) {
                Ok(talk) => talk,
                Err(()) => {
                    self.stats.replicas_refused.add(RefusalReason::Protocol);
                    continue;
                }
            };
            let random = self.hasher.hash_one((client, index, number));
            let Some(source) = self.choose_source(now, client, index, random) else {
                self.stats.replicas_refused.add(RefusalReason::Sources);
                continue;
            };
            // The first keeps to the client's own time.
            let shift = if number == 0 { 0 } else { (random >> 24) as u8 };
            self.open_replica(now, key, source, shift, talk);
        }
        if self.replicas.has_talks() {
            // What came with the SYN.
            self.tell(now, key);
        }
    }

    fn open_replica(
        &mut self,
        now: Time,
        session: SessionKey,
        source: Endpoint,
        shift: u8,
        talk: Option<Talk>,
    ) {
        let its = self.sessions.get(session);
        let Some((service, live)) = its.map(|it| (it.service, it.tuple)) else {
            return;
        };
        let client = live.source;
        let Some(target) = self.config.services.get(usize::from(service)) else {
            return;
        };
        let kind = self.config.kind_of(&source.ip, &target.target.ip);
        let mut replica = Replica::new(session, Way::new(service, kind), source);
        replica.sibling = self.sessions.first_replica(session);
        replica.delay(now, shift, &self.config);
        replica.traits.set_sampled(self.sampler.samples(&live));
        let delayed = replica.is_delayed();
        let tuple = replica.tuple(target.target);
        tracing::trace!(%client, "copied from {source} to {}", target.target);
        let key = self.replicas.insert(replica);
        if let Some(talk) = talk {
            self.replicas.give_talk(key, talk);
        }
        self.sessions.set_first_replica(session, Some(key));
        self.stats.replicas_opened += 1;
        if self.clock.is_recorded() {
            self.sessions.count_busy(session, true);
        }
        self.events.push_back(Event::FlowOpened { key, tuple });
        if delayed {
            self.replicas.arm_as_due(key, &self.config);
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

    /// Forgets a replica.
    pub(super) fn remove_replica(&mut self, now: Time, key: ReplicaKey) {
        if self.replicas.has_talks() {
            self.end_talk(key);
        }
        let session = self.replicas.get(key).map(|replica| replica.session);
        let first = session.and_then(|session| self.sessions.first_replica(session));
        let Some((replica, first)) = self.replicas.remove(key, first) else {
            return;
        };
        let session = replica.session;
        self.sessions.set_first_replica(session, first);
        self.allocator
            .release(now, replica.service(), replica.source());
        self.events.push_back(Event::FlowClosed { key });
        if self.clock.is_recorded() && replica.is_busy() {
            self.sessions.count_busy(session, false);
        }
        self.trim_if_due(session);
        if first.is_some() {
            return;
        }
        let clock = self.clock.now(now);
        if let Some(session) = self.sessions.get_mut(session) {
            session.last_seen = session.last_seen.max(clock);
        }
        match self.clock.is_over() {
            true => self.remove_session(session),
            false => self.arm_session(session),
        }
    }

    /// Ends all replicas of a session, counted. The session itself stays, so that its further
    /// segments are known to be its own.
    pub(super) fn abort_session(&mut self, now: Time, key: SessionKey, reason: AbortReason) {
        let mut next = self.sessions.first_replica(key);
        while let Some(replica) = next {
            next = self.replicas.sibling_of(replica);
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
            match self.sessions.get(key).map(|session| session.phase()) {
                Some(Phase::Active { .. }) => self.abort_session(now, key, AbortReason::Shutdown),
                Some(Phase::Opening | Phase::Midway(_)) | None => self.remove_session(key),
            }
        }
    }
}
