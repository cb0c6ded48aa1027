//! Response headers, packed: the `bytes` of `Headers`.
//!
//! A header record, all big-endian. A plain ACK of an announced flow takes 24 bytes, with
//! timestamps 32:
//!
//! ```text
//! size  field
//!    1  shape: bit 0     the key is a tuple (else a flow id)
//!              bit 1     the tuple is IPv6 (only with bit 0)
//!              bit 2     timestamps follow
//!              bit 3     SYN options follow
//!              bits 4-6  number of SACK blocks, 0 to 4
//!              bit 7     payload follows, of a flow that asks for it
//!    1  TCP flags, as in octet 13 of the TCP header (RFC 9293, section 3.1)
//!    2  window, as on the wire (not scaled)
//!  key  flow id: 8
//!       tuple IPv4: target ip 4, target port 2, client ip 4, client port 2
//!       tuple IPv6: target ip 16, target port 2, client ip 16, client port 2
//!    4  sequence number
//!    4  acknowledgement number
//!    4  payload length: more than 65535 for a super-packet (GSO, BIG TCP)
//!   +8  timestamps: TSval 4, TSecr 4 (RFC 7323, section 3.2)
//!   +4  SYN options: presence 1 (bit 0 MSS, bit 1 window scale, bit 2 SACK permitted; not 0),
//!       MSS 2, window scale 1; absent values are zero
//! +8*n  SACK blocks: left edge 4, right edge 4 each (RFC 2018, section 3)
//!   +2  length of the payload that follows, 1 to 16384 and no more than the payload length
//! +len  the first bytes of the payload
//! ```

use std::net::SocketAddr;

use crate::bytes::{Family, Reader, put_pair};
use crate::flow::FlowId;
use crate::{DecodeError, MixedFamilies};

/// The largest encoded header record, without payload. Bytes.
pub const MAX_HEADER_BYTES: usize = 4 + 36 + 12 + 8 + 4 + 4 * 8;

/// The most payload that one record carries. A longer segment is told as several. Bytes.
pub const MAX_PAYLOAD_BYTES: usize = 16 * 1024;

/// The most SACK blocks that fit into TCP's option space.
pub const MAX_SACK_BLOCKS: usize = 4;

const TUPLE: u8 = 1 << 0;
const V6: u8 = 1 << 1;
const TIMESTAMPS: u8 = 1 << 2;
const SYN_OPTIONS: u8 = 1 << 3;
const SACK_SHIFT: u8 = 4;
const PAYLOAD: u8 = 1 << 7;

const HAS_MSS: u8 = 1 << 0;
const HAS_WINDOW_SCALE: u8 = 1 << 1;
const HAS_SACK_PERMITTED: u8 = 1 << 2;

/// Which flow a response header belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// The flow that the copier announced under this id.
    Id(FlowId),
    /// A flow inside a claim, by its addresses.
    Tuple {
        /// The tested service: the packet's source.
        target: SocketAddr,
        /// The replica's own end: the packet's destination.
        client: SocketAddr,
    },
}

/// What a copier needs to know of a packet that the target sent to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HeaderRecord {
    /// The flow.
    pub key: FlowKey,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number; meaningful with the ACK flag.
    pub ack: u32,
    /// TCP flags, as in octet 13 of the TCP header.
    pub flags: u8,
    /// Window, as on the wire (not scaled).
    pub window: u16,
    /// Bytes of payload that the packet had.
    pub payload_len: u32,
    /// Maximum segment size option, of a SYN.
    pub mss: Option<u16>,
    /// Window scale option, of a SYN.
    pub window_scale: Option<u8>,
    /// SACK permitted option, of a SYN.
    pub sack_permitted: bool,
    /// Timestamps option: (TSval, TSecr).
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks: (left edge, right edge); the first `sack_count` are valid, the others zero.
    pub sack: [(u32, u32); MAX_SACK_BLOCKS],
    /// Number of SACK blocks. More than 4 counts as 4.
    pub sack_count: u8,
}

impl HeaderRecord {
    /// The SACK blocks of the packet.
    pub fn sack_blocks(&self) -> &[(u32, u32)] {
        let count = usize::from(self.sack_count).min(MAX_SACK_BLOCKS);
        self.sack.get(..count).unwrap_or_default()
    }

