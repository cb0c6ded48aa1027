//! A target as it should be: it accepts every connection, acknowledges at once, answers every push, and closes when
//! the client does. What a replay towards it lacks, the recording lacks.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use millrace_engine::{Engine, FlowRef, ReplicaKey, Time, Transmit};
use millrace_wire::{Flags, Seq, TcpHeader, TcpOptions};

/// A packet to it and its answer take so long.
const ROUND_TRIP: Duration = Duration::from_micros(50);
/// Payload bytes of its greeting, and of each answer.
const ANSWER: u32 = 1024;
/// What it takes at a time.
const WINDOW: u16 = 65_535;
/// Its largest segment (RFC 9293 3.7.1): that of Ethernet.
const MSS: u16 = 1460;

/// One connection: the next byte that it expects, and the next that it sends.
#[derive(Clone, Copy, Debug)]
struct Connection {
    expects: Seq,
    sends: Seq,
}

/// A packet on its way back.
#[derive(Clone, Copy, Debug)]
struct Answer {
    at: Time,
    key: ReplicaKey,
    header: TcpHeader,
    payload_len: u32,
}

/// The target.
#[derive(Debug, Default)]
pub(crate) struct IdealTarget {
    connections: HashMap<ReplicaKey, Connection>,
    answers: VecDeque<Answer>,
}

impl IdealTarget {
    /// Takes a packet.
    pub(crate) fn take(&mut self, now: Time, packet: &Transmit<'_>) {
        let (key, header) = (packet.key, &packet.header);
        if header.flags.has(Flags::RST) {
            self.connections.remove(&key);
            return;
        }
        if header.flags.has(Flags::SYN) {
            self.connections.insert(
                key,
                Connection {
                    expects: header.seq.add(1),
                    sends: Seq(1),
                },
            );
            self.answer(now, key, Seq(0), Flags::SYN, 0);
            self.answer(now, key, Seq(1), Flags::PSH, ANSWER);
            return;
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let fin = header.flags.has(Flags::FIN);
        // Lengths of packets fit.
        let end = header.seq.add(packet.payload_len() as u32 + u32::from(fin));
        if end == header.seq {
            return;
        }
        let is_new = end.since(connection.expects) > 0;
        if is_new {
            connection.expects = end;
        }
        let flags = if fin { Flags::FIN } else { Flags::PSH };
        let asked = is_new && header.flags.has(Flags::PSH) && !fin;
        let len = if asked { ANSWER } else { 0 };
        let seq = connection.sends;
        self.answer(now, key, seq, flags, len);
    }

    /// The connection is over.
    pub(crate) fn forget(&mut self, key: ReplicaKey) {
        self.connections.remove(&key);
    }

    /// When its next packet arrives.
    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.answers.front().map(|answer| answer.at)
    }

    /// Hands over the packets that have arrived.
    pub(crate) fn deliver(&mut self, now: Time, engine: &mut Engine) {
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.at <= now) {
            let flow = FlowRef::Id(answer.key.flow_id());
            engine.target_header(now, flow, &answer.header, answer.payload_len);
        }
    }

    fn answer(&mut self, now: Time, key: ReplicaKey, seq: Seq, flags: Flags, payload_len: u32) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let control = u32::from(flags.has(Flags::SYN) || flags.has(Flags::FIN));
        connection.sends = seq.add(payload_len + control);
        self.answers.push_back(Answer {
            at: now + ROUND_TRIP,
            key,
            header: TcpHeader {
                seq,
                ack: connection.expects,
                flags: Flags(flags.0 | Flags::ACK.0),
                window: WINDOW,
                urgent: 0,
                options: TcpOptions {
                    mss: flags.has(Flags::SYN).then_some(MSS),
                    ..TcpOptions::default()
                },
            },
            payload_len,
        });
    }
}
