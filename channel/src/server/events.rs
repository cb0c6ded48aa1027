//! What the streams tell the worker.

use std::net::SocketAddr;

use millrace_proto::{ClaimSet, TraceRequest};
use tokio::sync::mpsc;
use tonic::codegen::Bytes;

use super::HeaderQueue;
use millrace_daemon::incarnation::Incarnation;
use millrace_routes::interceptor::ConnId;

/// Who attached.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Its stable name.
    pub copier_id: String,
    /// Its run.
    pub incarnation: Incarnation,
    /// Number of the link, below `links`.
    pub link: u32,
    /// How many links it opens.
    pub links: u32,
    /// Whether it claims ranges rather than announcing flows.
    pub claims: bool,
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// Where its response headers go.
    pub queue: HeaderQueue,
}

/// Something on a stream. Of one stream: `Attached` first, `Detached` last; a stream that takes
/// over from another is attached after that one is detached.
#[derive(Debug, Clone)]
pub enum AttachEvent {
    /// A stream is open.
    Attached {
        /// The stream.
        conn: ConnId,
        /// Who it is.
        who: Attached,
    },
    /// Flows that it owns from now on.
    Announce {
        /// The stream.
        conn: ConnId,
        /// Flow records, every one checked: [`millrace_proto::FlowRecords`].
        flows: Bytes,
        /// How many.
        count: usize,
    },
    /// Flows that it does not own any more.
    Forget {
        /// The stream.
        conn: ConnId,
        /// Flow ids, checked: [`millrace_proto::FlowIds`].
        ids: Bytes,
        /// How many.
        count: usize,
    },
    /// What it claims, in place of what it claimed before. Whether somebody else holds a part of
    /// it is for the receiver to find out, and to answer with [`HeaderQueue::refuse`].
    Claim {
        /// The stream.
        conn: ConnId,
        /// The claim, checked.
        claim: ClaimSet,
    },
    /// All that it owns follows.
    ResyncBegin {
        /// The stream.
        conn: ConnId,
    },
    /// What it did not name since the begin is not owned any more.
    ResyncEnd {
        /// The stream.
        conn: ConnId,
    },
    /// It asks what becomes of its probes: to be answered with [`HeaderQueue::traced`].
    Trace {
        /// The stream.
        conn: ConnId,
        /// The question, checked.
        request: TraceRequest,
    },
    /// The stream is gone.
    Detached {
        /// The stream.
        conn: ConnId,
    },
}

/// The worker's end of the channel.
#[derive(Debug)]
pub struct AttachEvents(mpsc::Receiver<AttachEvent>);

impl AttachEvents {
    pub(super) fn new(receiver: mpsc::Receiver<AttachEvent>) -> Self {
        AttachEvents(receiver)
    }

    /// The next event, if there is one. Never waits.
    pub fn try_next(&mut self) -> Option<AttachEvent> {
        self.0.try_recv().ok()
    }

    /// Waits for the next event; none when the server is gone. Not for async code.
    pub fn next_blocking(&mut self) -> Option<AttachEvent> {
        self.0.blocking_recv()
    }

    /// Waits for the next event; none when the server is gone.
    pub async fn next(&mut self) -> Option<AttachEvent> {
        self.0.recv().await
    }
}
