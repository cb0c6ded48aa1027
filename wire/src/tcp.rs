//! The TCP header and its options (RFC 9293 3.1, RFC 7323, RFC 2018).

use std::fmt;
use std::ops::BitOr;

use crate::endpoint::FourTuple;
use crate::field::{u8_at, u16_at, u32_at};
use crate::seq::Seq;

/// Protocol number of TCP.
pub const PROTOCOL: u8 = 6;
/// Length of a header without options, in bytes.
pub const HEADER: usize = 20;
/// Where the checksum lies in the header, in bytes.
pub(crate) const CHECKSUM: usize = 16;
/// Longest possible options, in bytes (a data offset of 15 words).
pub const MAX_OPTIONS: usize = 40;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_WINDOW_SCALE: u8 = 3;
const OPTION_SACK_PERMITTED: u8 = 4;
const OPTION_SACK: u8 = 5;
const OPTION_TIMESTAMPS: u8 = 8;
const OPTION_MPTCP: u8 = 30;
/// The largest shift that counts; larger ones are read as this (RFC 7323 2.3).
pub const MAX_WINDOW_SCALE: u8 = 14;

/// The control bits of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronize sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push: the sender has no more to send for now.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer is valid.
    pub const URG: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These, but for `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::SYN, 'S'),
            (Self::FIN, 'F'),
            (Self::RST, 'R'),
            (Self::PSH, 'P'),
            (Self::ACK, '.'),
            (Self::URG, 'U'),
        ];
        names
            .iter()
            .filter(|(flag, _)| self.has(*flag))
            .try_for_each(|(_, c)| write!(f, "{c}"))
    }
}

/// Up to four selective acknowledgement blocks (RFC 2018 3), first edge included, last not.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct SackBlocks {
    blocks: [(Seq, Seq); 4],
    count: u8,
}

impl SackBlocks {
    /// No block.
    pub const EMPTY: Self = Self {
        blocks: [(Seq(0), Seq(0)); 4],
        count: 0,
    };

    /// Adds a block; more than four are ignored, as no header has room for them.
    pub fn push(&mut self, left: Seq, right: Seq) {
        if let Some(slot) = self.blocks.get_mut(usize::from(self.count)) {
            *slot = (left, right);
            self.count += 1;
        }
    }

    /// The blocks in the order in which they stand in the header.
    pub fn as_slice(&self) -> &[(Seq, Seq)] {
        self.blocks.get(..usize::from(self.count)).unwrap_or(&[])
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Debug for SackBlocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// Multipath TCP (RFC 8684 3, and RFC 6824 for version 0): what a segment says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mptcp {
    /// MP_CAPABLE: the first subflow of a connection.
    Capable {
        /// Version of the protocol.
        version: u8,
        /// The sender's key, where the option bears one.
        key: Option<u64>,
    },
    /// MP_JOIN: another subflow. The token of the connection that it joins, in a SYN.
    Join(Option<u32>),
    /// Anything else: it is about a subflow that exists.
    Other,
}

impl Mptcp {
    fn parse(option: &[u8]) -> Option<Self> {
        let first = u8_at(option, 2)?;
        Some(match (first >> 4, option.len()) {
            (0, _) => Self::Capable {
                version: first & 0x0f,
                key: u32_at(option, 4)
                    .zip(u32_at(option, 8))
                    .map(|(high, low)| u64::from(high) << 32 | u64::from(low)),
            },
            (1, 12) => Self::Join(u32_at(option, 4)),
            (1, _) => Self::Join(None),
            _ => Self::Other,
        })
    }
}

/// The options that a replay acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpOptions {
    /// Maximum segment size in bytes (RFC 9293 3.7.1).
    pub mss: Option<u16>,
    /// Window scale shift, at most 14 (RFC 7323 2).
    pub window_scale: Option<u8>,
    /// The sender accepts selective acknowledgements (RFC 2018 2).
    pub sack_permitted: bool,
    /// Timestamp value and echo reply (RFC 7323 3).
    pub timestamps: Option<(u32, u32)>,
    /// Selective acknowledgements.
    pub sack: SackBlocks,
    /// Multipath TCP. It is read and never written: copies are plain TCP.
    pub mptcp: Option<Mptcp>,
}

impl TcpOptions {
    /// Reads options up to their end or up to the first that makes no sense; what was read until
    /// then counts, as in the Linux receiver.
    pub fn parse(mut bytes: &[u8]) -> Self {
        let mut options = Self::default();
        while let Some(kind) = u8_at(bytes, 0) {
            let length = match kind {
                OPTION_END => break,
                OPTION_NOP => 1,
                _ => match u8_at(bytes, 1) {
                    Some(length @ 2..) => usize::from(length),
                    _ => break,
                },
            };
            let Some(body) = bytes.get(..length) else {
                break;
            };
            options.take(kind, body);
            bytes = bytes.get(length..).unwrap_or(&[]);
        }
        options
    }

    /// One option, header included; a length that is wrong for its kind means it is ignored.
    fn take(&mut self, kind: u8, body: &[u8]) {
        match (kind, body.len()) {
            (OPTION_MSS, 4) => self.mss = u16_at(body, 2),
            (OPTION_WINDOW_SCALE, 3) => {
                self.window_scale = u8_at(body, 2).map(|shift| shift.min(MAX_WINDOW_SCALE));
            }
            (OPTION_SACK_PERMITTED, 2) => self.sack_permitted = true,
            (OPTION_TIMESTAMPS, 10) => self.timestamps = u32_at(body, 2).zip(u32_at(body, 6)),
            (OPTION_SACK, length) if length >= 10 && (length - 2) % 8 == 0 => {
                for block in body.get(2..).unwrap_or(&[]).chunks_exact(8) {
                    if let Some((left, right)) = u32_at(block, 0).zip(u32_at(block, 4)) {
                        self.sack.push(Seq(left), Seq(right));
                    }
                }
            }
            // Of several the first says what kind of segment it is.
            (OPTION_MPTCP, _) => self.mptcp = self.mptcp.or(Mptcp::parse(body)),
            _ => {}
        }
    }

    /// Writes the options into `out`, padded to whole words, and gives their length in bytes.
    /// Selective acknowledgements that no longer fit are left out, the last ones first.
    pub fn emit(&self, out: &mut [u8; MAX_OPTIONS]) -> usize {
        let mut writer = Writer { out, len: 0 };
        if let Some(mss) = self.mss {
            let [a, b] = mss.to_be_bytes();
            writer.put(&[OPTION_MSS, 4, a, b]);
        }
        match (self.sack_permitted, self.timestamps) {
            (true, Some(_)) => writer.put(&[OPTION_SACK_PERMITTED, 2]),
            (true, None) => writer.put(&[OPTION_NOP, OPTION_NOP, OPTION_SACK_PERMITTED, 2]),
            (false, Some(_)) => writer.put(&[OPTION_NOP, OPTION_NOP]),
            (false, None) => {}
        }
        if let Some((value, echo)) = self.timestamps {
            writer.put(&[OPTION_TIMESTAMPS, 10]);
            writer.put(&value.to_be_bytes());
            writer.put(&echo.to_be_bytes());
        }
        if let Some(shift) = self.window_scale {
            writer.put(&[OPTION_NOP, OPTION_WINDOW_SCALE, 3, shift]);
        }
        let room = (MAX_OPTIONS - writer.len).saturating_sub(4) / 8;
        let blocks = self.sack.as_slice();
        let blocks = blocks.get(..room.min(blocks.len())).unwrap_or(&[]);
        if !blocks.is_empty() {
            // At most four blocks: 2 + 8 * 4 fits a byte.
            writer.put(&[
                OPTION_NOP,
                OPTION_NOP,
                OPTION_SACK,
                2 + 8 * blocks.len() as u8,
            ]);
            for (left, right) in blocks {
                writer.put(&left.0.to_be_bytes());
                writer.put(&right.0.to_be_bytes());
            }
        }
        writer.len
    }
}

struct Writer<'a> {
    out: &'a mut [u8; MAX_OPTIONS],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        if let Some(room) = self.out.get_mut(self.len..end) {
            room.copy_from_slice(bytes);
            self.len = end;
        }
    }
}

/// The fields of a TCP header that a replay acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpHeader {
    /// Sequence number of the first byte, or of the SYN.
    pub seq: Seq,
    /// Acknowledgement number; meaningless without [`Flags::ACK`].
    pub ack: Seq,
    /// Control bits.
    pub flags: Flags,
    /// Window as it stands in the header, not scaled.
    pub window: u16,
    /// Urgent pointer; meaningless without [`Flags::URG`].
    pub urgent: u16,
    /// Options.
    pub options: TcpOptions,
}

/// A decoded TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPacket<'a> {
    /// Both ends, source first.
    pub tuple: FourTuple,
    /// The header.
    pub header: TcpHeader,
    /// The payload as far as it was captured.
    pub payload: &'a [u8],
    /// Length of the payload on the wire; more than `payload.len()` when capture cut the packet.
    pub payload_len: usize,
}

impl TcpPacket<'_> {
    /// Whether capture cut the payload.
    pub const fn is_cut(&self) -> bool {
        self.payload.len() < self.payload_len
    }

    /// The sequence number behind everything in this segment, SYN and FIN included.
    pub fn seq_end(&self) -> Seq {
        let controls = u32::from(self.header.flags.has(Flags::SYN))
            + u32::from(self.header.flags.has(Flags::FIN));
        // A payload is shorter than 2^32: its length came from a frame in memory.
        self.header.seq.add(self.payload_len as u32).add(controls)
    }
}

/// A TCP segment's ports, header and payload.
pub(crate) struct Segment<'a> {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) header: TcpHeader,
    pub(crate) header_len: usize,
    pub(crate) payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment from the bytes behind an IP header. `None` when the header was cut or its
    /// length makes no sense.
    pub(crate) fn new(bytes: &'a [u8]) -> Option<Self> {
        let header_len = usize::from(u8_at(bytes, 12)? >> 4) * 4;
        if header_len < HEADER {
            return None;
        }
        let options = bytes.get(HEADER..header_len)?;
        Some(Self {
            source_port: u16_at(bytes, 0)?,
            destination_port: u16_at(bytes, 2)?,
            header: TcpHeader {
                seq: Seq(u32_at(bytes, 4)?),
                ack: Seq(u32_at(bytes, 8)?),
                flags: Flags(u8_at(bytes, 13)? & 0x3f),
                window: u16_at(bytes, 14)?,
                urgent: u16_at(bytes, 18)?,
                options: TcpOptions::parse(options),
            },
            header_len,
            payload: bytes.get(header_len..)?,
        })
    }
}
