//! Whatever clients, live servers, targets and interceptors say, in whatever order and at
//! whatever time: no panic, bounded memory, bounded answers, no busy timers, and in the end
//! nothing is left.
#![allow(
    missing_docs,
    unused_crate_dependencies,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod sim;

use std::collections::HashMap;
use std::time::Duration;

use millrace_engine::{
    Config, Engine, Event, FlowRef, LiveAddress, ReplicaKey, SendFailure, Service, SourcePool,
    TargetSilence, Time,
};
use millrace_wire::{
    Endpoint, Flags, FourTuple, Mptcp, SackBlocks, Seq, TcpHeader, TcpOptions, TcpPacket,
};
use proptest::prelude::*;
use sim::{LIVE, START, TARGET, client, config, v4};

const MEMORY: u64 = 400_000;
/// What one input may add before it is noticed: the largest packet, and the blocks that hold it.
const SLACK: u64 = 80_000;
const IDLE: Duration = Duration::from_secs(300);

/// A number of a header: near what the other side expects, or anywhere.
#[derive(Clone, Copy, Debug)]
enum Number {
    Near(i32),
    Any(u32),
}

impl Number {
    fn of(self, expected: Seq) -> Seq {
        match self {
            Self::Near(distance) => expected.add(distance as u32),
            Self::Any(number) => Seq(number),
        }
    }
}

/// What a segment of any side is made of.
#[derive(Clone, Debug)]
struct Segment {
    seq: Number,
    ack: Number,
    flags: u8,
    len: usize,
    /// Bytes that capture has cut off.
    cut: usize,
    window: u16,
    options: TcpOptions,
}

#[derive(Clone, Debug)]
enum Input {
    Client(u8, Segment),
    Live(u8, Segment),
    /// A header to one of the flows that are open, or that once were, so many times over.
    Target(usize, Segment, u8),
    /// A header under any number or for any tuple.
    Stranger(u64, u16, Segment),
    /// Time goes on by microseconds.
    Later(u64),
    /// Or back: a clock was set.
    Earlier(u64),
    /// The last packets could not be sent.
    Refused(u8, bool, usize),
    Open(bool),
    Conflict(usize),
}

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        6 => Just(Number::Near(0)),
        4 => (-2000i32..5000).prop_map(Number::Near),
        1 => any::<i32>().prop_map(Number::Near),
        1 => any::<u32>().prop_map(Number::Any),
    ]
}

fn flags() -> impl Strategy<Value = u8> {
    let ack = Flags::ACK.0;
    prop_oneof![
        12 => Just(ack),
        3 => Just(ack | Flags::FIN.0),
        1 => Just(Flags::RST.0),
        1 => Just(ack | Flags::RST.0),
        2 => Just(ack | Flags::SYN.0),
        2 => Just(Flags::SYN.0),
        1 => any::<u8>(),
    ]
}

fn mptcp() -> impl Strategy<Value = Option<Mptcp>> {
    prop_oneof![
        8 => Just(None),
        1 => Just(Some(Mptcp::Capable { version: 1, key: Some(0) })),
        // Of the key 0.
        1 => Just(Some(Mptcp::Join(Some(0xaf55_70f5)))),
        1 => Just(Some(Mptcp::Other)),
    ]
}

fn options() -> impl Strategy<Value = TcpOptions> {
    let blocks = proptest::collection::vec((any::<u32>(), 0..20_000u32), 0..4);
    let timestamps = proptest::option::of((any::<u32>(), any::<u32>()));
    (
        proptest::option::of(any::<u16>()),
        proptest::option::of(any::<u8>()),
        any::<bool>(),
        timestamps,
        blocks,
        mptcp(),
    )
        .prop_map(
            |(mss, window_scale, sack_permitted, timestamps, blocks, mptcp)| {
                let mut sack = SackBlocks::default();
                for (left, len) in blocks {
                    sack.push(Seq(left), Seq(left).add(len));
                }
                TcpOptions {
                    mss,
                    window_scale,
                    sack_permitted,
                    timestamps,
                    sack,
                    mptcp,
                }
            },
        )
}

