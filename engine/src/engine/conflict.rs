//! Sources and flows that another copier has.
//!
//! Two live servers may have a client with the same address and port at the same time. Towards
//! one target that is one flow, which only one copier can have: the replica moves to another port.
//! Of a client pool whole parts are yielded to other copiers; what is alive there stays.

use std::hash::BuildHasher;

use millrace_wire::FourTuple;

use super::{Engine, Event};
use crate::key::ReplicaKey;
use crate::source::Sources;
use crate::time::Time;

impl Engine {
    /// Yields these sources of the pool to other copiers, in place of those that were yielded before: no new replica or
    /// probe bears one. Replicas that bear one already go on.
    pub fn yield_sources(&mut self, others: &[Sources]) {
        self.allocator.yield_to_others(others);
    }

    /// Another copier has this flow, though its source is in this copier's part of the pool, or has it no more. A replica
    /// that connects from there begins anew from elsewhere.
    pub fn set_taken(&mut self, now: Time, flow: &FourTuple, is_taken: bool) {
        let (services, nat) = (self.config.services.iter(), self.config.nat);
        let target = flow.destination;
        let with_target = (0..)
            .zip(services)
            .filter(|(_, service)| nat || target.port == 0 || service.target == target);
        for (service, _) in with_target {
            self.allocator.set_taken(service, flow.source, is_taken);
        }
        if let Some(key) = self.replicas.find(flow).filter(|_| is_taken) {
            self.flow_conflict(now, key);
        }
    }

    /// An interceptor says that another copier owns this replica's flow. A replica that has not
    /// connected yet gets another source and begins anew; one that has connected stays. Says
    /// whether it has moved.
    pub fn flow_conflict(&mut self, now: Time, key: ReplicaKey) -> bool {
        let Some(replica) = self.replicas.get(key) else {
            return false;
        };
        if !replica.is_waiting() && !replica.is_connecting() {
            return false;
        }
        let (client, service, begun) =
            (replica.source(), replica.service(), replica.is_connecting());
        let random = self.hasher.hash_one((now, key));
        // Its own flow is in use, so another one is chosen; then its port rests.
        let Some(source) = self.choose_source(now, client, service, random) else {
            return false;
        };
        self.allocator.release(now, service, client);
        self.replicas.move_to(key, source);
        let Some(tuple) = self.replicas.flow(key) else {
            return false;
        };
        self.stats.replicas_moved += 1;
        self.events.push_back(Event::FlowOpened { key, tuple });
        if begun {
            self.connect(now, key, false);
        }
        true
    }
}
