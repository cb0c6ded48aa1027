//! The IPv6 header and its extension headers (RFC 8200), with jumbograms (RFC 2675).

use std::net::Ipv6Addr;

use crate::field::{array_at, u8_at, u16_at, u32_at};

/// Length of the fixed header, in bytes.
pub const HEADER: usize = 40;
/// More extension headers than this are not followed.
const MAX_EXTENSIONS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const OPTION_PAD1: u8 = 0;
const OPTION_JUMBO: u8 = 0xc2;

/// The fields of a fragment header (RFC 8200 4.5).
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// Identification, for reassembly.
    pub id: u32,
    /// Offset of this fragment in bytes.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
}

/// A checked view of an IPv6 packet, behind its extension headers.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
    /// Protocol number of what follows the headers.
    pub protocol: u8,
    /// The fragment header, when there is one.
    pub fragment: Option<Fragment>,
    /// What follows the headers, as far as it was captured and belongs to the packet.
    pub payload: &'a [u8],
    /// Length of what follows the headers on the wire; at least `payload.len()`.
    pub payload_len: usize,
    /// Whether the header speaks of more bytes than were seen: it was cut on its way.
    pub is_short: bool,
}

impl<'a> Ipv6<'a> {
    /// Reads a packet of which `packet` was captured and which was `wire_len` bytes long when it
    /// was seen. `None` when it is not IPv6, its lengths contradict each other or its chain of
    /// extension headers does not end.
    pub fn new(packet: &'a [u8], wire_len: usize) -> Option<Self> {
        if u8_at(packet, 0)? >> 4 != 6 || wire_len < HEADER {
            return None;
        }
        let seen = wire_len - HEADER;
        let mut length = match usize::from(u16_at(packet, 4)?) {
            0 => seen,
            length => length,
        };
        let is_short = length > seen;
        let mut protocol = u8_at(packet, 6)?;
        let mut rest = packet.get(HEADER..)?;
        let mut fragment = None;
        for _ in 0..MAX_EXTENSIONS {
            let size = match protocol {
                HOP_BY_HOP | DESTINATION_OPTIONS | ROUTING | MOBILITY => {
                    (usize::from(u8_at(rest, 1)?) + 1) * 8
                }
                AUTHENTICATION => (usize::from(u8_at(rest, 1)?) + 2) * 4,
                FRAGMENT => 8,
                _ => break,
            };
            if protocol == HOP_BY_HOP
                && let Some(jumbo) = jumbo_length(rest.get(2..size)?)
            {
                length = jumbo.min(seen);
            }
            if protocol == FRAGMENT {
                let offset = u16_at(rest, 2)?;
                fragment = Some(Fragment {
                    id: u32_at(rest, 4)?,
                    offset: usize::from(offset & 0xfff8),
                    more: offset & 1 != 0,
                });
            }
            protocol = u8_at(rest, 0)?;
            rest = rest.get(size..)?;
            length = length.checked_sub(size)?;
            // What follows the header of a later fragment is data, not another header.
            if fragment.is_some_and(|f| f.offset > 0) {
                break;
            }
        }
        Some(Self {
            source: array_at::<16>(packet, 8)?.into(),
            destination: array_at::<16>(packet, 24)?.into(),
            protocol,
            fragment,
            payload: rest.get(..length).unwrap_or(rest),
            payload_len: length,
            is_short,
        })
    }
}

/// The jumbo payload length among hop-by-hop options (RFC 2675 2), if any.
fn jumbo_length(mut options: &[u8]) -> Option<usize> {
    while let Some(kind) = u8_at(options, 0) {
        if kind == OPTION_PAD1 {
            options = options.get(1..)?;
            continue;
        }
        if kind == OPTION_JUMBO {
            return usize::try_from(u32_at(options, 2)?).ok();
        }
        let size = usize::from(u8_at(options, 1)?) + 2;
        options = options.get(size..)?;
    }
    None
}
