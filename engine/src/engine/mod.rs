//! The engine: all sessions and replicas of one shard, its inputs and its outputs.

mod admission;
mod aside;
mod begins;
mod client_segments;
mod conflict;
mod conversations;
mod doubts;
mod due;
mod ends;
mod event;
mod followed;
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
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use millrace_wire::{Flags, FourTuple, TcpHeader, TcpPacket};

use self::client_segments::ClientSegment;
pub use self::event::{Event, FlowRef, Gauges, SendFailure, TargetSilence};
pub use self::misdirected::Misdirection;
use self::misdirected::Signs;
use self::mptcp::Joinable;
pub use self::output::Transmit;
use self::silence::Listening;
use crate::admission::Admission;
use crate::caps::Shaper;
use crate::config::{ClientKind, Config, Direction, Way};
use crate::departed::Departed;
use crate::evidence::Evidence;
use crate::key::ReplicaKey;
use crate::live_clock::LiveClock;
use crate::overheard::Overheard;
use crate::payload::Payload;
use crate::pool::BlockPool;
use crate::protocol::Protocol;
use crate::replica::{Tale, Waits};
use crate::sampled::{Sampler, Tales, Told};
use crate::source::Allocator;
use crate::stats::{RefusalReason, Stats};
use crate::tables::{Replicas, Sessions, Ways};
use crate::time::Time;

/// One connection that is over is remembered for so many bytes of the memory limit: each takes less than 80.
const DEPARTED_SHARE: u64 = 4096;

/// The replay engine of one shard.
pub struct Engine {
    config: Config,
    sessions: Sessions,
    /// What the sessions' streams are stored in.
    pool: BlockPool,
    replicas: Replicas,
    ways: Ways,
    admission: Admission,
    /// Bounds the bytes that are sent.
    shaper: Shaper,
    /// Source addresses and ports of replicas.
    allocator: Allocator,
    clock: LiveClock,
    /// How long what is heard of targets waits before.
    waits: Waits,
    /// What was captured and does not count yet.
    evidence: Evidence,
    /// What live servers say to modules that hear it.
    overheard: Overheard,
    /// Some module hears live servers.
    hears_live: bool,
    /// Connections that are over.
    departed: Departed,
    /// Connections that other subflows may join.
    joinable: Joinable,
    /// What copies that come back are known by.
    signs: Signs,
    listening: Listening,
    /// The protocol modules, by service.
    protocols: Vec<Option<Box<dyn Protocol>>>,
    events: VecDeque<Event>,
    /// Which sessions are sampled, and what is told of them.
    sampler: Sampler,
    tales: Tales<Tale>,
    /// Resets of handshakes that were called off.
    resets: VecDeque<(ReplicaKey, FourTuple, TcpHeader)>,
    stats: Stats,
    hasher: FixedState,
}

impl Engine {
    /// An engine without sessions. It holds back new replicas until [`Engine::set_open`].
    pub fn new(config: Config) -> Self {
        let departed = usize::try_from(config.memory_limit / DEPARTED_SHARE).unwrap_or(usize::MAX);
        Self {
            sessions: Sessions::new(config.seed),
            pool: BlockPool::new(),
            replicas: Replicas::new(&config),
            ways: Ways::new(&config),
            admission: Admission::new(&config),
            shaper: Shaper::new(config.caps),
            allocator: Allocator::new(config.source_rules()),
            clock: LiveClock::new(config.recorded),
            waits: Waits::default(),
            evidence: Evidence::new(config.seed),
            overheard: Overheard::new(config.seed),
            hears_live: false,
            departed: Departed::new(config.late, departed, config.seed),
            joinable: Joinable::new(config.seed),
            signs: Signs::default(),
            listening: Listening::default(),
            protocols: config.services.iter().map(|_| None).collect(),
            events: VecDeque::new(),
            sampler: Sampler::new(config.sampled, config.seed),
            tales: Tales::default(),
            resets: VecDeque::new(),
            stats: Stats::new(),
            hasher: FixedState::with_seed(config.seed),
            config,
        }
    }

    /// From now on segments are taken in so long after they could have been: they waited in a queue, or a recording is fed
    /// later than by its own time. Replicas are that much further behind. Unlike time stamps, this depends on no clock
    /// that can be set.
    pub const fn set_waited(&mut self, waited: Duration) {
        self.clock.set_waited(waited);
    }

    /// From now on response headers have waited so long on their way when they are taken in: that is no time of the target's.
    /// (More than 65 ms count as these.)
    pub fn set_heard_ago(&mut self, waited: Duration) {
        self.waits.past = micros(waited);
    }

    /// From now on response headers may wait so long before they are taken in: until then nobody knows that a target is quiet.
    pub fn set_gathering(&mut self, longest: Duration) {
        self.waits.next = micros(longest);
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
        let at = self.clock.see(now, segment.at);
        self.on_client_segment(now, ClientSegment { at, ..segment });
    }

    /// Takes a segment from the live server to a client, captured at `at`. Only its header
    /// counts.
    fn live_segment(&mut self, now: Time, at: Time, packet: &TcpPacket<'_>) {
        self.stats.live_segments += 1;
        let at = self.clock.see(now, at);
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
        self.on_target_segment(now, flow, header, &[], payload_len);
    }

