//! Headers on their way to copiers: one batch for each stream, sent when it is full or when the
//! worker has nothing more to read.

use std::collections::HashMap;

use millrace_channel::server::ConnId;
use millrace_proto::header::MAX_HEADER_BYTES;
use millrace_proto::{BATCH_BYTES, HeaderRecord};

use crate::owners::Owners;

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

/// The batches.
#[derive(Debug, Default)]
pub struct Outgoing {
    batches: HashMap<ConnId, Batch>,
    dropped: u64,
}

impl Outgoing {
    /// Adds a header for the stream `conn`.
    pub fn push(&mut self, owners: &Owners, conn: ConnId, header: &HeaderRecord) {
        let batch = self.batches.entry(conn).or_default();
        // The two ends of a captured packet are of one family, so encoding cannot fail.
        if header.encode(&mut batch.bytes).is_ok() {
            batch.count += 1;
        }
        if batch.bytes.len() + MAX_HEADER_BYTES > BATCH_BYTES {
            self.dropped += send(owners, conn, batch);
        }
    }

    /// Sends everything. Says whether there was anything.
    pub fn flush(&mut self, owners: &Owners) -> bool {
        let mut any = false;
        for (conn, batch) in &mut self.batches {
            any |= batch.count > 0;
            self.dropped += send(owners, *conn, batch);
        }
        any
    }

    /// The stream is gone.
    pub fn detach(&mut self, conn: ConnId) {
        self.batches.remove(&conn);
    }

    /// Headers that were dropped because their copier read too slowly.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn send(owners: &Owners, conn: ConnId, batch: &mut Batch) -> u64 {
    let Batch { bytes, count } = std::mem::take(batch);
    match owners.stream(conn) {
        Some(who) if count > 0 => who.queue.push(bytes, count),
        Some(_) => 0,
        None => u64::from(count),
    }
}
