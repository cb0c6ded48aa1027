//! Captured frames of every link type.

use millrace_wire::{Decoder, LinkType, PacketBuilder, TcpPacket, Verify};

use crate::input::Input;

/// Feeds frames to one decoder, so that fragments meet.
///
/// The input is a list of frames: link type 1, flags 1 (bit 0: verify checksums, bit 1: the frame was cut),
/// length 2, bytes; all big-endian.
pub fn wire_decode(data: &[u8]) {
    let mut input = Input::new(data);
    let mut decoder = Decoder::new();
    let mut builder = PacketBuilder::new();
    let mut now = 0;
    let mut frames = 0;
    while !input.is_empty() {
        let link = input.link();
        let flags = input.u8();
        let len = usize::from(input.u16());
        let frame = input.bytes(len);
        let verify = if flags & 1 == 0 {
            Verify::Nothing
        } else {
            Verify::Checksum
        };
        // Lengths on the wire are whatever the kernel says; `len` may be more than was captured, or less.
        let wire_len = if flags & 2 == 0 { frame.len() } else { len };
        now += u64::from(flags >> 2) * 1_000_000_000;
        frames += 1;
        if let Ok(packet) = decoder.decode(now, link, frame, wire_len, verify) {
            assert!(
                packet.payload.len() <= packet.payload_len,
                "more payload captured than there was"
            );
            rebuild(&mut builder, &packet);
        }
    }
    let counted = decoder.counters();
    assert_eq!(
        counted.segments
            + counted.not_tcp
            + counted.malformed
            + counted.fragments
            + counted.checksum,
        frames,
        "every frame has one outcome"
    );
}

/// What was decoded can be built, and decodes to the same segment.
fn rebuild(builder: &mut PacketBuilder, packet: &TcpPacket<'_>) {
    let mut out = vec![0; 65_535];
    let (first, second) = packet.payload.split_at(packet.payload.len() / 2);
    let Ok(len) = builder.build(&packet.tuple, &packet.header, [first, second], &mut out) else {
        assert!(
            packet.payload.len() > 65_000,
            "a segment that fits a packet can be built"
        );
        return;
    };
    out.truncate(len);
    let mut decoder = Decoder::new();
    let again = decoder.decode(0, LinkType::RawIp, &out, len, Verify::Checksum);
    let Ok(again) = again else {
        assert!(again.is_ok(), "what was built is not decoded: {again:?}");
        return;
    };
    assert_eq!(again.tuple, packet.tuple, "addresses");
    assert_eq!(again.payload, packet.payload, "payload");
    let (new, mut old) = (again.header, packet.header);
    // Blocks that no longer fit beside well-formed options are left out, the last ones first.
    assert!(
        old.options
            .sack
            .as_slice()
            .starts_with(new.options.sack.as_slice()),
        "selective acknowledgements"
    );
    old.options.sack = new.options.sack;
    // Copies are plain TCP: options of multipath TCP are read, and never written.
    old.options.mptcp = None;
    assert_eq!(new, old, "header");
}
