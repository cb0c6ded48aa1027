//! Where things stand in a slot, from `linux/if_packet.h`. All numbers are in host order.

/// Bytes of a slot. A frame that is longer than what fits behind its headers waits whole in the
/// socket's queue: see [`super::Ring`].
pub(super) const SLOT: usize = 512;

/// `struct tpacket2_hdr`, with the `struct sockaddr_ll` that follows it.
pub(super) mod slot {
    /// `tp_len`, u32: the bytes that were on the device.
    pub(in crate::ring) const ORIGINAL: usize = 4;
    /// `tp_snaplen`, u32: the bytes that are here.
    pub(in crate::ring) const CAPTURED: usize = 8;
    /// `tp_mac`, u16: where the data starts, from the start of the slot.
    pub(in crate::ring) const DATA: usize = 12;
    /// `tp_sec`, u32.
    pub(in crate::ring) const SECONDS: usize = 16;
    /// `tp_nsec`, u32.
    pub(in crate::ring) const NANOSECONDS: usize = 20;
    /// `tp_vlan_tci`, u16.
    pub(in crate::ring) const VLAN: usize = 24;
    /// `sll_pkttype` of the address, u8.
    pub(in crate::ring) const PACKET_TYPE: usize = 32 + 10;
}

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

/// A number of 32 bits, as a length.
pub(super) fn size_at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u32_at(bytes, offset)?).ok()
}
