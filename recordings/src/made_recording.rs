//! Recordings that tests make.

use std::path::Path;

use millrace_capture::PacketWriter;
use millrace_wire::{Endpoint, Flags, FourTuple, LinkType, PacketBuilder, Seq, TcpHeader};

/// The one client's address.
pub(crate) const CLIENT: [u8; 4] = [198, 18, 1, 9];
/// The live server.
pub(crate) const SERVER: ([u8; 4], u16) = ([198, 18, 2, 10], 80);
/// The time of the first packet, in nanoseconds.
const BEGINS: u64 = 1_000_000_000_000;

/// A segment of the client with this port, or of the live server to it: flags, sequence number,
/// acknowledgement, payload bytes.
pub(crate) type Line = (u16, bool, Flags, u32, u32, usize);

/// Writes a recording of these, from one to the next `apart` nanoseconds.
pub(crate) fn write(path: &Path, apart: u64, lines: impl IntoIterator<Item = Line>) {
    let interfaces = [("eth0", LinkType::RawIp, 0)];
    let mut writer = PacketWriter::new(Vec::new(), interfaces).unwrap();
    let server = Endpoint::new(SERVER.0.into(), SERVER.1);
    let mut builder = PacketBuilder::new();
    let mut time = BEGINS;
    for (port, from_client, flags, seq, ack, len) in lines {
        let there = FourTuple::new(Endpoint::new(CLIENT.into(), port), server);
        let tuple = match from_client {
            true => there,
            false => there.reversed(),
        };
        let header = TcpHeader {
            seq: Seq(seq),
            ack: Seq(ack),
            flags,
            ..TcpHeader::default()
        };
        let mut room = [0; 2000];
        let payload = vec![0x61; len];
        let length = builder
            .build(&tuple, &header, [&payload, &[]], &mut room)
            .unwrap();
        let packet = room.get(..length).unwrap();
        writer.packet(0, time, length as u32, packet).unwrap();
        time += apart;
    }
    std::fs::write(path, writer.into_inner().unwrap()).unwrap();
}
