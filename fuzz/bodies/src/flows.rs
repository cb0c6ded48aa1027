//! What the simulated ends of connections remember, so that a few bytes of input make a plausible segment.

use millrace_engine::{ReplicaKey, Transmit};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq};

/// The number of a client's SYN: close to the wrap, which long connections meet too.
pub(crate) const FIRST_OF_CLIENT: Seq = Seq(u32::MAX - 2000);
/// The number of a target's SYN.
pub(crate) const FIRST_OF_TARGET: Seq = Seq(1_000_000);

/// The number of a live server's SYN.
pub(crate) const FIRST_OF_LIVE: Seq = Seq(6);

/// A client's connection to the live server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) tuple: FourTuple,
    /// The next number of each side.
    pub(crate) client: Seq,
    pub(crate) live: Seq,
}

impl Connection {
    pub(crate) fn new(client: Endpoint, live: Endpoint) -> Self {
        Self {
            tuple: FourTuple::new(client, live),
            client: FIRST_OF_CLIENT,
            live: FIRST_OF_LIVE.add(1),
        }
    }
}

/// A flow from a replica to the target, as the target knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) key: ReplicaKey,
    pub(crate) tuple: FourTuple,
    /// Behind the last number that the replica has sent.
    pub(crate) sent: Seq,
    /// The next number of the target.
    pub(crate) next: Seq,
    /// The last packet was a SYN.
    pub(crate) opening: bool,
    pub(crate) timestamp: Option<u32>,
}

impl Flow {
    pub(crate) fn new(key: ReplicaKey, tuple: FourTuple) -> Self {
        Self {
            key,
            tuple,
            sent: Seq(0),
            next: FIRST_OF_TARGET,
            opening: false,
            timestamp: None,
        }
    }

    /// The target receives a packet.
    pub(crate) fn receive(&mut self, packet: &Transmit<'_>) {
        let header = &packet.header;
        let control =
            u32::from(header.flags.has(Flags::SYN)) + u32::from(header.flags.has(Flags::FIN));
        // A packet has at most 65,535 bytes.
        let end = header.seq.add(packet.payload_len() as u32 + control);
        self.opening = header.flags.has(Flags::SYN);
        if self.opening || end.after(self.sent) {
            self.sent = end;
        }
        self.timestamp = header.options.timestamps.map(|(value, _)| value);
    }
}

/// A number some way from another.
pub(crate) fn near(seq: Seq, delta: i32) -> Seq {
    seq.add(delta.cast_unsigned())
}