fn segment() -> impl Strategy<Value = Segment> {
    let len = prop_oneof![4 => Just(0), 4 => 1..3000usize, 1 => 0..70_000usize];
    let cut = prop_oneof![9 => Just(0), 1 => 0..3000usize];
    let window = prop_oneof![Just(u16::MAX), Just(0), any::<u16>()];
    (number(), number(), flags(), len, cut, window, options()).prop_map(
        |(seq, ack, flags, len, cut, window, options)| Segment {
            seq,
            ack,
            flags,
            len,
            cut,
            window,
            options,
        },
    )
}

fn input() -> impl Strategy<Value = Input> {
    let later = prop_oneof![
        6 => 0..5000u64,
        3 => 0..2_000_000u64,
        1 => 0..400_000_000u64,
    ];
    prop_oneof![
        12 => (0..6u8, segment()).prop_map(|(who, s)| Input::Client(who, s)),
        6 => (0..6u8, segment()).prop_map(|(who, s)| Input::Live(who, s)),
        14 => (any::<prop::sample::Index>(), segment(), prop_oneof![3 => Just(1u8), 1 => 2..6u8])
            .prop_map(|(i, s, times)| Input::Target(i.index(1 << 16), s, times)),
        1 => (any::<u64>(), any::<u16>(), segment())
            .prop_map(|(id, port, s)| Input::Stranger(id, port, s)),
        8 => later.prop_map(Input::Later),
        1 => (0..3_000_000u64).prop_map(Input::Earlier),
        1 => (any::<u8>(), any::<bool>(), 0..70_000usize)
            .prop_map(|(n, long, len)| Input::Refused(n, long, len)),
        1 => prop::bool::weighted(0.8).prop_map(Input::Open),
        1 => (any::<prop::sample::Index>()).prop_map(|i| Input::Conflict(i.index(1 << 16))),
    ]
}

fn settings() -> impl Strategy<Value = Config> {
    (
        1..4u16,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        600..9000u16,
    )
        .prop_map(|(replicas, gate, only_from_syn, pool, max_packet)| {
            let mut config = Config {
                intensity: millrace_engine::Intensity::replicas(replicas),
                gate,
                only_from_syn,
                max_packet,
                memory_limit: MEMORY,
                answer_timeout: Duration::from_secs(20),
                idle_timeout: IDLE,
                ..config()
            };
            config.services.push(Service {
                live: LiveAddress::At(LIVE.ip),
                live_port: 443,
                target: Endpoint::new(v4(21), 9443),
            });
            if pool {
                config.sources = SourcePool::Ranges(vec![(v4(100), v4(100))]);
            }
            config
        })
}

/// What is known of one side of a connection: the next numbers of it and of its peer.
#[derive(Clone, Copy, Default)]
struct Expected {
    seq: Seq,
    ack: Seq,
}

struct Siege {
    engine: Engine,
    now: Time,
    clients: HashMap<u8, Expected>,
    /// All flows that were ever opened, in order, and what their targets may know.
    flows: Vec<(ReplicaKey, FourTuple)>,
    expected: HashMap<ReplicaKey, Expected>,
    open_flows: HashMap<ReplicaKey, FourTuple>,
    last_sent: Vec<ReplicaKey>,
}

impl Siege {
    fn new(config: Config) -> Self {
        let mut engine = Engine::new(config);
        engine.set_open(START, true);
        Self {
            engine,
            now: START,
            clients: HashMap::new(),
            flows: Vec::new(),
            expected: HashMap::new(),
            open_flows: HashMap::new(),
            last_sent: Vec::new(),
        }
    }

    /// Six connections: three clients, two services.
    fn tuple(who: u8) -> FourTuple {
        let service = Endpoint::new(
            LIVE.ip,
            if who.is_multiple_of(2) {
                LIVE.port
            } else {
                443
            },
        );
        FourTuple::new(client(1000 + u16::from(who / 2)), service)
    }

