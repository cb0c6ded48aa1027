//! What the examples share: segments without a network.

use millrace_engine::{Engine, Time, Transmit};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpPacket};

/// A SYN-ACK.
pub const SYN_ACK: Flags = Flags(Flags::SYN.0 | Flags::ACK.0);

/// What a capture on the live server sees.
pub fn capture(
    engine: &mut Engine,
    now: Time,
    [from, to]: [Endpoint; 2],
    header: TcpHeader,
    payload: &[u8],
) {
    let (tuple, payload_len) = (FourTuple::new(from, to), payload.len());
    let packet = TcpPacket {
        tuple,
        header,
        payload,
        payload_len,
    };
    engine.segment(now, now, &packet);
}

/// A header with these numbers.
pub fn header(seq: u32, ack: u32, flags: Flags) -> TcpHeader {
    TcpHeader {
        seq: Seq(seq),
        ack: Seq(ack),
        flags,
        window: 65_000,
        ..TcpHeader::default()
    }
}

/// What a target says to a packet whose next byte has the number `seq`: SYN-ACK, or an acknowledgement of what came (RFC 9293
/// 3.5).
pub fn answer(packet: &Transmit<'_>, seq: u32) -> Option<TcpHeader> {
    let syn = packet.header.flags.has(Flags::SYN);
    let length = packet.payload_len() as u32 + u32::from(syn);
    let flags = if syn { SYN_ACK } else { Flags::ACK };
    let seq = if syn { seq.wrapping_sub(1) } else { seq };
    (length > 0).then(|| header(seq, packet.header.seq.add(length).0, flags))
}
