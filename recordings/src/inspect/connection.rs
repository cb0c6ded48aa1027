//! A connection, and which end is the server.

use millrace_wire::{Endpoint, Flags, FourTuple, TcpPacket};

use super::direction::Direction;

/// A connection under way.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The server's end.
    pub server: Endpoint,
    /// From client to server.
    pub client_side: Direction,
    /// From server to client.
    pub server_side: Direction,
    /// When it was seen first and last, in nanoseconds from the recording's beginning.
    pub first: u64,
    /// See `first`.
    pub last: u64,
    /// One side has reset it.
    pub reset: bool,
}

impl Connection {
    /// A connection whose first packet is this. `known` says whether an end is known as a server's.
    pub fn new(now: u64, packet: &TcpPacket<'_>, known: impl Fn(&Endpoint) -> bool) -> Self {
        Self {
            server: server(packet, known),
            client_side: Direction::default(),
            server_side: Direction::default(),
            first: now,
            last: now,
            reset: false,
        }
    }

    /// Takes a packet of either direction.
    pub fn take(&mut self, now: u64, packet: &TcpPacket<'_>) {
        self.last = self.last.max(now);
        let flags = packet.header.flags;
        let to_server = packet.tuple.destination == self.server;
        let (own, other) = if to_server {
            (&mut self.client_side, &mut self.server_side)
        } else {
            (&mut self.server_side, &mut self.client_side)
        };
        if flags.has(Flags::RST) {
            self.reset = true;
            return;
        }
        own.take(packet);
        if flags.has(Flags::ACK) {
            other.acknowledged(packet.header.ack);
        }
    }

    /// Whether both sides have ended.
    pub const fn is_over(&self) -> bool {
        self.reset || (self.client_side.fin && self.server_side.fin)
    }

    /// Whether this packet begins another connection of the same ends.
    pub fn is_another(&self, packet: &TcpPacket<'_>) -> bool {
        let flags = packet.header.flags;
        flags.has(Flags::SYN) && !flags.has(Flags::ACK) && self.is_over()
    }
}

/// The name of a connection: the same for both directions.
pub fn name(tuple: &FourTuple) -> (Endpoint, Endpoint) {
    let (a, b) = (tuple.source, tuple.destination);
    if a <= b { (a, b) } else { (b, a) }
}

/// Which end is the server: the one that a SYN goes to, one that was a server before, or the one
/// with the smaller port.
fn server(packet: &TcpPacket<'_>, known: impl Fn(&Endpoint) -> bool) -> Endpoint {
    let FourTuple {
        source,
        destination,
    } = packet.tuple;
    let flags = packet.header.flags;
    match (flags.has(Flags::SYN), flags.has(Flags::ACK)) {
        (true, false) => destination,
        (true, true) => source,
        (false, _) => match (known(&source), known(&destination)) {
            (true, false) => source,
            (false, true) => destination,
            _ if source.port < destination.port => source,
            _ => destination,
        },
    }
}