    fn take(&mut self, input: &Input) {
        match input {
            Input::Client(who, segment) => self.captured(*who, segment, true),
            Input::Live(who, segment) => self.captured(*who, segment, false),
            Input::Target(index, segment, times) => {
                if !self.flows.is_empty() {
                    let (key, tuple) = self.flows[index % self.flows.len()];
                    let expected = self.expected.get(&key).copied().unwrap_or_default();
                    let mut header = header(segment, expected.seq, expected.ack);
                    header.options.sack = near(&segment.options.sack, header.ack);
                    let flow = if index.is_multiple_of(2) {
                        FlowRef::Id(key.flow_id())
                    } else {
                        FlowRef::Tuple(tuple)
                    };
                    let entry = self.expected.entry(key).or_default();
                    entry.seq = header.seq.add(advance(segment));
                    let len = segment.len as u32;
                    for _ in 0..*times {
                        self.engine.target_header(self.now, flow, &header, len);
                    }
                }
            }
            Input::Stranger(id, port, segment) => {
                let header = header(segment, Seq(0), Seq(0));
                let len = u32::MAX - segment.len as u32;
                self.engine
                    .target_header(self.now, FlowRef::Id(*id), &header, len);
                let tuple = FourTuple::new(client(*port), TARGET);
                self.engine
                    .target_header(self.now, FlowRef::Tuple(tuple), &header, len);
            }
            Input::Later(micros) => self.pass(Duration::from_micros(*micros)),
            Input::Earlier(micros) => self.now = self.now - Duration::from_micros(*micros),
            Input::Refused(count, long, len) => {
                let failure = if *long {
                    SendFailure::TooLong
                } else {
                    SendFailure::Lost
                };
                for key in self.last_sent.clone().iter().take(usize::from(*count)) {
                    self.engine.send_failed(*key, failure, *len);
                }
            }
            Input::Open(open) => self.engine.set_open(self.now, *open),
            Input::Conflict(index) => {
                if !self.flows.is_empty() {
                    let (key, _) = self.flows[index % self.flows.len()];
                    self.engine.flow_conflict(self.now, key);
                }
            }
        }
        self.pump();
    }

    fn captured(&mut self, who: u8, segment: &Segment, from_client: bool) {
        let expected = self.clients.entry(who).or_insert(Expected {
            seq: Seq(u32::MAX - 1000),
            ack: Seq(500),
        });
        let mut header = if from_client {
            header(segment, expected.seq, expected.ack)
        } else {
            header(segment, expected.ack, expected.seq)
        };
        header.options = TcpOptions::default();
        if from_client {
            expected.seq = header.seq.add(advance(segment));
        } else {
            expected.ack = header.seq.add(advance(segment));
        }
        let data = vec![who; segment.len];
        let tuple = Self::tuple(who);
        let kept = segment.len.saturating_sub(segment.cut);
        let packet = TcpPacket {
            tuple: if from_client { tuple } else { tuple.reversed() },
            header,
            payload: if from_client { &data[..kept] } else { &[] },
            payload_len: segment.len,
        };
        // Captured a little before now, or (clocks differ) after it.
        let at = self.now + Duration::from_micros(u64::from(header.seq.0 % 100))
            - Duration::from_micros(50);
        self.engine.segment(self.now, at, &packet);
    }

    /// Lets time pass, the engine's timers on time.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        let mut per_second: HashMap<u64, u32> = HashMap::new();
        while let Some(next) = self.engine.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            let calls = per_second
                .entry(self.now.as_micros() / 1_000_000)
                .or_default();
            *calls += 1;
            assert!(*calls < 3000, "a busy timer at {:?}", self.now);
            self.engine.timeout(self.now);
            self.pump();
        }
        self.now = self.now.max(end);
    }

    /// Takes what the engine puts out, and checks its bounds.
    fn pump(&mut self) {
        self.last_sent.clear();
        let mut packets = 0;
        while let Some(transmit) = self.engine.poll_transmit(self.now) {
            packets += 1;
            assert!(packets < 30_000, "no end of packets");
            let room = 65_535 - 60 - 40;
            assert!(transmit.payload_len() <= room);
            let syn = transmit.header.flags.has(Flags::SYN);
            assert!(!syn || transmit.payload_len() == 0);
            let len = transmit.payload_len() as u32 + u32::from(syn);
            let end = transmit.header.seq.add(len);
            let entry = self.expected.entry(transmit.key).or_insert(Expected {
                seq: Seq(77_000),
                ack: end,
            });
            entry.ack = end;
            if self.last_sent.len() < 256 {
                self.last_sent.push(transmit.key);
            }
        }
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::TargetSilent(TargetSilence { service, .. }) => {
                    self.engine.tolerate_silence(service);
                    self.engine.set_target_open(self.now, service, true);
                }
                Event::Misdirected { .. }
                | Event::ConversationFailed { .. }
                | Event::HeardEnough { .. } => {}
                Event::FlowOpened { key, tuple } => {
                    self.flows.push((key, tuple));
                    self.open_flows.insert(key, tuple);
                }
                Event::FlowClosed { key } => {
                    self.open_flows.remove(&key).expect("it was open");
                }
            }
        }
        let gauges = self.engine.gauges();
        assert!(gauges.memory <= MEMORY + SLACK, "{gauges:?}");
        assert_eq!(gauges.replicas, self.open_flows.len());
    }

    /// Everybody falls silent: in the end nothing is left, and it was all counted.
    fn end(&mut self) {
        self.engine.set_open(self.now, true);
        self.pump();
        self.pass(IDLE * 4);
        let gauges = self.engine.gauges();
        assert_eq!((gauges.sessions, gauges.replicas), (0, 0), "{gauges:?}");
        assert_eq!((gauges.memory, gauges.backlog), (0, 0), "{gauges:?}");
        assert_eq!(gauges.replicas_waiting, 0);
        self.pass(Duration::from_secs(100));
        assert_eq!(self.engine.poll_timeout(), None);
        assert!(self.open_flows.is_empty());
        let stats = self.engine.stats();
        assert_eq!(stats.sessions_ended, stats.sessions_captured);
        assert_eq!(
            stats.replicas_opened,
            stats.replicas_completed + stats.replicas_aborted.total()
        );
        let replicas = self.engine.config().intensity.as_ratio() as u64;
        assert!(stats.bytes_delivered <= stats.bytes_captured * replicas);
    }
}

