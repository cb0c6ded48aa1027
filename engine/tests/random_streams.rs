//! Random conversations between two TCP models, with stray, forged, damaged, repeated, cut and
//! encapsulated packets among theirs: what is replayed is exactly what the live server accepted.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod sim;

use std::collections::BTreeMap;
use std::time::Duration;

use millrace_engine::Time;
use millrace_wire::{Decoder, Flags, FourTuple, LinkType, PacketBuilder, Tunnels, Verify};
use sim::peer::{Peer, Script, State};
use sim::target::Ended;
use sim::{LIVE, Packet, Rng, START, World, at, bytes, client, config, ms, secs};

const SESSIONS: u16 = 12;
/// Late copies of a packet come at most so much later.
const LATE: u64 = 10_000_000;

/// How often each thing happens, in percent of packets.
#[derive(Clone, Copy)]
struct Trouble {
    loss: f64,
    repeated: f64,
    forged: f64,
    damaged: f64,
    cut: f64,
    tunnelled: f64,
    /// Of the live server's packets, what capture misses.
    missed: f64,
}

enum Event {
    /// Comes to the live server, where capture is.
    ToServer(Packet),
    ToClient(Packet),
    Timer,
}

/// One live connection and what capture sees of it.
struct Connection {
    client: Peer,
    server: Peer,
    queue: BTreeMap<(Time, u64), Event>,
    order: u64,
    trouble: Trouble,
    /// The frames that were captured, and the length that each had on the wire.
    captured: Vec<(Time, Vec<u8>, usize)>,
}

impl Connection {
    fn put(&mut self, when: Time, event: Event) {
        self.order += 1;
        self.queue.insert((when, self.order), event);
    }

    fn micros(rng: &mut Rng, low: u64, high: u64) -> Duration {
        Duration::from_micros(rng.between(low, high))
    }

    /// Lets the connection live to its end.
    fn live(&mut self, rng: &mut Rng, begins: Time) {
        self.client.connect(begins);
        let mut now = begins;
        for _ in 0..100_000 {
            self.carry(rng, now);
            let timers = [self.client.deadline(), self.server.deadline()];
            let timer = timers.into_iter().flatten().min();
            if let Some(timer) = timer.filter(|at| *at > now) {
                self.put(timer, Event::Timer);
            }
            let Some(((when, _), event)) = self.queue.pop_first() else {
                return;
            };
            now = when;
            match event {
                Event::ToServer(packet) => {
                    let is_open = self.server.state == State::Open;
                    if is_open && rng.chance(self.trouble.forged) {
                        let forged = self.forged_for_server(rng, &packet);
                        self.capture(rng, now, &forged);
                        self.server.on_packet(now, &forged.header, &forged.payload);
                    }
                    self.capture(rng, now, &packet);
                    self.server.on_packet(now, &packet.header, &packet.payload);
                }
                Event::ToClient(packet) => {
                    self.client.on_packet(now, &packet.header, &packet.payload);
                }
                Event::Timer => {
                    self.client.on_time(now);
                    self.server.on_time(now);
                }
            }
        }
        panic!("a connection without an end");
    }

    /// Takes what both sides have sent to the network.
    fn carry(&mut self, rng: &mut Rng, now: Time) {
        for packet in self.client.take_output() {
            for _ in 0..self.copies(rng) {
                let arrives = now + Self::micros(rng, 1000, 4000);
                self.put(arrives, Event::ToServer(packet.clone()));
            }
            // A copy that wandered through the network.
            if rng.chance(self.trouble.repeated) {
                let arrives = now + Self::micros(rng, 1000, LATE);
                self.put(arrives, Event::ToServer(packet));
            }
        }
        for packet in self.server.take_output() {
            self.capture(rng, now, &packet);
            for _ in 0..self.copies(rng) {
                let arrives = now + Self::micros(rng, 1000, 4000);
                self.put(arrives, Event::ToClient(packet.clone()));
            }
            // Somebody else speaks in the server's name: capture sees that too.
            if self.client.state == State::Open && rng.chance(self.trouble.forged) {
                let forged = self.forged_for_client(rng, &packet);
                self.capture(rng, now, &forged);
                let soon = now + Self::micros(rng, 0, 3000);
                self.put(soon, Event::ToClient(forged));
            }
        }
    }

    fn copies(&self, rng: &mut Rng) -> usize {
        usize::from(!rng.chance(self.trouble.loss)) + usize::from(rng.chance(1.0))
    }

