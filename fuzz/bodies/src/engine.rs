//! The way from capture through the engine: frames, segments, response headers and time, in any order.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use millrace_engine::{
    Caps, Config, Engine, Event, FlowRef, Intensity, LiveAddress, SendFailure, Service, Share,
    SourcePool, TargetSilence, Time,
};
use millrace_protocols::writes::{Rules, WriteGuard};
use millrace_protocols::{Accounts, Kind, Midway, Settings, http};
use millrace_wire::{
    Decoder, Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpOptions, TcpPacket, Verify,
};

use crate::flows::{Connection, FIRST_OF_CLIENT, FIRST_OF_LIVE, FIRST_OF_TARGET, Flow, near};
use crate::input::Input;

/// Small, so that a short input meets it.
const MEMORY_LIMIT: u64 = 1 << 20;
/// How far beyond the limit memory may go: the largest segment, blocks that are begun, and the replicas of
/// sessions that were let in just below the limit.
const OVERSHOOT: u64 = 256 << 10;
/// Packets in answer to one input: all that the memory limit can hold, in the smallest segments that are ever
/// sent, to each of three replicas.
const MOST_PACKETS: usize = 3 * (MEMORY_LIMIT as usize) / 64;
/// Steps of time in which everything must have ended.
const MOST_STEPS: usize = 100_000;

const fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, last))
}

const fn v6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last))
}

const LIVE: [Endpoint; 2] = [Endpoint::new(v4(10), 80), Endpoint::new(v6(10), 80)];
const TARGET: [Endpoint; 2] = [Endpoint::new(v4(20), 8080), Endpoint::new(v6(20), 8080)];
const PAYLOAD: [u8; 4096] = [0x5a; 4096];

/// Plays an input to an engine with little memory.
///
/// Three bytes choose the configuration; then come steps: what happens 1, and its details. Numbers of segments
/// are relative to what the ends of the connection have sent, so that mutation finds its way into states that
/// only plausible segments reach; step 0 feeds raw frames.
pub fn capture_to_engine(data: &[u8]) {
    let mut input = Input::new(data);
    Player::new(&mut input, None).play(input);
}

/// Plays an input to an engine whose replicas protocol modules play.
///
/// A byte chooses the module; four bytes are the lengths of what clients and servers say, again and again, which follows; the
/// rest is as in [`capture_to_engine`].
pub fn protocol_modules(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = usize::from(input.u8()) % Kind::ALL.len();
    let (clients, targets) = (usize::from(input.u16()), usize::from(input.u16()));
    let words = Words {
        kind,
        of_clients: Words::again_and_again(input.bytes(clients)),
        of_targets: Words::again_and_again(input.bytes(targets)),
    };
    Player::new(&mut input, Some(words)).play(input);
}

/// What the ends of connections say, where modules understand it.
struct Words {
    /// Whose words they are, in [`Kind::ALL`].
    kind: usize,
    of_clients: Vec<u8>,
    of_targets: Vec<u8>,
}

impl Words {
    /// As much as a segment holds, from wherever in it.
    fn again_and_again(text: &[u8]) -> Vec<u8> {
        let text = if text.is_empty() { &[0][..] } else { text };
        let len = text.len() + PAYLOAD.len();
        text.iter().cycle().take(len).copied().collect()
    }

    /// The bytes that have these numbers, of a stream whose SYN had the number `syn`.
    fn at(words: &[u8], syn: Seq, seq: Seq, len: usize) -> &[u8] {
        let period = (words.len() - PAYLOAD.len()).max(1);
        let from = seq.0.wrapping_sub(syn.0).wrapping_sub(1) as usize % period;
        words.get(from..from + len).unwrap_or(&[])
    }
}

struct Player {
    /// Protocol modules play the replicas.
    words: Option<Words>,
    engine: Engine,
    decoder: Decoder,
    now: Time,
    connections: [Connection; 6],
    flows: Vec<Flow>,
}

impl Player {
    fn play(mut self, mut input: Input<'_>) {
        while !input.is_empty() {
            self.step(&mut input);
            self.check();
        }
        self.finish();
    }