fn header(segment: &Segment, seq: Seq, ack: Seq) -> TcpHeader {
    TcpHeader {
        seq: segment.seq.of(seq),
        ack: segment.ack.of(ack),
        flags: Flags(segment.flags),
        window: segment.window,
        urgent: 0,
        options: segment.options,
    }
}

/// The blocks moved to where they may mean something: behind an acknowledgement.
fn near(blocks: &SackBlocks, ack: Seq) -> SackBlocks {
    let mut moved = SackBlocks::default();
    for (left, right) in blocks.as_slice() {
        let start = ack.add(left.0 % 20_000);
        moved.push(start, start.add(right.since(*left) as u32));
    }
    moved
}

/// By how much a segment moves its side's sequence numbers.
fn advance(segment: &Segment) -> u32 {
    let flags = Flags(segment.flags);
    segment.len as u32 + u32::from(flags.has(Flags::SYN)) + u32::from(flags.has(Flags::FIN))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 3000, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_inputs_breaks_the_engine(
        settings in settings(),
        inputs in proptest::collection::vec(input(), 1..250),
        drain in proptest::option::weighted(0.3, 0..250usize),
        shutdown in proptest::option::weighted(0.3, 0..250usize),
    ) {
        let mut siege = Siege::new(settings);
        for (number, input) in inputs.iter().enumerate() {
            if drain == Some(number) {
                siege.engine.drain();
            }
            if shutdown == Some(number) {
                siege.engine.shutdown(siege.now);
                siege.pump();
            }
            siege.take(input);
        }
        siege.end();
    }

    #[test]
    fn no_target_breaks_an_established_connection(
        settings in settings(),
        options in options(),
        inputs in proptest::collection::vec(input(), 1..150),
    ) {
        // As above, but it begins well: handshakes on both sides, a first turn under way.
        let plain = |flags: Flags, len| Segment {
            seq: Number::Near(0),
            ack: Number::Near(0),
            flags: flags.0,
            len,
            cut: 0,
            window: u16::MAX,
            options,
        };
        let mut siege = Siege::new(settings);
        for who in 0..2 {
            siege.take(&Input::Client(who, plain(Flags::SYN, 0)));
            siege.take(&Input::Live(who, plain(Flags::SYN | Flags::ACK, 0)));
            siege.take(&Input::Client(who, plain(Flags::ACK, 0)));
            siege.take(&Input::Client(who, plain(Flags::ACK, 20_000)));
        }
        for flow in 0..siege.flows.len() {
            siege.take(&Input::Target(flow, plain(Flags::SYN | Flags::ACK, 0), 1));
        }
        prop_assert!(siege.engine.stats().replicas_established > 0);
        for input in &inputs {
            siege.take(input);
        }
        siege.end();
    }
}