    /// A segment that bears the client's address and that the server must not take for it.
    fn forged_for_server(&self, rng: &mut Rng, like: &Packet) -> Packet {
        let (expected, next) = self.server.edges();
        let outside = rng.between(70_000, 1 << 30) as u32;
        let inside = rng.between(1, 60_000) as u32;
        let never_sent = next.add(rng.between(70_000, 1 << 30) as u32);
        let (flags, seq, ack, len) = match rng.between(0, 9) {
            // RFC 5961 3: a reset that is not at the next byte, within the window and outside.
            0 => (Flags::RST, expected.add(inside), next, 0),
            1 => (Flags::RST | Flags::ACK, expected.add(outside), next, 0),
            // RFC 5961 4: a SYN in the middle.
            2 => (Flags::SYN, expected.add(outside), next, 0),
            // Data and ends outside of the window.
            3 => (Flags::ACK | Flags::PSH, expected.add(outside), next, 500),
            4 => (Flags::ACK | Flags::FIN, expected.add(outside), next, 0),
            // RFC 5961 5: data of somebody who does not know what the server has sent.
            5 => (Flags::ACK | Flags::PSH, expected, never_sent, 500),
            6 => (Flags::ACK | Flags::URG, expected, never_sent, 1),
            7 => (Flags::ACK | Flags::URG, expected.add(outside), next, 1),
            // RFC 5961 4: a SYN that bears data.
            8 => (Flags::SYN | Flags::ACK, expected.add(u32::MAX), next, 40),
            _ => (Flags::ACK, expected, never_sent, 0),
        };
        forged(like, flags, seq, ack, len)
    }

    /// A segment that bears the server's address and that the client must not take for it.
    fn forged_for_client(&self, rng: &mut Rng, like: &Packet) -> Packet {
        let (expected, next) = self.client.edges();
        let outside = rng.between(70_000, 1 << 30) as u32;
        let never_sent = next.add(rng.between(70_000, 1 << 30) as u32);
        let (flags, seq, ack, len) = match rng.between(0, 4) {
            0 => (Flags::RST, expected.add(outside), next, 0),
            1 => (Flags::ACK | Flags::PSH, expected.add(outside), next, 300),
            2 => (Flags::ACK, expected, never_sent, 0),
            3 => (
                Flags::SYN | Flags::ACK,
                expected.add(outside),
                never_sent,
                0,
            ),
            _ => (Flags::ACK | Flags::FIN, expected.add(outside), next, 0),
        };
        forged(like, flags, seq, ack, len)
    }

    /// What capture sees of a packet that passes.
    fn capture(&mut self, rng: &mut Rng, now: Time, packet: &Packet) {
        if packet.tuple.source == LIVE && rng.chance(self.trouble.missed) {
            return;
        }
        let bare = frame(packet);
        if rng.chance(self.trouble.damaged) && packet.payload_len > 0 {
            // Damaged on the way to the server, which throws it away; the sender tries again.
            let mut damaged = bare.clone();
            let last = damaged.len() - 1;
            damaged[last] ^= 0x55;
            self.see(now, damaged);
        }
        let later = now + Self::micros(rng, 0, LATE);
        if rng.chance(self.trouble.repeated) {
            // A second tap, or a mirror that lags.
            self.see(later, bare.clone());
        }
        if rng.chance(self.trouble.cut) && packet.payload_len > 0 {
            let (len, kept) = (bare.len(), bare.len() - packet.payload_len / 2 - 1);
            self.captured.push((later, bare[..kept].to_vec(), len));
        }
        match rng.chance(self.trouble.tunnelled) {
            true => self.see(now, tunnelled(rng, &bare)),
            false => self.see(now, bare),
        }
    }

    fn see(&mut self, when: Time, frame: Vec<u8>) {
        let len = frame.len();
        self.captured.push((when, frame, len));
    }
}

fn forged(
    like: &Packet,
    flags: Flags,
    seq: millrace_wire::Seq,
    ack: millrace_wire::Seq,
    len: usize,
) -> Packet {
    let mut packet = like.clone();
    packet.header.flags = flags;
    packet.header.seq = seq;
    packet.header.ack = ack;
    packet.payload = vec![0xee; len];
    packet.payload_len = len;
    packet
}

/// The packet as it stands in a frame without a link layer.
fn frame(packet: &Packet) -> Vec<u8> {
    let mut room = vec![0; 1600];
    let payload = [packet.payload.as_slice(), &[]];
    let len = PacketBuilder::new()
        .build(&packet.tuple, &packet.header, payload, &mut room)
        .unwrap();
    room.truncate(len);
    room
}

/// The same in a tunnel.
fn tunnelled(rng: &mut Rng, packet: &[u8]) -> Vec<u8> {
    let ethernet = [&[2; 12][..], &[8, 0], packet].concat();
    let (protocol, inner) = match rng.between(0, 2) {
        0 => (4, packet.to_vec()),
        1 => (47, [&[0, 0, 8, 0], packet].concat()),
        _ => {
            let len = (16 + ethernet.len()) as u16;
            let udp = [[40, 0], 4789u16.to_be_bytes(), len.to_be_bytes(), [0, 0]].concat();
            (
                17,
                [&udp, &[8, 0, 0, 0, 0, 0, 7, 0][..], &ethernet].concat(),
            )
        }
    };
    let len = (20 + inner.len()) as u16;
    let [high, low] = len.to_be_bytes();
    let head = [0x45, 0, high, low, 0, 0, 0, 0, 64, protocol, 0, 0];
    [&head[..], &[198, 18, 7, 1, 198, 18, 7, 2], &inner].concat()
}

