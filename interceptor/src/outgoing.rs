//! Headers on their way to copiers: one batch for each stream, sent when it is full or when the
//! worker has nothing more to read.

use std::collections::HashMap;

use millrace_channel::server::HeaderQueue;
use millrace_proto::header::{MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES};
use millrace_proto::{BATCH_BYTES, HeaderRecord};
use millrace_routes::interceptor::ConnId;

/// A stream, and what waits for it.
#[derive(Debug)]
struct Stream {
    queue: HeaderQueue,
    bytes: Vec<u8>,
    count: u32,
}

/// The batches.
#[derive(Debug, Default)]
pub struct Outgoing {
    streams: HashMap<ConnId, Stream>,
    dropped: u64,
}

impl Outgoing {
    /// A stream is open, and reads from this queue.
    pub fn attach(&mut self, conn: ConnId, queue: HeaderQueue) {
        let stream = Stream {
            queue,
            bytes: Vec::new(),
            count: 0,
        };
        self.streams.insert(conn, stream);
    }

    /// The stream is gone.
    pub fn detach(&mut self, conn: ConnId) {
        let stream = self.streams.remove(&conn);
        self.dropped += stream.map_or(0, |stream| u64::from(stream.count));
    }

    /// What else is said on a stream goes into this queue, beside headers.
    pub fn queue(&self, conn: ConnId) -> Option<&HeaderQueue> {
        self.streams.get(&conn).map(|stream| &stream.queue)
    }

    /// Adds a header for the stream `conn`.
    pub fn push(&mut self, conn: ConnId, header: &HeaderRecord) {
        self.push_part(conn, header, &[]);
    }

    /// Adds a segment for the stream `conn`, with its payload as far as it was captured: as several records where one does
    /// not take it. Gives their number.
    pub fn push_segment(&mut self, conn: ConnId, header: &HeaderRecord, payload: &[u8]) -> u64 {
        let mut parts = 0;
        each_part(header, payload, |part, payload| {
            parts += 1;
            self.push_part(conn, part, payload);
        });
        parts
    }

    fn push_part(&mut self, conn: ConnId, header: &HeaderRecord, payload: &[u8]) {
        let Some(stream) = self.streams.get_mut(&conn) else {
            self.dropped += 1;
            return;
        };
        if stream.bytes.len() + MAX_HEADER_BYTES + 2 + payload.len() > BATCH_BYTES {
            self.dropped += stream.send();
        }
        // The two ends of a captured packet are of one family, so encoding cannot fail.
        if header.encode_with(payload, &mut stream.bytes).is_ok() {
            stream.count += 1;
        }
        if stream.bytes.len() + MAX_HEADER_BYTES > BATCH_BYTES {
            self.dropped += stream.send();
        }
    }

    /// Sends everything. Says whether there was anything.
    pub fn flush(&mut self) -> bool {
        let mut any = false;
        for stream in self.streams.values_mut() {
            any |= stream.count > 0;
            self.dropped += stream.send();
        }
        any
    }

