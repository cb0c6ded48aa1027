//! How sessions and replicas begin and end, and their timers.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use millrace_wire::{Endpoint, FourTuple, Seq};

use super::{Engine, Event, WayState};
use crate::config::{ClientKind, Service, Way};
use crate::replica::{Needs, Replica, ReplicaKey};
use crate::session::{Phase, SessionKey, Watch};
use crate::source::SourcePool;
use crate::stats::{AbortReason, RefusalReason};
use crate::stream::EndKind;
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
/// How far a recording goes on before a session is looked at again whose target is slow.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Probes come from these ports, first included, last not.
const PROBE_PORTS: (u16, u16) = (1024, 65_535);
/// ... and where all of these are taken.
const LAST_PROBE_PORTS: (u16, u16) = (512, 1023);

const fn port_of(ports: (u16, u16), hash: u64) -> u16 {
    ports.0 + (hash % (ports.1 - ports.0) as u64) as u16
}

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

    /// Why no replicas that bear the addresses of such a client are opened towards this service's target, if so.
    fn refused(&self, client: &IpAddr, index: u16, service: &Service) -> Option<RefusalReason> {
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

    /// The client's address as the target may see it: one on the live host's loopback address
    /// is replaced, since no network would carry it.
    fn apparent_client(&self, client: Endpoint, service: &Service) -> Result<Endpoint, ()> {
        let is_loopback = |ip: &IpAddr| ip.to_canonical().is_loopback();
        if !is_loopback(&client.ip) || is_loopback(&service.target.ip) {
            return Ok(client);
        }
        let v4 = service.target.ip.is_ipv4();
        let stand_in = self
            .config
            .loopback_clients
            .iter()
            .find(|ip| ip.is_ipv4() == v4);
        if matches!(self.config.sources, SourcePool::Ranges(_)) {
            return Ok(client);
        }
        stand_in.map(|ip| Endpoint::new(*ip, client.port)).ok_or(())
    }

    /// Takes a source for a replica of `client` towards the target of this service.
    pub(super) fn choose_source(
        &mut self,
        now: Time,
        client: Endpoint,
        service: u16,
        random: u64,
    ) -> Option<Endpoint> {
        let target = self.config.services.get(usize::from(service))?.target;
        // A client that comes back with its port finds it free as soon as its last replica has
        // nothing more to deliver: the target tells the new connection from the old one by
        // sequence number and timestamp, which only rise (RFC 6191).
        let own = self.find_flow(&FourTuple::new(client, target));
        if let Some(old) = own.filter(|key| self.is_lingering(*key)) {
            self.remove_replica(now, old);
        }
        let taken = self
            .allocator
            .take(now, client, service, &target.ip, random)?;
        self.stats.ports_reused_early += u64::from(taken.early);
        Some(taken.source)
    }

    fn is_lingering(&self, key: ReplicaKey) -> bool {
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

    /// A replica connects, or waits until it may.
    fn begin_replica(&mut self, now: Time, key: ReplicaKey) {
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
    fn make_room_for_open_ways(&mut self, now: Time, key: ReplicaKey) {
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

    /// RFC 9293 3.4.1: a clock of 4 µs ticks and a keyed hash of the flow, so that a flow that is
    /// used again goes on above its last numbers.
    fn initial_sequence(&self, now: Time, source: Endpoint, service: u16) -> Seq {
        let clock = (now.as_micros() / 4) as u32;
        Seq(clock.wrapping_add(self.hasher.hash_one((source, service)) as u32))
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

    fn next_waiting(&mut self, way: usize) -> Option<ReplicaKey> {
        let way = self.ways.get_mut(way).filter(|way| way.lets_begin())?;
        way.waiting.pop_front()
    }

    /// The addresses of one kind of clients whose sessions wait for this service's target (its place in
    /// [`crate::Config::services`]), each once, those that have waited longest first: `most` of them.
    pub fn waiting_clients(&self, service: usize, kind: ClientKind, most: usize) -> Vec<IpAddr> {
        let waiting = self.way(service, kind).map(|way| &way.waiting);
        let mut clients = Vec::new();
        for replica in waiting
            .into_iter()
            .flatten()
            .filter_map(|key| self.replicas.get(*key))
        {
            if clients.len() == most {
                break;
            }
            let ip = replica.source().ip;
            if !clients.contains(&ip) {
                clients.push(ip);
            }
        }
        clients
    }

    /// The address of some client of this kind whose session is copied to this service's target.
    pub fn a_client(&self, service: usize, kind: ClientKind) -> Option<IpAddr> {
        let way = Way::new(u16::try_from(service).ok()?, kind);
        let mut replicas = self.replicas.values();
        let its = replicas.find(|replica| replica.way() == way)?;
        Some(its.source().ip)
    }

    /// A source address and port for a probe of this service's target (its place in
    /// [`crate::Config::services`]): one that no replica uses, of the kind that replicas bear. Where
    /// they bear their clients' own, it is one of `client`.
    pub fn probe_source(
        &mut self,
        now: Time,
        service: usize,
        client: Option<IpAddr>,
    ) -> Option<Endpoint> {
        let target = self.config.services.get(service)?.target;
        let hash = self.hasher.hash_one((now, service));
        let service = u16::try_from(service).ok()?;
        // Not the client's own port: that is the replica's.
        let client = match self.config.sources {
            SourcePool::Ranges(_) => Endpoint::new(target.ip, port_of(PROBE_PORTS, hash)),
            SourcePool::Clients => Endpoint::new(client?, port_of(PROBE_PORTS, hash)),
        };
        if let Some(source) = self.choose_source(now, client, service, hash) {
            // No replica holds it: it rests, and is not chosen again soon.
            self.allocator.release(now, service, source);
            return Some(source);
        }
        // All others are held by sessions that wait for this very probe, as behind a balancer with one
        // address. No replica bears such a port unless its client does.
        let source = Endpoint::new(client.ip, port_of(LAST_PROBE_PORTS, hash));
        let own = matches!(self.config.sources, SourcePool::Clients)
            && self.find_flow(&FourTuple::new(source, target)).is_none();
        own.then_some(source)
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
            replica.end_delay();
            self.begin_replica(now, key);
        } else if stopped && !replica.is_lingering() {
            // What is due stays due until its target is open again, or has had its time.
            let end = replica.gives_up_at(&self.config);
            if end <= now {
                self.with_replica(now, key, |replica, cx| {
                    replica.abort(cx, AbortReason::Timeout);
                });
            } else {
                self.replica_timers.arm(key, end, &mut replica.armed);
            }
        } else if replica.deadline(&self.config) <= now {
            self.with_replica(now, key, Replica::on_timer);
        } else {
            self.arm_replica(key);
        }
    }

    pub(super) fn on_session_timer(&mut self, now: Time, fired: Time, key: SessionKey) {
        let (clock, grace) = (self.live_now(now), self.gap_grace());
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
        if self.waiting_until(key) <= clock {
            self.settle_waiting(now, key, false);
            self.arm_session(key);
            return;
        }
        if !wakes_for_itself {
            self.arm_session(key);
            return;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if matches!(session.phase, Phase::Active { .. }) && self.waiting.contains_key(key) {
            // Nothing else is to come.
            self.settle_waiting(now, key, true);
            self.arm_session(key);
            return;
        }
        let active = matches!(session.phase, Phase::Active { .. });
        let under_way = session.backlog() > 0 || session.is_busy();
        if self.config.recorded.is_some() && under_way {
            // A recording may be read faster than a target takes it: first it gets what there is.
            let later = clock + LOOK_AGAIN;
            self.session_timers.arm(key, later, &mut session.armed);
            return;
        }
        if active && session.gap_is_final(clock, grace) {
            session.gap_since = Time::NEVER;
            self.heal(now, key, false);
            return;
        }
        match session.phase {
            Phase::Opening | Phase::Midway(_) => self.remove_session(key),
            Phase::Active { .. } if session.first_replica.is_none() => {
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
