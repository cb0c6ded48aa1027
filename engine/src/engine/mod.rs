//! The engine: all sessions and replicas of one shard, its inputs and its outputs.

mod admission;
mod aside;
mod begins;
mod client_segments;
mod conflict;
mod doubts;
mod due;
mod ends;
mod event;
mod gaps;
mod hearsay;
mod life;
mod live_segments;
mod misdirected;
mod mptcp;
mod output;
mod responses;
mod rounds;
mod run;
mod silence;
mod sources;
mod trim;
mod waiting;
mod ways;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use millrace_wire::{Endpoint, Flags, FourTuple, TcpHeader, TcpPacket};
use slotmap::{SlotMap, SparseSecondaryMap};

pub use self::aside::Relief;
use self::client_segments::ClientSegment;
use self::doubts::Doubts;
pub use self::event::{Event, FlowRef, Gauges, SendFailure, TargetSilence};
pub use self::misdirected::Misdirection;
use self::misdirected::Signs;
use self::mptcp::Joinable;
pub use self::output::Transmit;
use self::silence::Silence;
use self::trim::Kept;
use self::waiting::Waiting;
use crate::caps::Meter;
use crate::config::{ClientKind, Config, Direction, Way};
use crate::departed::Departed;
use crate::intensity::Intensity;
use crate::key::ReplicaKey;
use crate::key::SessionKey;
use crate::payload::Payload;
use crate::pool::BlockPool;
use crate::recorded::RecordedClock;
use crate::replica::Replica;
use crate::replica::gate::QuietFloor;
use crate::session::Session;
use crate::source::Allocator;
use crate::stats::{RefusalReason, Stats};
use crate::time::Time;
use crate::timers::Timers;

/// Memory for each entry besides the entry itself, in bytes: its generation in the slot map, its
/// place in the hash table at three quarters full, and one timer.
const ENTRY_COST: usize = 8 + 12 + size_of::<(Time, SessionKey)>();
/// Memory for each session but for what it holds, in bytes.
const SESSION_COST: usize = size_of::<Session>() + ENTRY_COST;
/// Memory for each replica but for its connection, in bytes. While idle it has no timer.
const REPLICA_COST: usize = size_of::<Replica>() + ENTRY_COST - size_of::<(Time, ReplicaKey)>();

/// One connection that is over is remembered for so many bytes of the memory limit: each takes less than 80.
const DEPARTED_SHARE: u64 = 4096;

/// Memory for what a session with several replicas keeps for them, in bytes: key, entry, and its
/// place in the hash table at half full.
const KEPT_COST: usize = 2 * (size_of::<SessionKey>() + size_of::<Kept>());

/// What the engine knows of the way to one service's target and back, for one kind of source addresses.
#[derive(Clone, Debug)]
struct WayState {
    floor: QuietFloor,
    max_packet: u16,
    /// Whether replicas may begin.
    open: bool,
    /// Since when they may not.
    closed_at: Time,
    /// Why none is opened, if so: see [`Engine::refuse_way`].
    refused: Option<RefusalReason>,
    /// Replicas that are held back, in their order; some may have been given up since.
    waiting: VecDeque<ReplicaKey>,
    /// How many joined them since the last ones were let go.
    joined: usize,
    silence: Silence,
}

impl WayState {
    const fn set_open(&mut self, now: Time, open: bool) {
        if self.open && !open {
            self.closed_at = now;
        }
        self.open = open;
    }

    /// Whether replicas may begin.
    const fn lets_begin(&self) -> bool {
        self.open && !self.silence.is_holding()
    }
}

