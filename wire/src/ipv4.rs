//! The IPv4 header (RFC 791 3.1).

use std::net::Ipv4Addr;

use crate::field::{array_at, u8_at, u16_at};

/// Length of a header without options, in bytes.
pub const HEADER: usize = 20;

/// A checked view of an IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
    /// Protocol number of what follows the header.
    pub protocol: u8,
    /// Identification, for reassembly.
    pub id: u16,
    /// Offset of this fragment in bytes.
    pub fragment_offset: usize,
    /// Whether more fragments follow.
    pub more_fragments: bool,
    /// Header length in bytes, options included.
    pub header_len: usize,
    /// What follows the header, as far as it was captured and belongs to the packet.
    pub payload: &'a [u8],
    /// Length of what follows the header, by that header; at least `payload.len()`.
    pub payload_len: usize,
    /// Whether the header speaks of more bytes than were seen: it was cut on its way.
    pub is_short: bool,
}

impl<'a> Ipv4<'a> {
    /// Reads a packet of which `packet` was captured and which was `wire_len` bytes long when it
    /// was seen. `None` when it is not IPv4 or its lengths contradict each other.
    ///
    /// A total length of 0 is that of a GSO or "BIG TCP" packet on its way through a local
    /// device: there the seen length counts.
    pub fn new(packet: &'a [u8], wire_len: usize) -> Option<Self> {
        let first = u8_at(packet, 0)?;
        if first >> 4 != 4 {
            return None;
        }
        let header_len = usize::from(first & 0x0f) * 4;
        let total = match usize::from(u16_at(packet, 2)?) {
            0 => wire_len,
            // Longer than what was seen: cut on its way to who saw it.
            total => total,
        };
        if header_len < HEADER || total < header_len {
            return None;
        }
        let fragment = u16_at(packet, 6)?;
        let body = packet.get(header_len..)?;
        let payload_len = total - header_len;
        Some(Self {
            source: array_at::<4>(packet, 12)?.into(),
            destination: array_at::<4>(packet, 16)?.into(),
            protocol: u8_at(packet, 9)?,
            id: u16_at(packet, 4)?,
            fragment_offset: usize::from(fragment & 0x1fff) * 8,
            more_fragments: fragment & 0x2000 != 0,
            header_len,
            payload: body.get(..payload_len).unwrap_or(body),
            payload_len,
            is_short: total > wire_len,
        })
    }
}
