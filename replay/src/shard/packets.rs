//! Packets as the engine has them, and as the sender and the interceptors do.

use millrace_capture::Sender;
use millrace_engine::{FlowRef, Transmit};
use millrace_proto::{FlowKey, HeaderRecord};
use millrace_wire::{Flags, FourTuple, PacketBuilder, Seq, TcpHeader, TcpOptions};

/// Adds a replica's packet to the batch.
pub(super) fn push_transmit(
    sender: &mut Sender,
    builder: &mut PacketBuilder,
    transmit: &Transmit<'_>,
) {
    let id = transmit.key.flow_id();
    push(
        sender,
        builder,
        id,
        &transmit.tuple,
        &transmit.header,
        transmit.payload,
    );
}

/// Adds a packet to the batch. One that does not fit is left out: TCP will notice. The engine keeps to the
/// size of the room, so none is.
pub(super) fn push(
    sender: &mut Sender,
    builder: &mut PacketBuilder,
    id: u64,
    tuple: &FourTuple,
    header: &TcpHeader,
    payload: [&[u8]; 3],
) {
    sender.push(id, tuple.destination.ip, |room| {
        builder
            .build(tuple, header, payload, room)
            .unwrap_or_default()
    });
}

/// A response header as the engine wants it.
pub(super) fn response(record: &HeaderRecord) -> (FlowRef, TcpHeader, u32) {
    let flow = match record.key {
        FlowKey::Id(id) => FlowRef::Id(id),
        FlowKey::Tuple { target, client } => {
            FlowRef::Tuple(FourTuple::new(client.into(), target.into()))
        }
    };
    let mut options = TcpOptions {
        mss: record.mss,
        window_scale: record.window_scale.map(|shift| shift.min(14)),
        sack_permitted: record.sack_permitted,
        timestamps: record.timestamps,
        ..TcpOptions::default()
    };
    for (left, right) in record.sack_blocks() {
        options.sack.push(Seq(*left), Seq(*right));
    }
    let header = TcpHeader {
        seq: Seq(record.seq),
        ack: Seq(record.ack),
        flags: Flags(record.flags),
        window: record.window,
        urgent: 0,
        options,
    };
    (flow, header, record.payload_len)
}