/// The replay engine of one shard.
pub struct Engine {
    config: Config,
    sessions: SlotMap<SessionKey, Session>,
    replicas: SlotMap<ReplicaKey, Replica>,
    by_tuple: HashTable<SessionKey>,
    by_flow: HashTable<ReplicaKey>,
    hasher: FixedState,
    pool: BlockPool,
    session_timers: Timers<SessionKey>,
    replica_timers: Timers<ReplicaKey>,
    ready: VecDeque<ReplicaKey>,
    held_back: usize,
    release_at: Time,
    connecting: usize,
    lingering: usize,
    events: VecDeque<Event>,
    /// Resets of handshakes that were called off.
    resets: VecDeque<(ReplicaKey, FourTuple, TcpHeader)>,
    ways: Vec<WayState>,
    allocator: Allocator,
    intensity: Intensity,
    relief: Relief,
    signs: Signs,
    meter: Meter,
    /// Sessions with replicas.
    copied: usize,
    /// Sessions with busy replicas.
    busy: usize,
    stats: Stats,
    open: bool,
    /// Whether silence of a target means something, and when it is judged next.
    listening: bool,
    silence_at: Time,
    draining: bool,
    /// How far the recording was taken in, if there is one.
    recorded: RecordedClock,
    heap: usize,
    backlog: u64,
    /// By how much acknowledgements of the live server were captured before what they acknowledge, at most.
    ahead: Duration,
    /// How long ago what is taken in was due: see [`Engine::set_waited`].
    waited: Duration,
    /// Connections that other subflows may join.
    joinable: Joinable,
    /// Connections that are over.
    departed: Departed,
    /// What was captured and does not count yet.
    doubts: SparseSecondaryMap<SessionKey, Doubts, FixedState>,
    /// Segments that wait for what bears them out.
    waiting: SparseSecondaryMap<SessionKey, Vec<Waiting>, FixedState>,
    /// What sessions with several replicas keep for them.
    kept: SparseSecondaryMap<SessionKey, Kept, FixedState>,
    /// Replicas that were looked at to find out what may be freed.
    #[cfg(test)]
    looks: u64,
}

impl Engine {
    /// An engine without sessions. It holds back new replicas until [`Engine::set_open`].
    pub fn new(config: Config) -> Self {
        let way = WayState {
            floor: QuietFloor::default(),
            max_packet: config.max_packet,
            open: true,
            closed_at: Time::NEVER,
            refused: None,
            waiting: VecDeque::new(),
            joined: 0,
            silence: Silence::default(),
        };
        let departed = usize::try_from(config.memory_limit / DEPARTED_SHARE).unwrap_or(usize::MAX);
        Self {
            ways: vec![way; Way::all(config.services.len()).count()],
            hasher: FixedState::with_seed(config.seed),
            kept: SparseSecondaryMap::with_hasher(FixedState::with_seed(config.seed)),
            ahead: Duration::ZERO,
            waited: Duration::ZERO,
            joinable: Joinable::new(config.seed),
            departed: Departed::new(config.late, departed, config.seed),
            doubts: SparseSecondaryMap::with_hasher(FixedState::with_seed(config.seed)),
            waiting: SparseSecondaryMap::with_hasher(FixedState::with_seed(config.seed)),
            allocator: Allocator::new(config.source_rules()),
            intensity: config.intensity,
            relief: Relief::default(),
            signs: Signs::default(),
            meter: Meter::new(config.caps),
            copied: 0,
            busy: 0,
            config,
            sessions: SlotMap::with_key(),
            replicas: SlotMap::with_key(),
            by_tuple: HashTable::new(),
            by_flow: HashTable::new(),
            pool: BlockPool::new(),
            session_timers: Timers::default(),
            replica_timers: Timers::default(),
            ready: VecDeque::new(),
            held_back: 0,
            release_at: Time::NEVER,
            connecting: 0,
            lingering: 0,
            events: VecDeque::new(),
            resets: VecDeque::new(),
            stats: Stats::new(),
            open: false,
            listening: true,
            silence_at: Time::NEVER,
            draining: false,
            recorded: RecordedClock::default(),
            heap: 0,
            backlog: 0,
            #[cfg(test)]
            looks: 0,
        }
    }

    /// From now on segments are taken in so long after they could have been: they waited in a queue, or a recording is fed
    /// later than by its own time. Replicas are that much further behind. Unlike time stamps, this depends on no clock
    /// that can be set.
    pub const fn set_waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// Takes a captured segment, whichever way it goes. `at` is when it was captured, `now` the
    /// present time, `at <= now`. With [`Config::recorded`], `at` is a time of the recording.
    pub fn segment(&mut self, now: Time, at: Time, packet: &TcpPacket<'_>) {
        self.segment_with(now, at, packet, Payload::Borrowed(packet.payload));
    }

    /// As [`Engine::segment`], with a `payload` whose bytes are those of the packet and that may be
    /// kept without a copy.
    pub fn segment_with(
        &mut self,
        now: Time,
        at: Time,
        packet: &TcpPacket<'_>,
        payload: Payload<'_>,
    ) {
        // What a RST carries is a diagnosis, no part of the stream (RFC 9293 3.10.7.4, RFC 1122 4.2.2.12).
        let (packet, payload) = match packet.header.flags.has(Flags::RST) {
            true => (&without_payload(packet), Payload::Borrowed(&[])),
            false => (packet, payload),
        };
        match self.config.direction(&packet.tuple) {
            Direction::ToLive => {
                let segment = ClientSegment {
                    at,
                    packet,
                    payload,
                };
                self.client_segment(now, segment);
            }
            Direction::FromLive => self.live_segment(now, at, packet),
            Direction::Other => self.stats.segments_unowned += 1,
        }
    }

