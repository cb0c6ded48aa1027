//! Ways to targets: which replicas wait until theirs is open, how they are let go, and which are refused.

use std::net::IpAddr;

use super::Engine;
use crate::config::{ClientKind, Service};
use crate::key::ReplicaKey;
use crate::replica::Replica;
use crate::stats::{AbortReason, RefusalReason};
use crate::time::Time;

/// Above this share of the memory limit, in percent, sessions that wait for a target that is not open are given up,
/// once it has been so for a while.
const WAITING_ABOVE: u64 = 50;
/// With so many handshakes under way a new one is in a crowd.
const CROWD: usize = 32;

impl Engine {
    /// A replica connects, or waits until it may.
    pub(super) fn begin_replica(&mut self, now: Time, key: ReplicaKey) {
        let Some(way) = self.replicas.get(key).map(Replica::way) else {
            return;
        };
        if self.ways.may_begin(way) {
            let crowd = self.replicas.connecting() >= CROWD;
            self.connect(now, key, crowd);
            return;
        }
        let replicas = &self.replicas;
        let is_held_back = |key| replicas.is_held_back(key);
        self.ways
            .hold_back(way, key, replicas.held_back(), is_held_back);
        let state = self.ways.get(way);
        let closed = state.is_some_and(|way| way.is_closed_for_long(now));
        // A recording waits for its targets, and takes no more memory meanwhile.
        if closed && !self.clock.is_recorded() {
            self.make_room_for_open_ways(now, key);
        }
    }

    /// What waits for a target that is closed for long must not take the memory that others need: above half of the limit
    /// those that have waited longest on the way of this replica are given up, two for each that comes.
    fn make_room_for_open_ways(&mut self, now: Time, key: ReplicaKey) {
        for _ in 0..2 {
            if self.memory() <= self.config.memory_limit / 100 * WAITING_ABOVE {
                return;
            }
            let way = self.replicas.get(key).map(Replica::way);
            let way = way.and_then(|way| self.ways.get_mut(way));
            let Some(oldest) = way.and_then(|way| way.take_oldest()) else {
                return;
            };
            self.give_up_waiting(now, oldest);
        }
    }

    /// Gives up a replica that was held back, if it still is.
    fn give_up_waiting(&mut self, now: Time, key: ReplicaKey) {
        if self.replicas.is_held_back(key) {
            self.with_replica(now, key, |replica, cx| {
                replica.abort(cx, AbortReason::Unproven);
            });
        }
    }

    /// Lets go of replicas that were held back.
    pub(super) fn resume_waiting(&mut self, now: Time) {
        for key in self.ways.resume(now) {
            if self.replicas.is_held_back(key) {
                self.connect(now, key, true);
            }
        }
    }

    /// Why no replicas that bear the addresses of such a client are opened towards this service's target, if so.
    pub(super) fn refused(
        &self,
        client: &IpAddr,
        index: u16,
        service: &Service,
    ) -> Option<RefusalReason> {
        let kind = self.config.kind_of(client, &service.target.ip);
        self.ways.find(index.into(), kind)?.refused
    }

    /// Opens no replicas towards the target of this service that bear this kind of addresses, until
    /// [`Engine::set_way_open`]; those that wait are given up ([`AbortReason::Unproven`]).
    pub fn refuse_way(&mut self, now: Time, service: usize, kind: ClientKind) {
        let Some(way) = self.ways.find_mut(service, kind) else {
            return;
        };
        way.refused.get_or_insert(RefusalReason::Unproven);
        for key in way.take_waiting() {
            self.give_up_waiting(now, key);
        }
    }
}