    fn new(input: &mut Input<'_>, words: Option<Words>) -> Self {
        let now = Time::from_micros(1_700_000_000_000_000);
        let config = config(input);
        let services = config.services.len();
        let mut engine = Engine::new(config);
        if let Some(words) = &words {
            let accounts = Accounts::parse("default@right\napp@two words").unwrap_or_default();
            let rules = Rules {
                read_only: true,
                ..Rules::default()
            };
            let settings = Settings {
                accounts: Arc::new(accounts),
                http: http::Settings::parse(http::EXAMPLE).unwrap_or_default(),
                midway: Midway {
                    user: Some("app".to_owned()),
                    database: None,
                },
                guard: WriteGuard::new(Arc::new(rules), Arc::default()),
            };
            for service in 0..services {
                if let Some(kind) = Kind::ALL.get(words.kind) {
                    engine.set_protocol(service, kind.module(&settings));
                }
            }
        }
        engine.set_open(now, input.u8() % 4 != 3);
        let [live4, live6] = LIVE;
        let loopback = Endpoint::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 80);
        let client = |ip, port, live| Connection::new(Endpoint::new(ip, port), live);
        Self {
            words,
            engine,
            decoder: Decoder::new(),
            now,
            connections: [
                client(v4(1), 40_000, live4),
                client(v4(1), 40_001, live4),
                client(v4(2), 40_000, live4),
                client(v6(1), 40_000, live6),
                client(v6(2), 40_000, live6),
                client(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000, loopback),
            ],
            flows: Vec::new(),
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => self.frame(input),
            1 => self.segment(input, true),
            2 => self.segment(input, false),
            3 => self.response(input),
            4 => self.polite_response(input),
            5 => self.pass(Duration::from_micros(
                u64::from(input.u16()) << (input.u8() % 16),
            )),
            6 => self.next_timeout(),
            _ => self.control(input),
        }
        self.drain();
    }

    /// A captured frame, as it is.
    fn frame(&mut self, input: &mut Input<'_>) {
        let link = input.link();
        let len = usize::from(input.u16());
        let frame = input.bytes(len);
        let nanos = self.now.as_micros().saturating_mul(1000);
        let decoded = self
            .decoder
            .decode(nanos, link, frame, len, Verify::Nothing);
        if let Ok(packet) = decoded {
            self.engine.segment(self.now, self.now, &packet);
        }
    }

    /// A segment between client and live server.
    fn segment(&mut self, input: &mut Input<'_>, from_client: bool) {
        let count = self.connections.len();
        let index = usize::from(input.u8()) % count;
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        let flags = Flags(input.u8());
        let (here, there) = if from_client {
            (&mut connection.client, connection.live)
        } else {
            (&mut connection.live, connection.client)
        };
        let seq = near(*here, input.delta());
        let ack = near(there, input.delta());
        let len = usize::from(input.u16()) % PAYLOAD.len();
        let control = u32::from(flags.has(Flags::SYN)) + u32::from(flags.has(Flags::FIN));
        let end = seq.add(len as u32 + control);
        if flags.has(Flags::SYN) || end.after(*here) {
            *here = end;
        }
        let tuple = if from_client {
            connection.tuple
        } else {
            connection.tuple.reversed()
        };
        let payload = match (&self.words, from_client) {
            (Some(words), true) => Words::at(&words.of_clients, FIRST_OF_CLIENT, seq, len),
            (Some(words), false) => Words::at(&words.of_targets, FIRST_OF_LIVE, seq, len),
            (None, true) => PAYLOAD.get(..len).unwrap_or(&[]),
            (None, false) => &[],
        };
        let packet = TcpPacket {
            tuple,
            header: TcpHeader {
                seq,
                ack,
                flags,
                window: 65_000,
                ..TcpHeader::default()
            },
            payload,
            payload_len: len,
        };
        self.engine.segment(self.now, self.now, &packet);
    }

    /// A response header with anything in it.
    fn response(&mut self, input: &mut Input<'_>) {
        let which = usize::from(input.u8());
        let shape = input.u8();
        let (seq, ack) = (input.delta(), input.delta());
        let mut header = TcpHeader {
            flags: Flags(input.u8()),
            window: input.u16(),
            ..TcpHeader::default()
        };
        let len = u32::from(input.u16()) << (shape >> 5);
        let Some(flow) = self.flow(which) else {
            let nobody = FourTuple::new(TARGET[1], TARGET[0]);
            return self
                .engine
                .target_header(self.now, FlowRef::Tuple(nobody), &header, len);
        };
        header.seq = near(flow.next, seq * if shape & 1 == 0 { 1 } else { 10_000_000 });
        header.ack = near(flow.sent, ack * if shape & 2 == 0 { 1 } else { 10_000_000 });
        header.options = options(input, shape, header.ack);
        let reference = if shape & 16 == 0 {
            FlowRef::Tuple(flow.tuple)
        } else {
            FlowRef::Id(flow.key.flow_id())
        };
        self.engine.target_header(self.now, reference, &header, len);
    }

    /// What a well-behaved target would answer.
    fn polite_response(&mut self, input: &mut Input<'_>) {
        let which = usize::from(input.u8());
        let what = input.u8();
        let len = u32::from(input.u8()) * 16;
        let now = self.now;
        let Some(flow) = self.flow(which) else {
            return;
        };
        let mut header = TcpHeader {
            seq: flow.next,
            ack: flow.sent,
            flags: Flags::ACK,
            window: 0xffff,
            ..TcpHeader::default()
        };
        header.options.timestamps = flow.timestamp.map(|echo| (now.as_micros() as u32, echo));
        let (mut payload, first) = (0, flow.next);
        if flow.opening {
            header.flags = Flags::SYN | Flags::ACK;
            header.options.mss = Some(if what & 1 == 0 { 1460 } else { 200 });
            header.options.window_scale = (what & 2 == 0).then_some(7);
            header.options.sack_permitted = what & 4 == 0;
            flow.next = flow.next.add(1);
        } else {
            payload = len;
            flow.next = flow.next.add(len);
            if what & 8 != 0 {
                header.flags = header.flags | Flags::FIN;
                flow.next = flow.next.add(1);
            }
        }
        let reference = FlowRef::Id(flow.key.flow_id());
        let carried = match &self.words {
            Some(words) if what & 16 == 0 => {
                Words::at(&words.of_targets, FIRST_OF_TARGET, first, payload as usize)
            }
            Some(_) | None => &[],
        };
        self.engine
            .target_segment(now, reference, &header, carried, payload);
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..64 {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) else {
                break;
            };
            self.now = self.now.max(due);
            self.engine.timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn next_timeout(&mut self) {
        if let Some(due) = self.engine.poll_timeout() {
            self.now = self.now.max(due);
            self.engine.timeout(self.now);
        }
    }

    fn control(&mut self, input: &mut Input<'_>) {
        match input.u8() % 8 {
            0 => self.engine.set_open(self.now, false),
            1 => self.engine.drain(),
            2 => self.engine.shutdown(self.now),
            3 | 4 => {
                let len = usize::from(input.u16());
                let failure = if len.is_multiple_of(2) {
                    SendFailure::TooLong
                } else {
                    SendFailure::Lost
                };
                let which = usize::from(input.u8());
                if let Some(key) = self.flow(which).map(|flow| flow.key) {
                    self.engine.send_failed(key, failure, len);
                }
            }
            _ => self.engine.set_open(self.now, true),
        }
    }

    /// One of the flows, if there is any.
    fn flow(&mut self, which: usize) -> Option<&mut Flow> {
        let count = self.flows.len().max(1);
        self.flows.get_mut(which % count)
    }

    /// Takes all that comes out.
    fn drain(&mut self) {
        let mut packets = 0;
        self.events();
        while let Some(packet) = self.engine.poll_transmit(self.now) {
            packets += 1;
            assert!(packets <= MOST_PACKETS, "packets without end");
            assert!(
                TARGET.contains(&packet.tuple.destination),
                "a packet to {} goes to no target",
                packet.tuple.destination
            );
            assert!(
                packet.payload_len() <= 65_535,
                "a packet that cannot be sent"
            );
            let flow = self.flows.iter_mut().find(|flow| flow.key == packet.key);
            if let Some(flow) = flow {
                flow.receive(&packet);
            }
        }
        self.events();
    }

    fn events(&mut self) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::FlowOpened { key, tuple } => self.flows.push(Flow::new(key, tuple)),
                Event::TargetSilent(TargetSilence { service, .. }) => {
                    self.engine.tolerate_silence(service);
                    self.engine.set_target_open(self.now, service, true);
                }
                Event::Misdirected { .. }
                | Event::ConversationFailed { .. }
                | Event::HeardEnough { .. } => {}
                Event::FlowClosed { key } => {
                    let before = self.flows.len();
                    self.flows.retain(|flow| flow.key != key);
                    assert_eq!(
                        self.flows.len() + 1,
                        before,
                        "closed once, and only if open"
                    );
                }
            }
        }
    }

    fn check(&self) {
        let gauges = self.engine.gauges();
        assert!(
            gauges.memory <= MEMORY_LIMIT + OVERSHOOT,
            "memory limit: {gauges:?}"
        );
        assert_eq!(gauges.replicas, self.flows.len(), "announced flows");
    }

    /// An interceptor is there, but nobody says anything any more: everything ends by itself.
    fn finish(mut self) {
        self.engine.drain();
        self.engine.set_open(self.now, true);
        self.drain();
        let mut steps = 0;
        while self.engine.poll_timeout().is_some() {
            self.next_timeout();
            self.drain();
            steps += 1;
            assert!(steps < MOST_STEPS, "never ends: {:?}", self.engine.gauges());
        }
        let gauges = self.engine.gauges();
        assert_eq!(
            (gauges.sessions, gauges.replicas, gauges.replicas_waiting),
            (0, 0, 0),
            "left over: {gauges:?}"
        );
        assert_eq!(
            (gauges.memory, gauges.backlog),
            (0, 0),
            "memory: {gauges:?}"
        );
        let stats = self.engine.stats();
        assert_eq!(
            stats.replicas_opened,
            stats.replicas_completed + stats.replicas_aborted.total(),
            "every replica has one outcome, but {} are complete and {:?} aborted",
            stats.replicas_completed,
            stats.replicas_aborted
        );
        assert!(
            stats.bytes_delivered <= stats.bytes_wanted,
            "{} bytes delivered of {} wanted",
            stats.bytes_delivered,
            stats.bytes_wanted
        );
        if self.words.is_some() {
            // Scripts have lengths of their own.
            return;
        }
        let most = self.engine.intensity().as_ratio().ceil() as u64;
        assert!(
            stats.bytes_wanted <= stats.bytes_captured * most,
            "{} bytes wanted of {} captured",
            stats.bytes_wanted,
            stats.bytes_captured
        );
    }
}

