//! The way from a copier to one interceptor.

use bytes::Bytes;
use millrace_proto::{ClaimSet, TraceRequest};

/// Number of a connection of a link, from 1.
pub type Epoch = u64;

/// Why something was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is down, or its stream is another one than that of the epoch given.
    #[error("the link is down")]
    NotConnected,
    /// The interceptor does not keep up; resync when there is room.
    #[error("the queue of the link is full")]
    Full,
    /// Larger than the interceptor takes: batches are to be [`millrace_proto::BATCH_BYTES`] at most.
    #[error("the batch is larger than a message may be")]
    TooLarge,
}

/// A queue towards an interceptor, bounded in bytes and never waited for. What is queued belongs to one connection of
/// the link, its epoch: with that it is gone.
pub trait Uplink {
    /// Where the interceptor is, as the operator wrote it.
    fn name(&self) -> String;

    /// Bytes that wait to be sent.
    fn queued_bytes(&self) -> usize;

    /// Queues flow records (see [`crate::Batch`]).
    ///
    /// # Errors
    /// [`SendError`]: all is to be sent again when the link is up (again) or has room.
    fn announce(&self, epoch: Epoch, flows: impl Into<Bytes>) -> Result<(), SendError>;

    /// Queues flow ids (see [`crate::Batch`]).
    ///
    /// # Errors
    /// [`SendError`]
    fn forget(&self, epoch: Epoch, ids: impl Into<Bytes>) -> Result<(), SendError>;

    /// Queues a claim, which replaces this copier's earlier one.
    ///
    /// # Errors
    /// [`SendError`]
    fn claim(&self, epoch: Epoch, claim: &ClaimSet) -> Result<(), SendError>;

    /// Queues the begin of a resync.
    ///
    /// # Errors
    /// [`SendError`]
    fn resync_begin(&self, epoch: Epoch) -> Result<(), SendError>;

    /// Queues the end of a resync.
    ///
    /// # Errors
    /// [`SendError`]
    fn resync_end(&self, epoch: Epoch) -> Result<(), SendError>;

    /// Queues a question after probes, answered by [`super::LinkEvent::Traced`].
    ///
    /// # Errors
    /// [`SendError`]
    fn trace(&self, epoch: Epoch, request: &TraceRequest) -> Result<(), SendError>;
}
