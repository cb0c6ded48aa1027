//! Where things stand in a block, from `linux/if_packet.h`. All numbers are in host order.

/// `struct tpacket_block_desc` with `struct tpacket_hdr_v1`.
pub(super) mod block {
    /// `num_pkts`, u32.
    pub(in crate::ring) const FRAME_COUNT: usize = 12;
    /// `offset_to_first_pkt`, u32, from the start of the block.
    pub(in crate::ring) const FIRST_FRAME: usize = 16;
}

/// `struct tpacket3_hdr`; a `struct sockaddr_ll` follows it.
pub(super) mod frame {
    /// `tp_next_offset`, u32, from the start of this header.
    pub(in crate::ring) const NEXT: usize = 0;
    /// `tp_sec`, u32.
    pub(in crate::ring) const SECONDS: usize = 4;
    /// `tp_nsec`, u32.
    pub(in crate::ring) const NANOSECONDS: usize = 8;
    /// `tp_snaplen`, u32: the bytes that are here.
    pub(in crate::ring) const CAPTURED: usize = 12;
    /// `tp_len`, u32: the bytes that were on the device.
    pub(in crate::ring) const ORIGINAL: usize = 16;
    /// `tp_status`, u32.
    pub(in crate::ring) const STATUS: usize = 20;
    /// `tp_mac`, u16: where the data starts, from the start of this header.
    pub(in crate::ring) const DATA: usize = 24;
    /// `hv1.tp_vlan_tci`, u32.
    pub(in crate::ring) const VLAN: usize = 32;
    /// `sll_pkttype` of the address that follows, u8.
    pub(in crate::ring) const PACKET_TYPE: usize = 48 + 10;
}

/// What a block needs besides its frames; a generous bound of `BLK_PLUS_PRIV(0)`.
pub(super) const BLOCK_OVERHEAD: usize = 64;
/// What a frame needs besides its data: both headers, alignment, and the room that the kernel
/// leaves so that the network header is aligned.
pub(super) const FRAME_OVERHEAD: usize = 256;

/// A number of 8 bits.
pub(super) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// A number of 16 bits.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// A number of 32 bits.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

/// A number of 32 bits, as an offset or length.
pub(super) fn size_at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, offset)?).ok()
}
