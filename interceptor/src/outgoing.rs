//! Headers on their way to copiers: one batch for each stream, sent when it is full or when the
//! worker has nothing more to read.

use std::collections::HashMap;

use millrace_channel::server::HeaderQueue;
use millrace_proto::header::MAX_HEADER_BYTES;
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
        let Some(stream) = self.streams.get_mut(&conn) else {
            self.dropped += 1;
            return;
        };
        // The two ends of a captured packet are of one family, so encoding cannot fail.
        if header.encode(&mut stream.bytes).is_ok() {
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