/// A conversation: what each side says, and what the target is to answer after how many bytes.
fn talk(rng: &mut Rng, seed: u64) -> (Script, Script, Vec<(u64, u64)>) {
    let (mut client, mut server) = (Script::new(), Script::new());
    let mut answers = Vec::new();
    let (mut asked, mut answered) = (0, 0);
    for turn in 0..rng.between(1, 6) {
        let len = match rng.chance(20.0) {
            true => rng.between(1000, 20_000),
            false => rng.between(1, 900),
        };
        client.push_back((answered, bytes(seed ^ turn, len as usize)));
        asked += len;
        let answer = rng.between(1, 5000);
        server.push_back((asked, vec![0; answer as usize]));
        answered += answer;
        answers.push((asked, answer));
    }
    // The client closes when it has its last answer.
    client.push_back((answered, Vec::new()));
    (client, server, answers)
}

fn run(seed: u64) {
    let mut rng = Rng::new(seed);
    let kinds = [
        |_: &mut Rng| 0.0,
        |rng: &mut Rng| rng.between(1, 3) as f64,
        |rng: &mut Rng| rng.between(3, 12) as f64,
    ];
    let mut percent = || kinds[rng.between(0, 2) as usize](&mut rng);
    let trouble = Trouble {
        loss: percent(),
        repeated: percent(),
        forged: percent(),
        damaged: percent().min(5.0),
        cut: percent(),
        tunnelled: percent() * 4.0,
        missed: percent() * 3.0,
    };
    let mut world = World::new(config(), seed);
    let mut frames = Vec::new();
    let mut expected = Vec::new();
    for number in 0..SESSIONS {
        let port = 20_000 + number;
        let there = FourTuple::new(client(port), LIVE);
        let (asks, says, answers) = talk(&mut rng, seed << 16 ^ u64::from(number) << 8);
        let (isn, server_isn) = (rng.next() as u32, rng.next() as u32);
        let mut connection = Connection {
            client: Peer::client(there, isn, asks),
            server: Peer::server(there.reversed(), server_isn, says),
            queue: BTreeMap::new(),
            order: 0,
            // Before anything of a live server is captured there is nothing to judge by.
            trouble: Trouble {
                missed: if number == 0 { 0.0 } else { trouble.missed },
                ..trouble
            },
            captured: Vec::new(),
        };
        connection.live(&mut rng, at(ms(u64::from(number) * 20)));
        assert_eq!(
            connection.server.state,
            State::Closed,
            "seed {seed}: {port}"
        );
        assert!(!connection.server.was_reset && connection.server.peer_closed);
        world.behaviours.insert(
            port,
            sim::Behaviour {
                answers,
                ..Default::default()
            },
        );
        frames.append(&mut connection.captured);
        expected.push((port, connection.server.received));
    }
    // In the order in which they were captured, through one decoder, as a recording is read.
    frames.sort_by_key(|(when, ..)| *when);
    let mut decoder = Decoder::with_tunnels(Tunnels::all());
    let mut packets = Vec::new();
    for (when, frame, len) in &frames {
        let nanos = when.since(START).as_nanos() as u64;
        let verify = Verify::AmongRight;
        if let Ok(packet) = decoder.decode(nanos, LinkType::RawIp, frame, *len, verify) {
            let packet = Packet {
                tuple: packet.tuple,
                header: packet.header,
                payload: packet.payload.to_vec(),
                payload_len: packet.payload_len,
            };
            packets.push((*when, packet));
        }
    }
    world.capture(packets);
    world.run(secs(200));
    for (port, accepted) in expected {
        let replayed: Vec<_> = world
            .targets
            .iter()
            .filter(|target| target.tuple.source.port == port)
            .collect();
        assert_eq!(replayed.len(), 1, "seed {seed}: connections from {port}");
        let got = &replayed[0].received;
        assert!(
            *got == accepted,
            "seed {seed}, port {port}: {} of {} bytes, the first other one at {:?}",
            got.len(),
            accepted.len(),
            got.iter().zip(&accepted).position(|(a, b)| a != b)
        );
        assert_eq!(replayed[0].ended, Ended::Fin, "seed {seed}: {port}");
    }
    world.assert_all_delivered();
    world.assert_nothing_left();
}

macro_rules! seeds {
    ($($name:ident: $range:expr),*) => {
        $(#[test] fn $name() { ($range).for_each(run); })*
    };
}

// 240 worlds of 12 sessions.
seeds!(streams_0: 0..60, streams_1: 60..120, streams_2: 120..180, streams_3: 180..240);
