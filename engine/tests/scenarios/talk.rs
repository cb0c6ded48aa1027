//! What the scenarios are written with: sessions as conversations, segments one by one, and
//! questions about what the target got and when.

use millrace_engine::{AbortReason, Owed, Stats, Time};
use millrace_wire::{Flags, FourTuple, Seq, TcpHeader};

use crate::sim::target::Ended;
use crate::sim::{
    Action, Behaviour, LIVE, Live, Packet, World, at, bytes, client, config, ms, secs,
};

/// The client's port where there is only one.
pub const PORT: u16 = 10_000;

/// The client says `len` bytes.
pub fn says(len: usize) -> Action {
    Action::Client(bytes(len as u64, len))
}

/// All that the client says in a conversation.
pub fn said(actions: &[Action]) -> Vec<u8> {
    let mut all = Vec::new();
    for action in actions {
        if let Action::Client(bytes) = action {
            all.extend_from_slice(bytes);
        }
    }
    all
}

/// A world with one session, not yet begun.
pub fn stage(behaviour: Behaviour, actions: &[Action]) -> World {
    let mut world = World::new(config(), 1);
    world.behaviour = behaviour;
    world.capture(Live::new(at(ms(0)), PORT).play(actions));
    world
}

/// One session, replayed for a minute.
pub fn replay(behaviour: Behaviour, actions: &[Action]) -> World {
    let mut world = stage(behaviour, actions);
    world.run(secs(60));
    world
}

/// A target that answers as this conversation's live server did.
pub fn answers_like(actions: &[Action]) -> Behaviour {
    let mut behaviour = Behaviour::default();
    let mut asked = 0;
    for action in actions {
        match action {
            Action::Client(bytes) => asked += bytes.len() as u64,
            Action::Server(len) if asked == 0 => behaviour.greeting += len,
            Action::Server(len) => behaviour.answers.push((asked, *len)),
            _ => {}
        }
    }
    behaviour
}

/// The conversation arrived whole, ended with FIN both ways, and nothing is left of it.
pub fn assert_complete(world: &mut World, actions: &[Action]) {
    assert!(world.received(PORT) == said(actions), "streams differ");
    assert_eq!(world.target(PORT).ended, Ended::Fin);
    assert_eq!(world.targets.len(), 1, "one connection");
    world.assert_all_delivered();
    world.assert_nothing_left();
}

/// The only replica was given up for this reason, once, and nothing is left of it.
pub fn assert_aborted(world: &mut World, reason: AbortReason) {
    let stats = world.engine.stats();
    assert_eq!(
        stats.replicas_aborted.of(reason),
        1,
        "{:?}",
        stats.replicas_aborted
    );
    assert_eq!(
        stats.replicas_aborted.total(),
        1,
        "{:?}",
        stats.replicas_aborted
    );
    assert_eq!(stats.replicas_completed, 0);
    world.assert_nothing_left();
}

/// The only replica was given up since its target owed this for too long.
pub fn assert_timed_out(world: &mut World, owed: Owed) {
    let timed_out = &stats(world).replicas_timed_out;
    assert_eq!((timed_out.of(owed), timed_out.total()), (1, 1));
    assert_aborted(world, AbortReason::Timeout);
}

/// How long after the start of the simulation.
pub fn elapsed(time: Time) -> u64 {
    time.since(at(ms(0))).as_millis() as u64
}

/// When the byte at `offset` was first sent to the target from this source port.
pub fn sent_at(world: &World, port: u16, offset: u64) -> Time {
    let mut first = None;
    for (time, packet) in &world.sent {
        if packet.tuple.source.port != port {
            continue;
        }
        if packet.header.flags.has(Flags::SYN) {
            first = Some(packet.header.seq.add(1));
        } else if let Some(first) = first {
            let from = packet.header.seq.offset_near(first, 0);
            if from.is_some_and(|from| from <= offset && offset < from + packet.payload_len as u64)
            {
                return *time;
            }
        }
    }
    panic!("byte {offset} of port {port} was never sent");
}

/// When the target received the byte at `offset` of the first connection from this port.
pub fn arrived_at(world: &World, port: u16, offset: u64) -> Time {
    let arrivals = &world.target(port).arrivals;
    let at = arrivals.partition_point(|(start, _)| *start <= offset);
    arrivals[at - 1].1
}

/// Packets sent with these flags, SYN or RST or FIN.
pub fn sent_with(world: &World, flags: Flags) -> Vec<(Time, Packet)> {
    let hits = world.sent.iter().filter(|(_, p)| p.header.flags.has(flags));
    hits.cloned().collect()
}

/// What the engine has counted.
pub fn stats(world: &World) -> &Stats {
    world.engine.stats()
}

/// A connection written down segment by segment. Offsets count from the first byte of each side.
#[derive(Clone, Copy)]
pub struct Wire {
    pub tuple: FourTuple,
    pub client_isn: Seq,
    pub server_isn: Seq,
}

impl Wire {
    pub fn new(port: u16) -> Self {
        Self {
            tuple: FourTuple::new(client(port), LIVE),
            client_isn: Seq(0x1000_0000),
            server_isn: Seq(0x5000_0000),
        }
    }

    pub fn syn(&self) -> Packet {
        self.client(Flags::SYN, -1, 0, b"")
    }

    pub fn syn_ack(&self) -> Packet {
        self.server(Flags::SYN | Flags::ACK, -1, 0, 0)
    }

    pub fn ack(&self, offset: i32, ack: u32) -> Packet {
        self.client(Flags::ACK, offset, ack, b"")
    }

    pub fn data(&self, offset: i32, ack: u32, bytes: &[u8]) -> Packet {
        self.client(Flags::ACK | Flags::PSH, offset, ack, bytes)
    }

    pub fn fin(&self, offset: i32, ack: u32) -> Packet {
        self.client(Flags::ACK | Flags::FIN, offset, ack, b"")
    }

    pub fn reset(&self, offset: i32) -> Packet {
        self.client(Flags::RST, offset, 0, b"")
    }

    pub fn client(&self, flags: Flags, offset: i32, ack: u32, bytes: &[u8]) -> Packet {
        let ack = if flags.has(Flags::ACK) {
            self.server_isn.add(1).add(ack)
        } else {
            Seq(0)
        };
        let header = TcpHeader {
            seq: self.client_isn.add(1).add(offset as u32),
            ack,
            flags,
            window: 65_000,
            ..TcpHeader::default()
        };
        Packet {
            tuple: self.tuple,
            header,
            payload: bytes.to_vec(),
            payload_len: bytes.len(),
        }
    }

    /// A segment of the live server; capture keeps its header only.
    pub fn server(&self, flags: Flags, offset: i32, ack: u32, len: usize) -> Packet {
        let header = TcpHeader {
            seq: self.server_isn.add(1).add(offset as u32),
            ack: self.client_isn.add(1).add(ack),
            flags,
            window: 65_000,
            ..TcpHeader::default()
        };
        Packet {
            tuple: self.tuple.reversed(),
            header,
            payload: Vec::new(),
            payload_len: len,
        }
    }

    pub fn answer(&self, offset: i32, ack: u32, len: usize) -> Packet {
        self.server(Flags::ACK, offset, ack, len)
    }
}

/// A world that captures these segments, each at its millisecond.
pub fn captured(behaviour: Behaviour, segments: Vec<(u64, Packet)>) -> World {
    let mut world = World::new(config(), 1);
    world.behaviour = behaviour;
    world.capture(
        segments
            .into_iter()
            .map(|(when, p)| (at(ms(when)), p))
            .collect(),
    );
    world
}
