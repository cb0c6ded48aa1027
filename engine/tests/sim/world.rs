//! Puts engine, network and targets together and lets time pass.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use millrace_engine::{
    Config, Engine, Event, FlowRef, Misdirection, ReplicaKey, SendFailure, TargetSilence, Time,
};
use millrace_wire::{Endpoint, FourTuple};

use super::rng::Rng;
use super::{Behaviour, Target};
use super::{Packet, START};

/// One direction of the network between copier and target.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    pub delay: Duration,
    /// Delay that is drawn anew for every packet, so that packets overtake each other.
    pub jitter: Duration,
    /// Percent of packets.
    pub loss: f64,
    pub duplication: f64,
}

impl Default for Link {
    fn default() -> Self {
        let delay = Duration::from_micros(300);
        Self {
            delay,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
        }
    }
}

enum What {
    Captured(Packet),
    ToTarget(Packet),
    ToCopier(Packet),
    Call(Box<dyn FnOnce(&mut World)>),
}

/// The byte of a target's answer at this offset.
pub const fn answer_byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

/// Length of a packet, headers of IP and TCP included.
fn packet_len(packet: &Packet) -> usize {
    let options = if packet.header.options.timestamps.is_some() {
        12
    } else {
        0
    };
    millrace_wire::build::headers_len(&packet.tuple.source.ip) + options + packet.payload_len
}

/// The whole simulated world.
pub struct World {
    pub engine: Engine,
    pub now: Time,
    pub to_target: Link,
    pub to_copier: Link,
    pub behaviour: Behaviour,
    /// Behaviour per client port, where it differs.
    pub behaviours: HashMap<u16, Behaviour>,
    /// Connections at the target in the order of their SYNs.
    pub targets: Vec<Target>,
    /// Packets that the engine sent, in order.
    pub sent: Vec<(Time, Packet)>,
    pub keep_sent: bool,
    /// Packets to the target that are dropped, by their number (from 0).
    pub drop_to_target: Vec<u64>,
    pub drop_to_copier: Vec<u64>,
    pub interceptor_up: bool,
    /// Percent of the answers whose payload is not carried.
    pub payloads_lost: f64,
    /// Conversations that could not go on, and why.
    pub failures: Vec<String>,
    /// Conversations that need no payload any more.
    pub heard_enough: usize,
    /// Flows whose answers reach nobody but the client, and how many did.
    pub astray: fn(&FourTuple) -> bool,
    pub leaked: u64,
    pub leaked_before_silence: u64,
    /// How often the target fell silent, when it did last, and after what time it is opened again.
    pub silences: u64,
    pub silent_at: Time,
    pub opened_after: Option<Duration>,
    /// Copies that came back as live traffic.
    pub misdirected: Vec<(Endpoint, Misdirection)>,
    /// Where answers seem to come from, in place of the target: its address was translated.
    pub answers_from: Option<Endpoint>,
    /// Packets that are longer than this, IP header included, are refused with EMSGSIZE.
    pub mtu: Option<usize>,
    /// So many packets from now on are refused for another reason (EPERM, ENOBUFS).
    pub refuse_sends: u64,
    /// How often the engine was woken.
    pub wakeups: u64,
    /// Flows that are open, as interceptors know them.
    pub flows: HashMap<ReplicaKey, FourTuple>,
    owners: HashMap<FourTuple, ReplicaKey>,
    counts: (u64, u64),
    by_flow: HashMap<FourTuple, usize>,
    queue: BTreeMap<(Time, u64), What>,
    order: u64,
    wakes: BinaryHeap<Reverse<(Time, usize)>>,
    rng: Rng,
}

impl World {
    pub fn new(config: Config, seed: u64) -> Self {
        let mut engine = Engine::new(config);
        engine.set_open(START, true);
        Self {
            engine,
            now: START,
            to_target: Link::default(),
            to_copier: Link::default(),
            behaviour: Behaviour::default(),
            behaviours: HashMap::new(),
            targets: Vec::new(),
            sent: Vec::new(),
            keep_sent: true,
            drop_to_target: Vec::new(),
            drop_to_copier: Vec::new(),
            interceptor_up: true,
            payloads_lost: 0.0,
            failures: Vec::new(),
            heard_enough: 0,
            astray: |_| false,
            leaked: 0,
            leaked_before_silence: 0,
            silences: 0,
            silent_at: START,
            opened_after: Some(Duration::from_millis(100)),
            misdirected: Vec::new(),
            answers_from: None,
            mtu: None,
            refuse_sends: 0,
            wakeups: 0,
            flows: HashMap::new(),
            owners: HashMap::new(),
            counts: (0, 0),
            by_flow: HashMap::new(),
            queue: BTreeMap::new(),
            order: 0,
            wakes: BinaryHeap::new(),
            rng: Rng::new(seed),
        }
    }

    pub fn capture(&mut self, packets: Vec<(Time, Packet)>) {
        for (time, packet) in packets {
            self.enqueue(time, What::Captured(packet));
        }
    }