    /// Takes a segment from a client to the live server, captured at `at`.
    fn client_segment(&mut self, now: Time, segment: ClientSegment<'_>) {
        self.stats.client_segments += 1;
        let at = self.seen_at(now, segment.at);
        self.on_client_segment(now, ClientSegment { at, ..segment });
    }

    /// Takes a segment from the live server to a client, captured at `at`. Only its header
    /// counts.
    fn live_segment(&mut self, now: Time, at: Time, packet: &TcpPacket<'_>) {
        self.stats.live_segments += 1;
        let at = self.seen_at(now, at);
        self.on_live_segment(now, at, packet);
    }

    /// Takes the header of a segment with `payload_len` bytes from a target to a replica.
    pub fn target_header(
        &mut self,
        now: Time,
        flow: FlowRef,
        header: &TcpHeader,
        payload_len: u32,
    ) {
        self.stats.target_headers += 1;
        self.on_target_header(now, flow, header, payload_len);
    }

    /// Does whatever is due. To be called when [`Engine::poll_timeout`] says so; calling it more
    /// often does no harm.
    pub fn timeout(&mut self, now: Time) {
        if self.silence_at <= now {
            self.judge_silence(now);
        }
        // What is armed again for a time that has come already waits for the next call: a fault
        // in one deadline must not keep everybody else waiting.
        for _ in 0..self.session_timers.len() {
            let Some((time, key)) = self.session_timers.pop_due(self.live_now(now)) else {
                break;
            };
            self.on_session_timer(now, time, key);
        }
        for _ in 0..self.replica_timers.len() {
            let Some((time, key)) = self.replica_timers.pop_due(now) else {
                break;
            };
            self.on_replica_timer(now, time, key);
        }
        let (sessions, replicas) = (&self.sessions, &self.replicas);
        self.session_timers
            .sweep(sessions.len(), |key| Some(sessions.get(key)?.armed));
        self.replica_timers
            .sweep(replicas.len(), |key| Some(replicas.get(key)?.armed));
        if self.release_at <= now {
            self.release_waiting(now);
        }
    }

    /// When [`Engine::timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        // Those of a recording's sessions come with its segments.
        let sessions = match self.config.recorded {
            Some(_) => Time::NEVER,
            None => self.session_timers.next(),
        };
        let next = sessions
            .min(self.replica_timers.next())
            .min(self.silence_at)
            .min(self.release_at);
        // While nothing may be sent, what is ready waits for the bandwidth.
        let next = match self.ready.is_empty() {
            true => next,
            false => next.min(self.meter.sends_at()),
        };
        (next != Time::NEVER).then_some(next)
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says whether answers of targets can reach the engine. While they cannot, new replicas are
    /// held back; when they can again, everything outstanding is tried again soon.
    pub fn set_open(&mut self, now: Time, open: bool) {
        if open == self.open {
            return;
        }
        self.open = open;
        if open {
            self.path_restored(now, |_| true);
            self.release_waiting(now);
        } else {
            self.forget_silence(now);
            self.release_at = Time::NEVER;
        }
    }

    /// Says whether answers of targets can reach the engine: see [`Engine::set_open`].
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Says whether replicas towards the target of this service (its place in
    /// [`Config::services`]) may begin. Until then they are held back; those that have begun go on, unless the
    /// target was stopped since it had fallen silent ([`Event::TargetSilent`]): then they go on from now.
    pub fn set_target_open(&mut self, now: Time, service: usize, open: bool) {
        for kind in ClientKind::ALL {
            self.set_way_open(now, service, kind, open);
        }
    }

    /// From now on services without an address are at these: see [`Config::local_addresses`]. Open sessions go on.
    pub fn set_local_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.config.local_addresses = addresses;
    }

    /// As [`Engine::set_target_open`], for replicas that bear one kind of source addresses.
    pub fn set_way_open(&mut self, now: Time, service: usize, kind: ClientKind, open: bool) {
        let Ok(service) = u16::try_from(service) else {
            return;
        };
        let way = Way::new(service, kind);
        if let Some(state) = self.ways.get_mut(way.index()) {
            // What is misdirected is misdirected for good.
            if state.refused == Some(RefusalReason::Misdirected) {
                return;
            }
            state.set_open(now, open);
            if open {
                state.refused = None;
                self.end_silence(now, way);
                self.release_waiting(now);
            }
        }
    }

    /// What is known of the way to a service's target for one kind of source addresses.
    fn way(&self, service: usize, kind: ClientKind) -> Option<&WayState> {
        let service = u16::try_from(service).ok()?;
        self.ways.get(Way::new(service, kind).index())
    }