fn config(input: &mut Input<'_>) -> Config {
    let flags = input.u8();
    let sizes = input.u8();
    let [live4, live6] = LIVE;
    let [target4, target6] = TARGET;
    let service = |live, live_port, target| Service {
        live,
        live_port,
        target,
    };
    Config {
        services: vec![
            service(LiveAddress::At(live4.ip), live4.port, target4),
            service(LiveAddress::At(live6.ip), live6.port, target6),
            service(LiveAddress::Host, 80, target4),
        ],
        sources: if flags & 1 == 0 {
            SourcePool::Clients
        } else {
            SourcePool::Ranges(vec![(v4(100), v4(101)), (v6(100), v6(100))])
        },
        loopback_clients: if flags & 2 == 0 { vec![v4(99)] } else { vec![] },
        gate: flags & 4 == 0,
        only_from_syn: flags & 8 != 0,
        // Every session once at least, some of them up to three times.
        intensity: Intensity::from_ratio(1.0 + f64::from(flags >> 4) / 8.0),
        spread: Duration::from_millis(u64::from(flags >> 4) % 3 * 4),
        share: Share::new(1, u16::from(sizes >> 5) + 1),
        caps: Caps {
            open_sessions: (sizes & 8 != 0).then_some(3),
            bandwidth: (sizes & 0x48 == 0x48).then_some(20_000),
            ..Caps::default()
        },
        max_packet: [1500, 576, 1280, 9000, 65_535]
            .get(usize::from(sizes) % 8)
            .copied()
            .unwrap_or(1500),
        offered_mss: (sizes & 16 != 0).then_some(536),
        memory_limit: MEMORY_LIMIT,
        answer_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        seed: u64::from(sizes),
        ..Config::default()
    }
}

fn options(input: &mut Input<'_>, shape: u8, ack: Seq) -> TcpOptions {
    let mut options = TcpOptions::default();
    if shape & 4 != 0 {
        let which = input.u8();
        options.mss = (which & 1 != 0).then(|| input.u16());
        options.window_scale = (which & 2 != 0).then(|| input.u8() % 15);
        options.sack_permitted = which & 4 != 0;
        options.timestamps = (which & 8 != 0).then(|| (input.u32(), input.u32()));
    }
    if shape & 8 != 0 {
        for _ in 0..=input.u8() % 4 {
            let left = near(ack, input.delta() * 100);
            options.sack.push(left, near(left, input.delta() * 100));
        }
    }
    options
}