    /// As [`Engine::target_header`], with the payload of the segment, as far as it was carried here: what a conversation wants
    /// to hear counts as received only if all of it was.
    pub fn target_segment(
        &mut self,
        now: Time,
        flow: FlowRef,
        header: &TcpHeader,
        payload: &[u8],
        payload_len: u32,
    ) {
        self.stats.target_headers += 1;
        self.on_target_segment(now, flow, header, payload, payload_len);
    }

    /// Does whatever is due. To be called when [`Engine::poll_timeout`] says so; calling it more
    /// often does no harm.
    pub fn timeout(&mut self, now: Time) {
        if self.listening.judged_at <= now {
            self.judge_silence(now);
        }
        // What is armed again for a time that has come already waits for the next call: a fault
        // in one deadline must not keep everybody else waiting.
        for _ in 0..self.sessions.all.deadlines() {
            let Some((time, key)) = self.sessions.all.pop_due(self.clock.now(now)) else {
                break;
            };
            self.on_session_timer(now, time, key);
        }
        for _ in 0..self.replicas.all.deadlines() {
            let Some((time, key)) = self.replicas.all.pop_due(now) else {
                break;
            };
            self.on_replica_timer(now, time, key);
        }
        self.sessions.all.sweep();
        self.replicas.all.sweep();
        if self.ways.resume_at() <= now {
            self.resume_waiting(now);
        }
    }

    /// When [`Engine::timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        // Those of a recording's sessions come with its segments.
        let sessions = match self.clock.is_recorded() {
            true => Time::NEVER,
            false => self.sessions.all.next_deadline(),
        };
        let next = sessions
            .min(self.replicas.all.next_deadline())
            .min(self.listening.judged_at)
            .min(self.ways.resume_at());
        // While nothing may be sent, what is ready waits for the bandwidth.
        let next = match self.replicas.first_ready() {
            None => next,
            Some(_) => next.min(self.shaper.sends_at()),
        };
        (next != Time::NEVER).then_some(next)
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is told next of sampled sessions ([`Config::sampled`]), oldest first.
    pub fn poll_told(&mut self) -> Option<Told> {
        self.tales.poll()
    }

    /// Says whether answers of targets can reach the engine. While they cannot, new replicas are
    /// held back; when they can again, everything outstanding is tried again soon.
    pub fn set_open(&mut self, now: Time, open: bool) {
        if open == self.ways.is_open() {
            return;
        }
        self.ways.set_open(open);
        if open {
            self.path_restored(now, |_| true);
            self.resume_waiting(now);
        } else {
            self.forget_silence(now);
        }
    }

    /// Says whether answers of targets can reach the engine: see [`Engine::set_open`].
    pub const fn is_open(&self) -> bool {
        self.ways.is_open()
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
        if let Some(state) = self.ways.get_mut(way) {
            // What is misdirected is misdirected for good.
            if state.refused == Some(RefusalReason::Misdirected) {
                return;
            }
            state.set_open(now, open);
            if open {
                state.refused = None;
                self.end_silence(now, way);
                self.resume_waiting(now);
            }
        }
    }

    /// Whether replicas may begin towards any target: see [`Engine::set_target_open`].
    pub fn is_any_target_open(&self) -> bool {
        self.ways.is_any_open()
    }

    /// From now on no new session is begun; the others go on.
    pub fn drain(&mut self) {
        self.admission.drain();
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
        self.replicas.flows()
    }

    /// Whether a replica's target has answered its SYN.
    pub fn is_connected(&self, key: ReplicaKey) -> bool {
        let replica = self.replicas.get(key);
        replica.is_some_and(|replica| !replica.is_waiting() && !replica.is_connecting())
    }

    /// The flow of a replica, if it still exists.
    pub fn flow(&self, key: ReplicaKey) -> Option<FourTuple> {
        self.replicas.flow(key)
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
            sessions: self.sessions.all.len(),
            sessions_copied: self.sessions.copied(),
            sessions_busy: self.sessions.busy(),
            replicas: self.replicas.all.len(),
            replicas_lingering: self.replicas.lingering(),
            replicas_connecting: self.replicas.connecting(),
            replicas_waiting: self.replicas.held_back(),
            memory: self.memory(),
            backlog: self.backlog(),
        }
    }

    /// Bytes that targets have not taken yet.
    fn backlog(&self) -> u64 {
        self.sessions.backlog() + self.replicas.backlog()
    }

    /// Memory in use, in bytes.
    fn memory(&self) -> u64 {
        let tables = self.sessions.memory() + self.replicas.memory() + self.evidence.memory();
        (self.pool.memory() + tables + self.overheard.memory() + self.tales.memory()) as u64
    }
}

fn micros(span: Duration) -> u16 {
    u16::try_from(span.as_micros()).unwrap_or(u16::MAX)
}

fn without_payload<'a>(packet: &TcpPacket<'a>) -> TcpPacket<'a> {
    TcpPacket {
        payload: &[],
        payload_len: 0,
        ..*packet
    }
}