    /// As [`Engine::way`].
    fn way_mut(&mut self, service: usize, kind: ClientKind) -> Option<&mut WayState> {
        let service = u16::try_from(service).ok()?;
        self.ways.get_mut(Way::new(service, kind).index())
    }

    /// Whether replicas may begin towards any target: see [`Engine::set_target_open`].
    pub fn is_any_target_open(&self) -> bool {
        self.ways.iter().any(|way| way.open)
    }

    /// From now on no new session is begun; the others go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Ends all replicas: what is not complete is counted as [`crate::AbortReason::Shutdown`].
    /// The resets that tell the targets so are to be sent with [`Engine::poll_transmit`].
    pub fn shutdown(&mut self, now: Time) {
        self.drain();
        self.abort_everything(now);
    }

    /// A packet of this replica could not be sent.
    pub fn send_failed(&mut self, key: ReplicaKey, failure: SendFailure, packet_len: usize) {
        match failure {
            SendFailure::TooLong => self.lower_path(key, packet_len),
            SendFailure::Lost => {}
        }
    }

    /// All flows that interceptors must know, in no particular order.
    pub fn flows(&self) -> impl Iterator<Item = (ReplicaKey, FourTuple)> {
        self.replicas
            .iter()
            .map(|(key, replica)| (key, replica.tuple(self.target_of(replica))))
    }

    /// Whether a replica's target has answered its SYN.
    pub fn is_connected(&self, key: ReplicaKey) -> bool {
        let replica = self.replicas.get(key);
        replica.is_some_and(|replica| !replica.is_waiting() && !replica.is_connecting())
    }

    /// The flow of a replica, if it still exists.
    pub fn flow(&self, key: ReplicaKey) -> Option<FourTuple> {
        self.replicas
            .get(key)
            .map(|replica| replica.tuple(self.target_of(replica)))
    }

    /// What was counted so far.
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the engine was told at its start.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What is held at the moment.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            sessions: self.sessions.len(),
            sessions_copied: self.copied,
            sessions_busy: self.busy,
            replicas: self.replicas.len(),
            replicas_lingering: self.lingering,
            replicas_connecting: self.connecting,
            replicas_waiting: self.held_back,
            memory: self.memory(),
            backlog: self.backlog,
        }
    }

    /// Memory in use, in bytes.
    fn memory(&self) -> u64 {
        let blocks = self.pool.memory();
        let sessions = self.sessions.len() * SESSION_COST;
        let replicas = self.replicas.len() * REPLICA_COST;
        let kept = self.kept.len() * KEPT_COST;
        (blocks + sessions + replicas + kept + self.heap) as u64
    }

    fn target_of(&self, replica: &Replica) -> Endpoint {
        // The index was taken from this list.
        self.config
            .services
            .get(usize::from(replica.service()))
            .map_or(replica.source(), |service| service.target)
    }

    fn find_session(&self, tuple: &FourTuple) -> Option<SessionKey> {
        let hash = self.hasher.hash_one(tuple);
        self.by_tuple
            .find(hash, |key| {
                self.sessions.get(*key).is_some_and(|s| s.tuple == *tuple)
            })
            .copied()
    }

    fn find_flow(&self, tuple: &FourTuple) -> Option<ReplicaKey> {
        let wanted = self.identity(tuple);
        let is_it = |key: &ReplicaKey| self.flow(*key).map(|flow| self.identity(&flow));
        self.by_flow
            .find(self.hasher.hash_one(wanted), |key| {
                is_it(key) == Some(wanted)
            })
            .copied()
    }

    /// What tells a flow from all others.
    fn identity(&self, tuple: &FourTuple) -> FourTuple {
        if self.config.nat {
            FourTuple::new(tuple.source, tuple.source)
        } else {
            *tuple
        }
    }

    fn flow_hash(&self, tuple: &FourTuple) -> u64 {
        self.hasher.hash_one(self.identity(tuple))
    }
}

fn without_payload<'a>(packet: &TcpPacket<'a>) -> TcpPacket<'a> {
    TcpPacket {
        payload: &[],
        payload_len: 0,
        ..*packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one idle session with one established replica costs, in bytes.
    #[test]
    fn an_idle_session_takes_600_bytes_at_most() {
        let connection = crate::replica::CONNECTION_SIZE;
        let sum = SESSION_COST + REPLICA_COST + connection;
        println!("session {SESSION_COST}, replica {REPLICA_COST}, connection {connection}: {sum}");
        assert!(sum <= 600, "{sum} bytes");
    }
}
