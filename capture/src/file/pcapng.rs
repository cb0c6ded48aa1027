//! The pcapng format, <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-04.html>: blocks, of
//! which those that hold packets, describe interfaces or count drops are read, and others passed
//! over.

use super::error::Problem;
use super::input::Input;
use super::pcap::{ByteOrder, at};
use super::reader::{Interface, MAX_PACKET, Recorded};

/// Block types (section 10.1).
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
pub(super) const INTERFACE_DESCRIPTION: u32 = 1;
const PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
pub(super) const INTERFACE_STATISTICS: u32 = 5;
pub(super) const ENHANCED_PACKET: u32 = 6;

/// Tells the byte order of a section (section 4.1).
pub(super) const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Type and two lengths.
const FRAMING: usize = 12;
/// A block that is read as a whole is no longer than this: a packet with plenty of options.
const MAX_BLOCK: u32 = MAX_PACKET + (256 << 10);
/// Interfaces of one section; files in which each packet has its own do not exist.
const MAX_INTERFACES: usize = 65_536;

/// Option codes.
const OPTION_END: u16 = 0;
pub(super) const IF_NAME: u16 = 2;
pub(super) const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;
pub(super) const ISB_IFRECV: u16 = 4;
pub(super) const ISB_IFDROP: u16 = 5;

/// How an interface's time stamps are to be read (sections 4.2, if_tsresol and if_tsoffset).
#[derive(Clone, Copy, Debug)]
struct TimeScale {
    /// Units in a second.
    per_second: u128,
    /// Seconds to be added.
    offset: i64,
}

impl Default for TimeScale {
    fn default() -> Self {
        Self {
            per_second: 1_000_000,
            offset: 0,
        }
    }
}

impl TimeScale {
    /// Nanoseconds since 1970; what lies before counts as 1970, what lies beyond 2554 as then.
    fn nanos(self, units: u64) -> u64 {
        let since = u128::from(units) * 1_000_000_000 / self.per_second.max(1);
        let offset = i128::from(self.offset) * 1_000_000_000;
        let shifted = i128::try_from(since)
            .unwrap_or(i128::MAX)
            .saturating_add(offset);
        u64::try_from(shifted.max(0)).unwrap_or(u64::MAX)
    }
}

/// A pcapng file, wherever it is.
#[derive(Debug)]
pub(super) struct PcapNg {
    order: ByteOrder,
    /// Where the interfaces of this section begin in the list of all.
    base: usize,
    scales: Vec<TimeScale>,
    /// Packets without a time of their own bear that of the packet before.
    last: u64,
}

/// Whether a file that begins with these bytes is a pcapng file.
pub(super) fn is_pcapng(beginning: &[u8]) -> bool {
    beginning.first_chunk() == Some(&SECTION_HEADER.to_be_bytes())
}

impl PcapNg {
    pub(super) const fn new() -> Self {
        Self {
            order: ByteOrder::Little,
            base: 0,
            scales: Vec::new(),
            last: 0,
        }
    }

