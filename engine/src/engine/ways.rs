//! Ways to targets: which replicas wait until theirs is open, how they are let go, and which are refused.

use std::net::IpAddr;
use std::time::Duration;

use super::{Engine, WayState};
use crate::config::{ClientKind, Service};
use crate::key::ReplicaKey;
use crate::replica::Replica;
use crate::stats::{AbortReason, RefusalReason};
use crate::time::Time;

/// Replicas that were held back are let go at this rate, every tick, in microseconds: a target's
/// accept queue is short, and programs take a few thousand connections in a second from it.
const RELEASE_BATCH: usize = 2;
const RELEASE_TICK: u32 = 1_000;
/// ... and as many more as joined them, and this part of those that wait, so that all come to
/// their turn in about so many ticks however many they are.
const RELEASE_TICKS: usize = 8_000;
/// Above this share of the memory limit, in percent, sessions that wait for a target that is not open are given up,
/// once it has been so for a while.
const WAITING_ABOVE: u64 = 50;
const CLOSED_FOR_LONG: Duration = Duration::from_secs(30);
/// With so many handshakes under way a new one is in a crowd.
const CROWD: usize = 32;

impl Engine {
    /// A replica connects, or waits until it may.
    pub(super) fn begin_replica(&mut self, now: Time, key: ReplicaKey) {
        let way = self.replicas.get(key).map(Replica::way);
        let Some(way) = way.and_then(|way| self.ways.get_mut(way.index())) else {
            return;
        };
        // It waits until it connects, if only for a moment.
        self.held_back += 1;
        if self.open && way.lets_begin() && way.waiting.is_empty() {
            self.connect(now, key, self.connecting >= CROWD);
        } else {
            if way.waiting.len() > 2 * self.held_back {
                // Replicas that were given up while they waited.
                let replicas = &self.replicas;
                way.waiting
                    .retain(|key| replicas.get(*key).is_some_and(Replica::is_held_back));
            }
            way.waiting.push_back(key);
            way.joined += usize::from(self.release_at != Time::NEVER);
            let closed = !way.open && now.since(way.closed_at) >= CLOSED_FOR_LONG;
            if closed && self.config.recorded.is_none() {
                self.make_room_for_open_ways(now, key);
            }
        }
    }

    /// What waits for a target that is closed for long must not take the memory that others need: above half of the limit
    /// those that have waited longest on the way of this replica are given up, two for each that comes.
    pub(super) fn make_room_for_open_ways(&mut self, now: Time, key: ReplicaKey) {
        for _ in 0..2 {
            if self.memory() <= self.config.memory_limit / 100 * WAITING_ABOVE {
                return;
            }
            let way = self.replicas.get(key).map(Replica::way);
            let way = way.and_then(|way| self.ways.get_mut(way.index()));
            let Some(oldest) = way.and_then(|way| way.waiting.pop_front()) else {
                return;
            };
            if self.replicas.get(oldest).is_some_and(Replica::is_held_back) {
                self.with_replica(now, oldest, |replica, cx| {
                    replica.abort(cx, AbortReason::Unproven);
                });
            }
        }
    }

    /// Lets go of replicas that were held back.
    pub(super) fn release_waiting(&mut self, now: Time) {
        self.release_at = Time::NEVER;
        if !self.open {
            return;
        }
        for index in 0..self.ways.len() {
            let batch = self.ways.get_mut(index).map_or(0, |way| {
                let joined = std::mem::take(&mut way.joined);
                RELEASE_BATCH + way.waiting.len() / RELEASE_TICKS + joined
            });
            for _ in 0..batch {
                let Some(key) = self.next_waiting(index) else {
                    break;
                };
                if self.replicas.get(key).is_some_and(Replica::is_held_back) {
                    self.connect(now, key, true);
                }
            }
        }
        let left = |way: &WayState| way.lets_begin() && !way.waiting.is_empty();
        if self.ways.iter().any(left) {
            self.release_at = now.plus_micros(RELEASE_TICK);
        }
    }

    pub(super) fn next_waiting(&mut self, way: usize) -> Option<ReplicaKey> {
        let way = self.ways.get_mut(way).filter(|way| way.lets_begin())?;
        way.waiting.pop_front()
    }

    /// Why no replicas that bear the addresses of such a client are opened towards this service's target, if so.
    pub(super) fn refused(
        &self,
        client: &IpAddr,
        index: u16,
        service: &Service,
    ) -> Option<RefusalReason> {
        let kind = self.config.kind_of(client, &service.target.ip);
        self.way(index.into(), kind)?.refused
    }

    /// Opens no replicas towards the target of this service that bear this kind of addresses, until
    /// [`Engine::set_way_open`]; those that wait are given up ([`AbortReason::Unproven`]).
    pub fn refuse_way(&mut self, now: Time, service: usize, kind: ClientKind) {
        let Some(way) = self.way_mut(service, kind) else {
            return;
        };
        way.refused.get_or_insert(RefusalReason::Unproven);
        for key in std::mem::take(&mut way.waiting) {
            if self.replicas.get(key).is_some_and(Replica::is_held_back) {
                self.with_replica(now, key, |replica, cx| {
                    replica.abort(cx, AbortReason::Unproven);
                });
            }
        }
    }
}
