//! Route info, packed: the `bytes` of `Announce` and `Forget`.
//!
//! A flow record, 21 bytes for IPv4 and 45 for IPv6, all big-endian:
//!
//! ```text
//! 0      8        9           9+A        11+A        11+2A       13+2A
//! +------+--------+-----------+-----------+-----------+-----------+
//! |  id  | family | target ip |target port| client ip |client port|   A = 4 or 16
//! +------+--------+-----------+-----------+-----------+-----------+
//! ```
//!
//! `id` is chosen by the copier and unique among all its flows until it has forgotten it; `family`
//! is 4 or 6, with bit 7 set where responses are to come with their payload; `client` is the source address and port of the replica as the target sees it. A target
//! of `0.0.0.0:0` or `[::]:0` stands for any: its address changes on the way, and the flow is known by
//! its client alone.
//! A list of forgotten flows is their ids, 8 bytes each, without anything between.

use std::net::SocketAddr;

use crate::bytes::{Family, Reader, put_pair};
use crate::{DecodeError, MixedFamilies};

/// A copier's number for a flow.
pub type FlowId = u64;

/// The largest encoded flow record. Bytes.
pub const MAX_FLOW_BYTES: usize = 8 + 1 + 2 * 18;

/// The encoded flow id. Bytes.
pub const FLOW_ID_BYTES: usize = 8;

/// Of the family octet: responses are to come with their payload.
const WITH_PAYLOAD: u8 = 1 << 7;

/// One announced flow. Announced again under the same id, it replaces what was said before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowRecord {
    /// The copier's number for it.
    pub id: FlowId,
    /// The tested service.
    pub target: SocketAddr,
    /// The replica's own end, as the target sees it.
    pub client: SocketAddr,
    /// Whether responses are to come with their payload. Only for an interceptor whose
    /// [`Welcome`](crate::v1::Welcome) says that it carries payload.
    pub with_payload: bool,
}

impl FlowRecord {
    /// Appends the record to `out`.
    ///
    /// # Errors
    /// [`MixedFamilies`] when the two ends are not of one address family; `out` is untouched then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), MixedFamilies> {
        let family = match Family::of(self.target, self.client)? {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        let wish = if self.with_payload { WITH_PAYLOAD } else { 0 };
        out.extend_from_slice(&self.id.to_be_bytes());
        out.push(family | wish);
        put_pair(out, self.target, self.client);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<FlowRecord, DecodeError> {
        let id = reader.u64()?;
        let octet = reader.u8()?;
        let family = match octet & !WITH_PAYLOAD {
            4 => Family::V4,
            6 => Family::V6,
            _ => return Err(DecodeError::Family(octet)),
        };
        let (target, client) = reader.pair(family)?;
        Ok(FlowRecord {
            id,
            target,
            client,
            with_payload: octet & WITH_PAYLOAD != 0,
        })
    }
}

/// The records in the `bytes` of an `Announce`. Ends after the first error.
#[derive(Debug, Clone)]
pub struct FlowRecords<'a>(Reader<'a>);

impl<'a> FlowRecords<'a> {
    /// Reads `bytes`, whatever they are.
    pub fn new(bytes: &'a [u8]) -> Self {
        FlowRecords(Reader(bytes))
    }
}

impl Iterator for FlowRecords<'_> {
    type Item = Result<FlowRecord, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = FlowRecord::decode(&mut self.0);
        if record.is_err() {
            self.0 = Reader(&[]);
        }
        Some(record)
    }
}

/// Appends a flow id to the `bytes` of a `Forget`.
pub fn encode_flow_id(id: FlowId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
}

/// The ids in the `bytes` of a `Forget`. Ends after the first error.
#[derive(Debug, Clone)]
pub struct FlowIds<'a>(Reader<'a>);

impl<'a> FlowIds<'a> {
    /// Reads `bytes`, whatever they are.
    pub fn new(bytes: &'a [u8]) -> Self {
        FlowIds(Reader(bytes))
    }
}

impl Iterator for FlowIds<'_> {
    type Item = Result<FlowId, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let id = self.0.u64();
        if id.is_err() {
            self.0 = Reader(&[]);
        }
        Some(id)
    }
}

/// Checks the whole `bytes` of an `Announce`; returns the number of records.
///
/// # Errors
/// The first record that cannot be decoded.
pub fn check_flows(bytes: &[u8]) -> Result<usize, DecodeError> {
    FlowRecords::new(bytes).try_fold(0, |count, record| record.map(|_| count + 1))
}

/// Checks the whole `bytes` of a `Forget`; returns the number of ids.
///
/// # Errors
/// [`DecodeError::Truncated`] when the length is not a multiple of 8.
pub fn check_flow_ids(bytes: &[u8]) -> Result<usize, DecodeError> {
    if bytes.len().is_multiple_of(FLOW_ID_BYTES) {
        Ok(bytes.len() / FLOW_ID_BYTES)
    } else {
        Err(DecodeError::Truncated)
    }
}