    /// The next packet; `None` at the end. `interfaces` gets what is learned of interfaces.
    pub(super) fn next<'i>(
        &mut self,
        input: &'i mut Input,
        interfaces: &mut Vec<Interface>,
    ) -> Result<Option<Recorded<'i>>, Problem> {
        let (found, range) = loop {
            let offset = input.offset();
            let head = input.peek(FRAMING)?;
            if head.is_empty() {
                return Ok(None);
            }
            if head.iter().all(|byte| *byte == 0) && input.is_padding()? {
                return Ok(None);
            }
            let head = input.peek(FRAMING)?;
            if head.len() < FRAMING {
                return Err(Problem::Truncated { offset });
            }
            if is_pcapng(head) {
                self.order = section_order(head).ok_or(Problem::Corrupt {
                    offset,
                    what: "a section without a byte order",
                })?;
            }
            let kind = self.order.u32(head, 0);
            let length = self.order.u32(head, 4);
            if (length as usize) < FRAMING || !length.is_multiple_of(4) {
                let what = "a block whose length makes no sense";
                return Err(Problem::Corrupt { offset, what });
            }
            let read = matches!(
                kind,
                SECTION_HEADER
                    | INTERFACE_DESCRIPTION
                    | PACKET
                    | SIMPLE_PACKET
                    | INTERFACE_STATISTICS
                    | ENHANCED_PACKET
            );
            if !read {
                input
                    .skip(length.into())
                    .map_err(|problem| at(problem, offset))?;
                continue;
            }
            if length > MAX_BLOCK {
                let what = "a packet that claims to be longer than any network carries";
                return Err(Problem::Corrupt { offset, what });
            }
            // Looked at before it is taken, so that a packet can be given from the same bytes.
            let block = input.peek(length as usize)?;
            if block.len() < length as usize {
                return Err(Problem::Truncated { offset });
            }
            let body = block.get(8..block.len() - 4).unwrap_or_default();
            let corrupt = |what| Problem::Corrupt { offset, what };
            if self.order.u32(block, block.len() - 4) != length {
                return Err(corrupt("a block whose two lengths differ"));
            }
            match kind {
                SECTION_HEADER => {
                    self.base = interfaces.len();
                    self.scales.clear();
                }
                INTERFACE_DESCRIPTION => {
                    if interfaces.len() >= MAX_INTERFACES {
                        return Err(corrupt("more interfaces than any host has"));
                    }
                    let (interface, scale) = self.interface(body);
                    interfaces.push(interface);
                    self.scales.push(scale);
                }
                INTERFACE_STATISTICS => self.statistics(body, interfaces),
                _ => {
                    let packet = self.packet(kind, body, interfaces).map_err(corrupt)?;
                    break (packet, length as usize);
                }
            }
            input.take(length as usize)?;
        };
        self.last = found.timestamp;
        let block = input.take(range)?;
        let end = 8 + found.start + found.captured;
        Ok(Some(Recorded {
            timestamp: found.timestamp,
            interface: found.interface,
            link: found.link,
            original_len: found.original_len,
            data: block.get(8 + found.start..end).unwrap_or_default(),
        }))
    }

    fn interface(&self, body: &[u8]) -> (Interface, TimeScale) {
        let mut interface = Interface {
            snap_len: self.order.u32(body, 4),
            ..Interface::new(self.order.u16(body, 0).into())
        };
        let mut scale = TimeScale::default();
        for (code, value) in self.options(body.get(8..).unwrap_or_default()) {
            match (code, value.len()) {
                (IF_NAME, 1..=256) => {
                    interface.name = Some(String::from_utf8_lossy(value).into_owned());
                }
                (IF_TSRESOL, 1) => {
                    let exponent = value.first().copied().unwrap_or(6);
                    scale.per_second = match exponent {
                        // 2^127 and 10^38 are the largest that fit; no clock ticks like that.
                        binary @ 0x80.. => 1u128.checked_shl((binary & 0x7f).into()),
                        decimal => 10u128.checked_pow(decimal.into()),
                    }
                    .unwrap_or(u128::MAX);
                }
                (IF_TSOFFSET, 8) => {
                    scale.offset = self.order.u64(value, 0).cast_signed();
                }
                _ => {}
            }
        }
        (interface, scale)
    }

    fn statistics(&self, body: &[u8], interfaces: &mut [Interface]) {
        let index = self.base + self.order.u32(body, 0) as usize;
        let Some(interface) = interfaces.get_mut(index) else {
            return;
        };
        for (code, value) in self.options(body.get(12..).unwrap_or_default()) {
            match (code, value.len()) {
                (ISB_IFRECV, 8) => interface.received = Some(self.order.u64(value, 0)),
                (ISB_IFDROP, 8) => interface.dropped = Some(self.order.u64(value, 0)),
                _ => {}
            }
        }
    }

    fn options<'b>(&self, mut rest: &'b [u8]) -> impl Iterator<Item = (u16, &'b [u8])> + use<'b> {
        let order = self.order;
        std::iter::from_fn(move || {
            if rest.len() < 4 {
                return None;
            }
            let code = order.u16(rest, 0);
            let length = usize::from(order.u16(rest, 2));
            let value = rest.get(4..4 + length)?;
            rest = rest
                .get(4 + length.next_multiple_of(4)..)
                .unwrap_or_default();
            (code != OPTION_END).then_some((code, value))
        })
    }

    /// Where the packet of a block lies in its body.
    fn packet(
        &self,
        kind: u32,
        body: &[u8],
        interfaces: &[Interface],
    ) -> Result<Found, &'static str> {
        let order = self.order;
        let header = if kind == SIMPLE_PACKET { 4 } else { 20 };
        if body.len() < header {
            return Err("a packet block without a packet");
        }
        let number = match kind {
            ENHANCED_PACKET => order.u32(body, 0) as usize,
            PACKET => order.u16(body, 0).into(),
            _ => 0,
        };
        let interface = interfaces.get(self.base + number);
        let (Some(interface), Some(scale)) = (interface, self.scales.get(number)) else {
            return Err("a packet of an interface that was not described");
        };
        let (timestamp, captured, original_len) = if kind == SIMPLE_PACKET {
            let original = order.u32(body, 0);
            let limit = match interface.snap_len {
                0 => u32::MAX,
                limit => limit,
            };
            // A body is shorter than 4 GB.
            let there = (body.len() - header) as u32;
            (self.last, original.min(limit).min(there), original)
        } else {
            let units = (u64::from(order.u32(body, 4)) << 32) | u64::from(order.u32(body, 8));
            let lengths = (order.u32(body, 12), order.u32(body, 16));
            (scale.nanos(units), lengths.0, lengths.1)
        };
        if captured > MAX_PACKET || captured as usize > body.len() - header {
            return Err("a packet that is longer than its block");
        }
        Ok(Found {
            timestamp,
            // Fewer than MAX_INTERFACES.
            interface: (self.base + number) as u32,
            link: interface.link,
            original_len: original_len.max(captured),
            start: header,
            captured: captured as usize,
        })
    }
}

/// A packet, and where it lies in its block's body.
struct Found {
    timestamp: u64,
    interface: u32,
    link: u32,
    original_len: u32,
    start: usize,
    captured: usize,
}

fn section_order(head: &[u8]) -> Option<ByteOrder> {
    let magic: [u8; 4] = *head.get(8..)?.first_chunk()?;
    if magic == BYTE_ORDER.to_le_bytes() {
        Some(ByteOrder::Little)
    } else if magic == BYTE_ORDER.to_be_bytes() {
        Some(ByteOrder::Big)
    } else {
        None
    }
}
