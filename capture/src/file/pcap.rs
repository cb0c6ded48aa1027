//! The pcap format, <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-05.html>: a header, and
//! packets with a header each.

use super::error::Problem;
use super::input::Input;
use super::reader::{Interface, MAX_PACKET, Recorded};

/// Length of the file's header in bytes, its magic number included.
const FILE_HEADER: usize = 24;
/// Length of a packet's header in bytes.
const PACKET_HEADER: usize = 16;
/// What the "modified" format of some old systems has behind it.
const MODIFIED_REST: usize = 8;
/// The link type shares its field with the length of a frame check sequence (section 4).
const LINK_TYPE: u32 = 0x03ff_ffff;

/// How the numbers of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: &[u8], at: usize) -> u16 {
        match (self, bytes.get(at..).and_then(|rest| rest.first_chunk())) {
            (_, None) => 0,
            (Self::Little, Some(number)) => u16::from_le_bytes(*number),
            (Self::Big, Some(number)) => u16::from_be_bytes(*number),
        }
    }

    pub(super) fn u32(self, bytes: &[u8], at: usize) -> u32 {
        match (self, bytes.get(at..).and_then(|rest| rest.first_chunk())) {
            (_, None) => 0,
            (Self::Little, Some(number)) => u32::from_le_bytes(*number),
            (Self::Big, Some(number)) => u32::from_be_bytes(*number),
        }
    }

    pub(super) fn u64(self, bytes: &[u8], at: usize) -> u64 {
        match (self, bytes.get(at..).and_then(|rest| rest.first_chunk())) {
            (_, None) => 0,
            (Self::Little, Some(number)) => u64::from_le_bytes(*number),
            (Self::Big, Some(number)) => u64::from_be_bytes(*number),
        }
    }
}

/// A pcap file behind its header.
#[derive(Debug)]
pub(super) struct Pcap {
    order: ByteOrder,
    /// Nanoseconds in one unit of a time stamp's fraction.
    unit: u32,
    modified: bool,
    link: u32,
}

/// Whether a file that begins with these bytes is a pcap file.
pub(super) fn is_pcap(beginning: &[u8]) -> bool {
    kind(beginning).is_some()
}

fn kind(beginning: &[u8]) -> Option<(ByteOrder, u32, bool)> {
    let magic: [u8; 4] = *beginning.first_chunk()?;
    [
        (0xa1b2_c3d4, 1000, false),
        (0xa1b2_3c4d, 1, false),
        (0xa1b2_cd34, 1000, true),
    ]
    .into_iter()
    .find_map(|(number, unit, modified): (u32, u32, bool)| {
        let order = if magic == number.to_le_bytes() {
            ByteOrder::Little
        } else if magic == number.to_be_bytes() {
            ByteOrder::Big
        } else {
            return None;
        };
        Some((order, unit, modified))
    })
}

impl Pcap {
    /// Reads the header of the file.
    pub(super) fn begin(input: &mut Input) -> Result<(Self, Interface), Problem> {
        let header = input.take(FILE_HEADER)?;
        let Some((order, unit, modified)) = kind(header) else {
            return Err(Problem::Corrupt {
                offset: 0,
                what: "not the magic number of a pcap file",
            });
        };
        let link = order.u32(header, 20) & LINK_TYPE;
        let interface = Interface {
            snap_len: order.u32(header, 16),
            ..Interface::new(link)
        };
        let pcap = Self {
            order,
            unit,
            modified,
            link,
        };
        Ok((pcap, interface))
    }

    /// The next packet; `None` at the end.
    pub(super) fn next<'i>(&self, input: &'i mut Input) -> Result<Option<Recorded<'i>>, Problem> {
        let offset = input.offset();
        let header = input.peek(PACKET_HEADER)?;
        if header.is_empty() {
            return Ok(None);
        }
        if header.iter().all(|byte| *byte == 0) && input.is_padding()? {
            return Ok(None);
        }
        let header = input.peek(PACKET_HEADER)?;
        if header.len() < PACKET_HEADER {
            return Err(Problem::Truncated { offset });
        }
        let seconds = u64::from(self.order.u32(header, 0));
        let fraction = u64::from(self.order.u32(header, 4)) * u64::from(self.unit);
        let captured = self.order.u32(header, 8);
        let original_len = self.order.u32(header, 12);
        if captured > MAX_PACKET {
            let what = "a packet that claims to be longer than any network carries";
            return Err(Problem::Corrupt { offset, what });
        }
        let header = if self.modified {
            PACKET_HEADER + MODIFIED_REST
        } else {
            PACKET_HEADER
        };
        let all = input
            .take(header + captured as usize)
            .map_err(|problem| at(problem, offset))?;
        Ok(Some(Recorded {
            timestamp: seconds * 1_000_000_000 + fraction,
            interface: 0,
            link: self.link,
            original_len: original_len.max(captured),
            data: all.get(header..).unwrap_or_default(),
        }))
    }
}

/// A file that ends early is cut where the packet or block begins.
pub(super) fn at(problem: Problem, offset: u64) -> Problem {
    match problem {
        Problem::Truncated { .. } => Problem::Truncated { offset },
        other @ (Problem::Open(_)
        | Problem::Read { .. }
        | Problem::Empty
        | Problem::NoRecording(_)
        | Problem::Corrupt { .. }) => other,
    }
}