    /// Appends the record to `out`.
    ///
    /// # Errors
    /// [`MixedFamilies`] when the two ends of a tuple are not of one address family; `out` is
    /// untouched then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), MixedFamilies> {
        self.encode_with(&[], out)
    }

    /// Appends the record to `out`, with the first bytes of its payload: at most
    /// [`MAX_PAYLOAD_BYTES`], and no more than [`HeaderRecord::payload_len`]. What is beyond is left out.
    ///
    /// # Errors
    /// As [`HeaderRecord::encode`].
    pub fn encode_with(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), MixedFamilies> {
        let most = MAX_PAYLOAD_BYTES.min(self.payload_len as usize);
        let payload = payload.get(..most).unwrap_or(payload);
        let blocks = self.sack_blocks();
        let mut shape = (blocks.len() as u8) << SACK_SHIFT;
        if let FlowKey::Tuple { target, client } = self.key {
            shape |= match Family::of(target, client)? {
                Family::V4 => TUPLE,
                Family::V6 => TUPLE | V6,
            };
        }
        if self.timestamps.is_some() {
            shape |= TIMESTAMPS;
        }
        let presence = self.syn_option_presence();
        if presence != 0 {
            shape |= SYN_OPTIONS;
        }
        if !payload.is_empty() {
            shape |= PAYLOAD;
        }

        out.push(shape);
        out.push(self.flags);
        out.extend_from_slice(&self.window.to_be_bytes());
        match self.key {
            FlowKey::Id(id) => out.extend_from_slice(&id.to_be_bytes()),
            FlowKey::Tuple { target, client } => put_pair(out, target, client),
        }
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.ack.to_be_bytes());
        out.extend_from_slice(&self.payload_len.to_be_bytes());
        if let Some((value, echo)) = self.timestamps {
            out.extend_from_slice(&value.to_be_bytes());
            out.extend_from_slice(&echo.to_be_bytes());
        }
        if presence != 0 {
            out.push(presence);
            out.extend_from_slice(&self.mss.unwrap_or(0).to_be_bytes());
            out.push(self.window_scale.unwrap_or(0));
        }
        for (left, right) in blocks {
            out.extend_from_slice(&left.to_be_bytes());
            out.extend_from_slice(&right.to_be_bytes());
        }
        if !payload.is_empty() {
            // At most MAX_PAYLOAD_BYTES.
            out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            out.extend_from_slice(payload);
        }
        Ok(())
    }

    fn syn_option_presence(&self) -> u8 {
        let mut presence = 0;
        if self.mss.is_some() {
            presence |= HAS_MSS;
        }
        if self.window_scale.is_some() {
            presence |= HAS_WINDOW_SCALE;
        }
        if self.sack_permitted {
            presence |= HAS_SACK_PERMITTED;
        }
        presence
    }

    fn decode<'a>(reader: &mut Reader<'a>) -> Result<Response<'a>, DecodeError> {
        let shape = reader.u8()?;
        let sack_count = (shape & !PAYLOAD) >> SACK_SHIFT;
        let v6_without_tuple = shape & (TUPLE | V6) == V6;
        if v6_without_tuple || usize::from(sack_count) > MAX_SACK_BLOCKS {
            return Err(DecodeError::Flags(shape));
        }
        let flags = reader.u8()?;
        let window = reader.u16()?;
        let key = if shape & TUPLE == 0 {
            FlowKey::Id(reader.u64()?)
        } else {
            let family = if shape & V6 == 0 {
                Family::V4
            } else {
                Family::V6
            };
            let (target, client) = reader.pair(family)?;
            FlowKey::Tuple { target, client }
        };
        let mut record = HeaderRecord {
            key,
            seq: reader.u32()?,
            ack: reader.u32()?,
            flags,
            window,
            payload_len: reader.u32()?,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            sack: [(0, 0); MAX_SACK_BLOCKS],
            sack_count,
        };
        if shape & TIMESTAMPS != 0 {
            record.timestamps = Some((reader.u32()?, reader.u32()?));
        }
        if shape & SYN_OPTIONS != 0 {
            record.decode_syn_options(reader)?;
        }
        for block in record.sack.iter_mut().take(usize::from(sack_count)) {
            *block = (reader.u32()?, reader.u32()?);
        }
        let payload = match shape & PAYLOAD {
            0 => &[],
            _ => read_payload(reader, record.payload_len)?,
        };
        Ok(Response {
            header: record,
            payload,
        })
    }

    fn decode_syn_options(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let presence = reader.u8()?;
        if presence == 0 || presence & !(HAS_MSS | HAS_WINDOW_SCALE | HAS_SACK_PERMITTED) != 0 {
            return Err(DecodeError::Flags(presence));
        }
        let mss = reader.u16()?;
        let window_scale = reader.u8()?;
        self.mss = (presence & HAS_MSS != 0).then_some(mss);
        self.window_scale = (presence & HAS_WINDOW_SCALE != 0).then_some(window_scale);
        self.sack_permitted = presence & HAS_SACK_PERMITTED != 0;
        if self.mss.unwrap_or(0) != mss || self.window_scale.unwrap_or(0) != window_scale {
            return Err(DecodeError::NotCanonical);
        }
        Ok(())
    }
}

fn read_payload<'a>(reader: &mut Reader<'a>, most: u32) -> Result<&'a [u8], DecodeError> {
    let len = reader.u16()?;
    if len == 0 || usize::from(len) > MAX_PAYLOAD_BYTES || u32::from(len) > most {
        return Err(DecodeError::PayloadLength(len));
    }
    reader.bytes(len.into())
}

/// What a record says: a header, and what was carried of its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// The header.
    pub header: HeaderRecord,
    /// The first bytes of the payload; empty where the flow has not asked for it.
    pub payload: &'a [u8],
}

/// The records in the `bytes` of a `Headers`. Ends after the first error.
#[derive(Debug, Clone)]
pub struct HeaderRecords<'a>(Reader<'a>);

impl<'a> HeaderRecords<'a> {
    /// Reads `bytes`, whatever they are.
    pub fn new(bytes: &'a [u8]) -> Self {
        HeaderRecords(Reader(bytes))
    }
}

impl<'a> Iterator for HeaderRecords<'a> {
    type Item = Result<Response<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = HeaderRecord::decode(&mut self.0);
        if record.is_err() {
            self.0 = Reader(&[]);
        }
        Some(record)
    }
}
