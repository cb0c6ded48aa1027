//! Packets that were captured one after the other, decoded.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use millrace_capture::Frame;
use millrace_engine::{Payload, SHARED_FROM, part_of};
use millrace_wire::{FourTuple, TcpHeader, TcpPacket};

/// Packets and their payload.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    records: Vec<Record>,
    /// Short payload, one after the other.
    short: Vec<u8>,
    /// Bytes of long payload.
    long: usize,
    /// When its first packet was captured.
    pub(super) captured_at: Option<Instant>,
}

/// A packet but for its payload.
#[derive(Debug)]
struct Record {
    timestamp: u64,
    tuple: FourTuple,
    header: TcpHeader,
    /// Payload bytes on the wire.
    payload_len: usize,
    payload: Place,
}

/// Where payload is.
#[derive(Debug)]
enum Place {
    /// Among the short ones.
    Short { start: usize, len: usize },
    /// In memory of its own.
    Long(Bytes),
}

/// A packet of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Captured<'a> {
    /// When the kernel saw it, in nanoseconds since 1970.
    pub(crate) timestamp: u64,
    /// The packet.
    pub(crate) packet: TcpPacket<'a>,
    /// Its payload.
    pub(crate) payload: Payload<'a>,
}

impl Batch {
    /// Adds what a frame held.
    pub(super) fn push(&mut self, frame: &Frame<'_>, packet: &TcpPacket<'_>) {
        let payload = match frame.own.and_then(|own| part_of(own, packet.payload)) {
            Some(long) if long.len() >= SHARED_FROM => {
                self.long += long.len();
                Place::Long(long)
            }
            Some(_) | None => {
                let start = self.short.len();
                self.short.extend_from_slice(packet.payload);
                let len = packet.payload.len();
                Place::Short { start, len }
            }
        };
        self.records.push(Record {
            timestamp: frame.timestamp,
            tuple: packet.tuple,
            header: packet.header,
            payload_len: packet.payload_len,
            payload,
        });
    }

    /// The packets, in order.
    pub(crate) fn packets(&self) -> impl Iterator<Item = Captured<'_>> {
        self.records.iter().map(|record| {
            let payload = match &record.payload {
                Place::Short { start, len } => {
                    Payload::Borrowed(self.short.get(*start..*start + *len).unwrap_or_default())
                }
                Place::Long(bytes) => Payload::Shared(bytes),
            };
            Captured {
                timestamp: record.timestamp,
                packet: TcpPacket {
                    tuple: record.tuple,
                    header: record.header,
                    payload: payload.bytes(),
                    payload_len: record.payload_len,
                },
                payload,
            }
        })
    }

    /// How long it has waited.
    pub(crate) fn waited(&self) -> Duration {
        self.captured_at.map(|at| at.elapsed()).unwrap_or_default()
    }

    /// How long ago the kernel saw its first packet, no longer than this: the clock of the host may be set meanwhile.
    pub(super) fn age(&self, most: Duration) -> Duration {
        let first = self.records.first().map(|record| record.timestamp);
        let captured = first.map(|nanoseconds| UNIX_EPOCH + Duration::from_nanos(nanoseconds));
        let age = captured.and_then(|at| SystemTime::now().duration_since(at).ok());
        age.unwrap_or_default().min(most)
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Memory of what it holds, in bytes.
    pub(super) fn size(&self) -> usize {
        self.records.len() * size_of::<Record>() + self.short.len() + self.long
    }

    /// Bytes of all payloads.
    pub(crate) fn payload_len(&self) -> usize {
        self.short.len() + self.long
    }

    /// Empties it; keeps room for as much again.
    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.short.clear();
        self.long = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame<'a>(data: &'a [u8], own: Option<&'a Bytes>) -> Frame<'a> {
        Frame {
            data,
            own,
            original_len: data.len() as u32,
            timestamp: 7,
            outgoing: false,
            checksum_settled: false,
            vlan: None,
        }
    }

    fn packet(payload: &[u8]) -> TcpPacket<'_> {
        let end: std::net::SocketAddr = "198.18.0.1:80".parse().unwrap();
        TcpPacket {
            tuple: FourTuple::new(end.into(), end.into()),
            header: TcpHeader::default(),
            payload,
            payload_len: payload.len(),
        }
    }

    #[test]
    fn long_payload_is_not_copied_and_short_payload_is() {
        let whole = Bytes::from(vec![1; SHARED_FROM + 66]);
        let elsewhere = vec![2; SHARED_FROM];
        let mut batch = Batch::default();
        batch.push(&frame(&whole, Some(&whole)), &packet(&whole[66..]));
        batch.push(&frame(&whole, Some(&whole)), &packet(&whole[60..70]));
        batch.push(&frame(&whole, Some(&whole)), &packet(&elsewhere));
        batch.push(&frame(&[3; 100], None), &packet(&[3; 40]));
        assert_eq!(
            (batch.records.len(), batch.short.len()),
            (4, 10 + SHARED_FROM + 40)
        );
        assert_eq!(
            batch.size(),
            4 * size_of::<Record>() + batch.short.len() + SHARED_FROM
        );
        let all: Vec<_> = batch.packets().collect();
        assert!(
            matches!(all[0].payload, Payload::Shared(bytes) if bytes.as_ptr() == whole[66..].as_ptr())
        );
        assert_eq!(all[1].packet.payload, [1; 10]);
        assert_eq!(all[2].packet.payload, elsewhere);
        assert_eq!(all[3].packet.payload, [3; 40]);
        batch.clear();
        assert!(batch.is_empty() && batch.size() == 0);
    }
}