    /// Headers that were dropped because their copier read too slowly.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Gives the parts in which a segment is told, in order. What of its payload was not captured is a part of its own, without
/// any.
fn each_part(header: &HeaderRecord, payload: &[u8], mut take: impl FnMut(&HeaderRecord, &[u8])) {
    let mut offset = 0;
    for chunk in payload.chunks(MAX_PAYLOAD_BYTES) {
        // At most MAX_PAYLOAD_BYTES.
        let len = chunk.len() as u32;
        take(&part(header, offset, len), chunk);
        offset += len;
    }
    let missing = header.payload_len.saturating_sub(offset);
    if missing > 0 || offset == 0 {
        take(&part(header, offset, missing), &[]);
    }
}

/// So many bytes of a segment, from an offset: the first ones with a SYN, the last ones with what ends it.
fn part(header: &HeaderRecord, offset: u32, len: u32) -> HeaderRecord {
    /// FIN and PSH are of the last octet (RFC 9293 3.1).
    const OF_THE_END: u8 = 0x01 | 0x08;
    /// SYN is of the first.
    const SYN: u8 = 0x02;
    let mut part = *header;
    part.payload_len = len;
    if offset > 0 {
        let syn = u32::from(header.flags & SYN != 0);
        part.seq = header.seq.wrapping_add(offset).wrapping_add(syn);
        part.flags &= !SYN;
    }
    if offset + len < header.payload_len {
        part.flags &= !OF_THE_END;
    }
    part
}

impl Stream {
    /// Gives the number of headers that found no room.
    fn send(&mut self) -> u64 {
        let (bytes, count) = (
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.count),
        );
        if count > 0 {
            self.queue.push(bytes, count)
        } else {
            0
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use millrace_proto::{FlowKey, HeaderRecords};

    use super::*;

    const FIN_PSH_ACK: u8 = 0x19;

    fn header(payload_len: u32) -> HeaderRecord {
        HeaderRecord {
            key: FlowKey::Id(7),
            seq: u32::MAX - 100,
            ack: 5,
            flags: FIN_PSH_ACK,
            window: 100,
            payload_len,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: Some((1, 2)),
            sack: Default::default(),
            sack_count: 0,
        }
    }

    /// Sequence number, flags, length and payload of what a stream gets of a segment.
    fn told(payload_len: u32, payload: &[u8]) -> Vec<(u32, u8, u32, Vec<u8>)> {
        let mut bytes = Vec::new();
        each_part(&header(payload_len), payload, |part, payload| {
            part.encode_with(payload, &mut bytes).unwrap();
        });
        HeaderRecords::new(&bytes)
            .map(|it| it.unwrap())
            .map(|it| {
                (
                    it.header.seq,
                    it.header.flags,
                    it.header.payload_len,
                    it.payload.to_vec(),
                )
            })
            .collect()
    }

    #[test]
    fn a_segment_of_usual_size_is_told_in_one() {
        let first = u32::MAX - 100;
        assert_eq!(told(0, &[]), [(first, FIN_PSH_ACK, 0, vec![])]);
        assert_eq!(told(3, b"abc"), [(first, FIN_PSH_ACK, 3, b"abc".to_vec())]);
        assert_eq!(
            told(3, &[]),
            [(first, FIN_PSH_ACK, 3, vec![])],
            "not captured"
        );
    }

    #[test]
    fn the_first_octets_alone_come_with_a_syn() {
        let syn = HeaderRecord {
            flags: 0x1a,
            ..header(20_000)
        };
        let mut parts = Vec::new();
        each_part(&syn, &[0; 20_000], |part, _| {
            parts.push((part.seq, part.flags))
        });
        // SYN has a sequence number of its own.
        let second = syn.seq.wrapping_add(1 + 16_384);
        assert_eq!(parts, [(syn.seq, 0x12), (second, 0x18)]);
    }

    #[test]
    fn a_super_segment_is_told_in_parts_that_are_together_the_same() {
        let payload: Vec<u8> = (0..40_000u32).map(|it| it as u8).collect();
        for captured in [40_000, 39_999, 16_384, 1] {
            let told = told(40_000, &payload[..captured]);
            let (mut next, mut bytes) = (u32::MAX - 100, Vec::new());
            for (n, (seq, flags, len, part)) in told.iter().enumerate() {
                assert_eq!(*seq, next);
                next = next.wrapping_add(*len);
                let is_last = n + 1 == told.len();
                assert_eq!(*flags, if is_last { FIN_PSH_ACK } else { 0x10 });
                assert!(part.is_empty() || part.len() == *len as usize);
                bytes.extend_from_slice(part);
            }
            assert_eq!(next, (u32::MAX - 100).wrapping_add(40_000));
            assert_eq!(bytes, payload[..captured]);
        }
    }
}
