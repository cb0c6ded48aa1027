//! What is done when timers of sessions and replicas fire.

use std::time::Duration;

use super::Engine;
use crate::key::ReplicaKey;
use crate::key::SessionKey;
use crate::replica::Replica;
use crate::session::Phase;
use crate::stats::AbortReason;
use crate::time::Time;

/// How far a recording goes on before a session is looked at again whose target is slow.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) fn on_replica_timer(&mut self, now: Time, fired: Time, key: ReplicaKey) {
        let stopped = self.is_stopped(key);
        let Some(replica) = self.replicas.get_mut(key) else {
            return;
        };
        if replica.armed != fired {
            return;
        }
        replica.armed = Time::NEVER;
        if replica.is_delayed() && replica.deadline(&self.config) <= now {
            if let Some(mut replica) = self.replicas.change(key) {
                replica.end_delay();
            }
            self.begin_replica(now, key);
        } else if stopped && !replica.is_lingering() {
            // What is due stays due until its target is open again, or has had its time.
            let end = replica.gives_up_at(&self.config);
            if end <= now {
                self.with_replica(now, key, Replica::time_out);
            } else {
                self.replicas.arm(key, end);
            }
        } else if replica.deadline(&self.config) <= now {
            self.with_replica(now, key, Replica::on_timer);
        } else {
            self.replicas.arm_as_due(key, &self.config);
        }
    }

    pub(super) fn on_session_timer(&mut self, now: Time, fired: Time, key: SessionKey) {
        let (clock, grace) = (self.clock.now(now), self.gap_grace());
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.armed != fired {
            return;
        }
        session.armed = Time::NEVER;
        if session.live.clock.overdue_at(self.config.overdue_after) <= clock {
            self.stats.live_turns_overdue += u64::from(session.live.clock.give_up());
        }
        let wakes_for_itself = session.deadline(&self.config, grace) <= clock;
        if self.reset_counts_at(key) <= clock {
            self.settle_reset(now, key);
            self.arm_session(key);
            return;
        }
        if self.evidence.waiting_until(key) <= clock {
            self.settle_waiting(now, key, false);
            self.arm_session(key);
            return;
        }
        if self.replicas.has_talks() && self.end_silent(now, key) {
            self.arm_session(key);
            return;
        }
        if self.script_overdue_at(key) <= clock {
            self.abort_session(now, key, AbortReason::Protocol);
            return;
        }
        if !wakes_for_itself {
            self.arm_session(key);
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let active = session.is_active();
        let gap_is_final = active && session.gap_is_final(clock, grace);
        if active && !gap_is_final && !self.evidence.waiting(key).is_empty() {
            // Nothing else is to come.
            self.settle_waiting(now, key, true);
            self.arm_session(key);
            return;
        }
        let under_way = session.backlog() > 0 || session.is_busy();
        if self.clock.is_recorded() && under_way {
            // A recording may be read faster than a target takes it: first it gets what there is.
            let later = clock + LOOK_AGAIN;
            self.sessions.arm(key, later);
            return;
        }
        if gap_is_final {
            session.gap_since = Time::NEVER;
            self.heal(now, key, false);
            return;
        }
        match session.phase() {
            Phase::Opening | Phase::Midway(_) => self.remove_session(key),
            Phase::Active { .. } if session.first_replica().is_none() => {
                self.stats.sessions_ended += u64::from(session.end(clock));
                self.remove_session(key);
            }
            Phase::Active { .. } => {
                self.stats.sessions_ended += u64::from(session.end(clock));
                self.abort_session(now, key, AbortReason::Idle);
            }
        }
    }
}