    pub fn call(&mut self, when: Time, f: impl FnOnce(&mut World) + 'static) {
        self.enqueue(when, What::Call(Box::new(f)));
    }

    fn enqueue(&mut self, when: Time, what: What) {
        self.order += 1;
        self.queue.insert((when, self.order), what);
    }

    /// Lets time pass until nothing is left to happen or `span` is over.
    pub fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.flush();
            let next = [
                self.queue.first_key_value().map(|((time, _), _)| *time),
                self.engine.poll_timeout(),
                self.wakes.peek().map(|Reverse((time, _))| *time),
            ]
            .into_iter()
            .flatten()
            .min();
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let now = self.now;
        while self
            .queue
            .first_key_value()
            .is_some_and(|((time, _), _)| *time <= now)
        {
            match self.queue.pop_first().unwrap().1 {
                What::Captured(packet) => self.engine.segment(now, now, &packet.view()),
                What::ToTarget(packet) => self.arrive(packet),
                What::ToCopier(packet) => {
                    let len = packet.payload_len as u32;
                    let mut tuple = packet.tuple.reversed();
                    tuple.destination = self.answers_from.unwrap_or(tuple.destination);
                    let flow = FlowRef::Tuple(tuple);
                    if self.interceptor_up {
                        let payload = self.carried(&packet);
                        let header = &packet.header;
                        self.engine.target_segment(now, flow, header, &payload, len);
                    }
                }
                What::Call(f) => f(self),
            }
            self.flush();
        }
        if self.engine.poll_timeout().is_some_and(|time| time <= now) {
            self.wakeups += 1;
            self.engine.timeout(now);
        }
        while self
            .wakes
            .peek()
            .is_some_and(|Reverse((time, _))| *time <= now)
        {
            let Reverse((_, index)) = self.wakes.pop().unwrap();
            if self.targets[index]
                .deadline()
                .is_some_and(|time| time <= now)
            {
                self.targets[index].on_time(now);
            }
            self.after_target(index);
        }
    }

    /// The payload of an answer, as far as it is carried to the engine: byte by byte what [`answer_byte`] says.
    fn carried(&mut self, packet: &Packet) -> Vec<u8> {
        let flow = packet.tuple.reversed();
        let key = self.owners.get(&flow);
        if !key.is_some_and(|key| self.engine.wants_answers(*key))
            || self.rng.chance(self.payloads_lost)
        {
            return Vec::new();
        }
        let target = &self.targets[self.by_flow[&flow]];
        let first = packet.header.seq.since(target.isn().add(1)) as u64;
        (0..packet.payload_len as u64)
            .map(|at| answer_byte(first + at))
            .collect()
    }

    fn arrive(&mut self, packet: Packet) {
        let behaviours = &self.behaviours;
        let index = match self.by_flow.get(&packet.tuple) {
            // A SYN behind the end of a connection begins another one.
            Some(index)
                if !packet.header.flags.has(millrace_wire::Flags::SYN)
                    || self.targets[*index].ended == super::target::Ended::Open =>
            {
                *index
            }
            _ => {
                let port = packet.tuple.source.port;
                let behaviour = behaviours.get(&port).unwrap_or(&self.behaviour).clone();
                let target = Target::new(packet.tuple, behaviour);
                match self.by_flow.get(&packet.tuple) {
                    // A handshake that was called off was no connection.
                    Some(index) if !self.targets[*index].is_established() => {
                        self.targets[*index] = target;
                        *index
                    }
                    _ => {
                        self.targets.push(target);
                        self.by_flow.insert(packet.tuple, self.targets.len() - 1);
                        self.targets.len() - 1
                    }
                }
            }
        };
        self.targets[index].on_packet(self.now, &packet.header, &packet.payload);
        self.after_target(index);
    }

    fn after_target(&mut self, index: usize) {
        for packet in self.targets[index].take_output() {
            let number = self.counts.1;
            self.counts.1 += 1;
            if (self.astray)(&packet.tuple.reversed()) {
                self.leaked += 1;
            } else if !self.drop_to_copier.contains(&number) {
                self.carry(self.to_copier, packet, What::ToCopier);
            }
        }
        if let Some(deadline) = self.targets[index].deadline() {
            self.wakes.push(Reverse((deadline.max(self.now), index)));
        }
    }

    fn flush(&mut self) {
        while self.flush_once() {}
    }

    /// Sends what is there; says whether some of it was refused, which may lead to more.
    fn flush_once(&mut self) -> bool {
        let mut failed = Vec::new();
        while let Some(transmit) = self.engine.poll_transmit(self.now) {
            let payload = transmit.payload.concat();
            let payload_len = payload.len();
            let packet = Packet {
                tuple: transmit.tuple,
                header: transmit.header,
                payload,
                payload_len,
            };
            let len = packet_len(&packet);
            if self.mtu.is_some_and(|mtu| len > mtu) {
                failed.push((transmit.key, SendFailure::TooLong, len));
                continue;
            }
            if self.refuse_sends > 0 {
                self.refuse_sends -= 1;
                failed.push((transmit.key, SendFailure::Lost, len));
                continue;
            }
            if self.keep_sent {
                self.sent.push((self.now, packet.clone()));
            }
            let number = self.counts.0;
            self.counts.0 += 1;
            if !self.drop_to_target.contains(&number) {
                self.carry(self.to_target, packet, What::ToTarget);
            }
        }
        for (key, failure, len) in &failed {
            self.engine.send_failed(*key, *failure, *len);
        }
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::FlowOpened { key, tuple } => {
                    let owner = self.owners.insert(tuple, key);
                    assert_eq!(owner, None, "two replicas share {tuple:?}");
                    if let Some(before) = self.flows.insert(key, tuple) {
                        self.owners.remove(&before);
                    }
                }
                Event::TargetSilent(TargetSilence { service, .. }) => {
                    self.silences += 1;
                    self.silent_at = self.now;
                    self.leaked_before_silence = self.leaked;
                    if let Some(after) = self.opened_after {
                        self.call(self.now + after, move |world| {
                            let now = world.now;
                            let took = world.to_target.delay + world.to_copier.delay;
                            world.engine.note_round_trip(service, took);
                            world.engine.tolerate_silence(service);
                            world.engine.set_target_open(now, service, true);
                        });
                    }
                }
                Event::ConversationFailed { failure, .. } => self.failures.push(failure.text),
                Event::HeardEnough { key } => {
                    assert!(!self.engine.wants_answers(key));
                    self.heard_enough += 1;
                }
                Event::Misdirected {
                    target,
                    misdirection,
                } => self.misdirected.push((target, misdirection)),
                Event::FlowClosed { key } => {
                    let tuple = self.flows.remove(&key).expect("closed twice");
                    self.owners.remove(&tuple);
                }
            }
        }
        !failed.is_empty()
    }

    fn carry(&mut self, link: Link, packet: Packet, wrap: fn(Packet) -> What) {
        let copies = 1 + usize::from(self.rng.chance(link.duplication));
        for _ in 0..copies {
            if self.rng.chance(link.loss) {
                continue;
            }
            let jitter = link.jitter.as_micros() as u64;
            let jitter = Duration::from_micros(self.rng.between(0, jitter));
            self.enqueue(self.now + link.delay + jitter, wrap(packet.clone()));
        }
    }

    /// The target's application closes the connection from this client port.
    pub fn close_target(&mut self, port: u16) {
        let index = self
            .targets
            .iter()
            .position(|t| t.tuple.source.port == port);
        let index = index.expect("a connection");
        self.targets[index].close(self.now);
        self.after_target(index);
    }

    pub fn replica_keys(&self) -> Vec<ReplicaKey> {
        self.engine.flows().map(|(key, _)| key).collect()
    }

    /// What the target received on the connection from this client port.
    pub fn received(&self, port: u16) -> &[u8] {
        let target = self
            .targets
            .iter()
            .find(|target| target.tuple.source.port == port);
        &target
            .unwrap_or_else(|| panic!("no connection from port {port}"))
            .received
    }

    pub fn target(&self, port: u16) -> &Target {
        self.targets
            .iter()
            .find(|target| target.tuple.source.port == port)
            .unwrap()
    }

    /// Everything captured was delivered, every replica is complete, and nothing is left over.
    pub fn assert_all_delivered(&self) {
        let stats = self.engine.stats();
        assert_eq!(
            stats.replicas_aborted.total(),
            0,
            "aborted: {:?}",
            stats.replicas_aborted
        );
        assert_eq!(stats.bytes_delivered, stats.bytes_wanted, "bytes delivered");
        assert_eq!(stats.replicas_completed, stats.replicas_opened, "completed");
        let intensity = self.engine.config().intensity;
        if self.engine.intensity() == intensity && intensity.as_ratio().fract() == 0.0 {
            let replicas = intensity.as_ratio() as u64;
            assert_eq!(
                stats.bytes_wanted,
                stats.bytes_captured * replicas,
                "wanted"
            );
            assert_eq!(
                stats.replicas_opened,
                stats.sessions_captured * replicas,
                "opened"
            );
        }
    }

    /// After everything has ended nothing is held any more.
    pub fn assert_nothing_left(&mut self) {
        self.run(Duration::from_secs(4000));
        let gauges = self.engine.gauges();
        assert_eq!(
            (gauges.sessions, gauges.replicas, gauges.sessions_busy),
            (0, 0, 0),
            "left over: {gauges:?}"
        );
        assert_eq!(
            (gauges.memory, gauges.backlog, gauges.replicas_waiting),
            (0, 0, 0),
            "memory left: {gauges:?}"
        );
        assert_eq!(self.engine.poll_timeout(), None, "a timer is left");
        assert!(self.flows.is_empty(), "flows left: {:?}", self.flows);
        // Whatever began has ended, and was counted once.
        let stats = self.engine.stats();
        assert_eq!(stats.sessions_ended, stats.sessions_captured, "sessions");
        assert_eq!(
            stats.replicas_opened,
            stats.replicas_completed + stats.replicas_aborted.total(),
            "replicas: {:?}",
            stats.replicas_aborted
        );
    }
}
