//! What a shard wants sent: bounded in bytes, never waited for, tied to one connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use millrace_proto::MAX_MESSAGE_BYTES;
use millrace_proto::v1::CopierMessage;
use millrace_proto::v1::copier_message::Kind;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use millrace_routes::copier::{Epoch, SendError};

/// What a queued message costs besides its bytes: it bounds the number of empty ones.
const OVERHEAD: usize = 64;

/// Room left in a message for its envelope. Bytes.
const ENVELOPE: usize = 64;

/// The sending side, across connections.
#[derive(Debug)]
pub(super) struct Outbound {
    limit: usize,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    epoch: Epoch,
    // Bounded by `queued`, in bytes.
    sender: mpsc::UnboundedSender<Queued>,
    queued: Arc<AtomicUsize>,
    max_message: usize,
    /// Claims that were made and may still be granted.
    claims: usize,
}

type Queued = (CopierMessage, usize);

/// The receiving side of one connection: what gRPC sends.
#[derive(Debug)]
pub(super) struct OutboundStream {
    receiver: mpsc::UnboundedReceiver<Queued>,
    queued: Arc<AtomicUsize>,
    sent: Arc<Sent>,
}

/// What has been handed to gRPC, across connections.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) messages: AtomicU64,
    pub(super) bytes: AtomicU64,
}

/// Puts the connection's own messages (Hello, Ping) into its stream, beside the queue's bound.
#[derive(Debug, Clone)]
pub(super) struct OutboundControl {
    sender: mpsc::UnboundedSender<Queued>,
}

/// The two ends of one connection's queue, not yet in use.
pub(super) fn connection(sent: Arc<Sent>) -> (OutboundControl, OutboundStream) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = OutboundStream {
        receiver,
        queued: Arc::default(),
        sent,
    };
    (OutboundControl { sender }, stream)
}

impl OutboundControl {
    pub(super) fn send(&self, message: CopierMessage) {
        // When the stream is gone, its end is noticed elsewhere.
        let _ = self.sender.send((message, 0));
    }
}

impl OutboundStream {
    pub(super) fn counter(&self) -> Arc<AtomicUsize> {
        self.queued.clone()
    }
}

impl Outbound {
    pub(super) fn new(limit: usize) -> Self {
        Outbound {
            limit,
            current: Mutex::new(None),
        }
    }

    /// From now on messages of `epoch` go to this connection, of `max_message` bytes at most.
    pub(super) fn open(
        &self,
        epoch: Epoch,
        control: &OutboundControl,
        queued: Arc<AtomicUsize>,
        max_message: usize,
    ) {
        let sender = control.sender.clone();
        *self.current.lock() = Some(Current {
            epoch,
            sender,
            queued,
            max_message: max_message.min(MAX_MESSAGE_BYTES),
            claims: 0,
        });
    }

    /// From now on everything is refused; what waits is gone.
    pub(super) fn close(&self) {
        *self.current.lock() = None;
    }

    pub(super) fn push(&self, epoch: Epoch, kind: Kind) -> Result<(), SendError> {
        let message = CopierMessage { kind: Some(kind) };
        let len = encoded_len(&message);
        let cost = len + OVERHEAD;
        // One without ranges is not answered.
        let claims = matches!(&message.kind, Some(Kind::Claim(claim)) if !claim.ranges.is_empty());
        let mut current = self.current.lock();
        let current = current
            .as_mut()
            .filter(|current| current.epoch == epoch)
            .ok_or(SendError::NotConnected)?;
        if len + ENVELOPE > current.max_message {
            return Err(SendError::TooLarge);
        }
        // Only added to under the lock, so this cannot overshoot.
        if current.queued.load(Ordering::Relaxed) + cost > self.limit {
            return Err(SendError::Full);
        }
        current.queued.fetch_add(cost, Ordering::Relaxed);
        current.claims += usize::from(claims);
        current
            .sender
            .send((message, cost))
            .map_err(|_| SendError::NotConnected)
    }

    /// A grant came. Says whether it can be the answer to a claim: each has one at most, and all
    /// that is outstanding is sent again for it, so a grant that nobody asked for is ignored.
    pub(super) fn take_grant(&self) -> bool {
        let mut current = self.current.lock();
        let claims = current.as_mut().map(|current| &mut current.claims);
        claims.is_some_and(|claims| match claims.checked_sub(1) {
            Some(left) => {
                *claims = left;
                true
            }
            None => false,
        })
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.current
            .lock()
            .as_ref()
            .map_or(0, |current| current.queued.load(Ordering::Relaxed))
    }
}

/// The size of the variable parts; what surrounds them is covered by [`ENVELOPE`].
fn encoded_len(message: &CopierMessage) -> usize {
    match &message.kind {
        None => 0,
        Some(Kind::Announce(announce)) => announce.flows.len(),
        Some(Kind::Forget(forget)) => forget.flow_ids.len(),
        // A range takes at most 36 bytes of addresses, 6 of ports and 10 of tags and lengths.
        Some(Kind::Claim(claim)) => {
            52 * (claim.ranges.len() + claim.without.len()) + 28 * claim.targets.len()
        }
        Some(Kind::Trace(trace)) => 32 * trace.clients.len(),
        Some(Kind::Hello(hello)) => hello.copier_id.len(),
        Some(Kind::ResyncBegin(_) | Kind::ResyncEnd(_) | Kind::Ping(_)) => 0,
    }
}

impl tokio_stream::Stream for OutboundStream {
    type Item = CopierMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<CopierMessage>> {
        self.receiver.poll_recv(cx).map(|item| {
            item.map(|(message, cost)| {
                self.queued.fetch_sub(cost, Ordering::Relaxed);
                self.sent.messages.fetch_add(1, Ordering::Relaxed);
                let bytes = encoded_len(&message) as u64;
                self.sent.bytes.fetch_add(bytes, Ordering::Relaxed);
                message
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1::{Claim, ClientRange, Forget};
    use tokio_stream::StreamExt;

    use super::*;

    fn forget(bytes: usize) -> Kind {
        Kind::Forget(Forget {
            flow_ids: vec![0; bytes].into(),
        })
    }

    #[tokio::test]
    async fn full_is_refused_and_room_comes_back_as_messages_leave() {
        let outbound = Outbound::new(1000);
        let (control, mut stream) = connection(Arc::default());
        outbound.open(1, &control, stream.counter(), MAX_MESSAGE_BYTES);
        assert_eq!(outbound.push(1, forget(800)), Ok(()));
        assert_eq!(outbound.push(1, forget(800)), Err(SendError::Full));
        assert_eq!(outbound.queued_bytes(), 864);
        assert!(stream.next().await.is_some());
        assert_eq!(outbound.queued_bytes(), 0);
        assert_eq!(outbound.push(1, forget(800)), Ok(()));
    }

    #[test]
    fn a_claim_is_granted_once_and_what_nobody_claimed_never() {
        let outbound = Outbound::new(1 << 20);
        assert!(!outbound.take_grant());
        let (control, stream) = connection(Arc::default());
        outbound.open(1, &control, stream.counter(), MAX_MESSAGE_BYTES);
        assert!(!outbound.take_grant());
        let given_up = Claim::default();
        let claim = Claim {
            ranges: vec![ClientRange::default()],
            ..Claim::default()
        };
        for claim in [claim.clone(), given_up, claim] {
            outbound.push(1, Kind::Claim(claim)).unwrap();
        }
        assert!(outbound.take_grant() && outbound.take_grant());
        assert!(!outbound.take_grant());
    }

    #[test]
    fn another_epoch_a_closed_link_and_oversized_batches_are_refused() {
        let outbound = Outbound::new(1 << 20);
        assert_eq!(outbound.push(1, forget(8)), Err(SendError::NotConnected));
        let (control, stream) = connection(Arc::default());
        outbound.open(2, &control, stream.counter(), MAX_MESSAGE_BYTES);
        assert_eq!(outbound.push(1, forget(8)), Err(SendError::NotConnected));
        assert_eq!(
            outbound.push(2, forget(MAX_MESSAGE_BYTES)),
            Err(SendError::TooLarge)
        );
        assert_eq!(outbound.push(2, forget(8)), Ok(()));
        outbound.close();
        assert_eq!(outbound.push(2, forget(8)), Err(SendError::NotConnected));
    }
}
