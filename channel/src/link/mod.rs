//! The copier's side of a stream to one interceptor: kept up for ever.
//!
//! A link connects, says Hello, and then carries route info up and response headers down. On any
//! failure it connects again, with jittered back-off, until it is closed. Whoever uses it
//! need not be a task: what goes out is put into a bounded queue without waiting, what comes in is
//! handed to a callback.
//!
//! Each time the stream is up again is a new *epoch*. A shard that is told [`LinkEvent::Up`] sends
//! all it owns (`resync_begin`, claims or announces, `resync_end`) with that epoch; what it queued
//! in an earlier epoch is gone, and what it still tries to queue for one is refused.

mod contract;
mod queue;
mod status;

use std::sync::Arc;

use millrace_proto::v1::copier_message::Kind;
use millrace_proto::v1::{Announce, Claim, Forget, ResyncBegin, ResyncEnd, Trace};
use millrace_proto::{ClaimSet, TraceRequest};
use millrace_routes::copier::{Epoch, LinkEvent, SendError, Uplink};
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::codegen::Bytes;

use crate::transport::Security;
use crate::upkeep::{self, Peer};
use millrace_daemon::incarnation::Incarnation;
use millrace_notation::address::HostPort;

pub use status::LinkStatus;

use contract::CopierContract;
use queue::Outbound;
use status::Counters;

/// What a link needs to know.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// The interceptor. Its answer to Hello may come as late as twice the bound of connecting.
    pub peer: Peer,
    /// Stable name of this copier.
    pub copier_id: String,
    /// This run of this copier; the same for all its links.
    pub incarnation: Incarnation,
    /// Number of this link, from 0.
    pub link: u32,
    /// How many links this copier opens to this interceptor.
    pub links: u32,
    /// Whether the copier owns ranges (claims) rather than announced flows.
    pub claims: bool,
    /// Whether the copier has flows whose responses must come with their payload, which not every interceptor can.
    pub needs_payload: bool,
    /// Bytes that may wait to be sent. What does not fit is refused.
    pub queue_bytes: usize,
}

impl LinkConfig {
    /// The defaults of [`Peer::new`], for the only link to `address`.
    pub fn new(address: HostPort, security: Security, copier_id: impl Into<String>) -> Self {
        LinkConfig {
            peer: Peer::new(address, security),
            copier_id: copier_id.into(),
            incarnation: Incarnation::of_this_process(),
            link: 0,
            links: 1,
            claims: false,
            needs_payload: false,
            queue_bytes: 8 << 20,
        }
    }
}

type OnEvent = Box<dyn Fn(LinkEvent) + Send + Sync>;

/// What the handle and the task share.
struct Shared {
    config: LinkConfig,
    on_event: OnEvent,
    outbound: Outbound,
    counters: Counters,
    closed: CancellationToken,
}

/// A running link. Cheap to clone; the link is closed when the last clone is dropped.
#[derive(Clone)]
pub struct LinkHandle {
    shared: Arc<Shared>,
    _close_when_dropped: Arc<DropGuard>,
}

impl std::fmt::Debug for LinkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkHandle")
            .field("address", &self.shared.config.peer.address)
            .field("link", &self.shared.config.link)
            .finish_non_exhaustive()
    }
}

/// Starts a link on `runtime`. `on_event` is called from the runtime, in order, and must not
/// block: it hands the event to whoever wants it.
pub fn spawn(
    config: LinkConfig,
    runtime: &Handle,
    on_event: impl Fn(LinkEvent) + Send + Sync + 'static,
) -> LinkHandle {
    let closed = CancellationToken::new();
    let shared = Arc::new(Shared {
        outbound: Outbound::new(config.queue_bytes),
        config,
        on_event: Box::new(on_event),
        counters: Counters::default(),
        closed: closed.clone(),
    });
    let contract = CopierContract::new(shared.clone());
    let terms = contract.terms();
    upkeep::spawn(contract, terms, runtime, closed.clone());
    LinkHandle {
        shared,
        _close_when_dropped: Arc::new(closed.drop_guard()),
    }
}

impl LinkHandle {
    fn send(&self, epoch: Epoch, kind: Kind) -> Result<(), SendError> {
        let result = self.shared.outbound.push(epoch, kind);
        if result == Err(SendError::Full) {
            self.shared.counters.overflow();
        }
        result
    }

    /// Where the interceptor is.
    pub fn address(&self) -> &HostPort {
        &self.shared.config.peer.address
    }

    /// Messages that came, since the process started. Takes no lock.
    pub fn messages_in(&self) -> u64 {
        self.shared.counters.messages_in()
    }

    /// The link as an operator wants to see it.
    pub fn status(&self) -> LinkStatus {
        self.shared
            .counters
            .status(&self.shared.config, self.queued_bytes())
    }

    /// Notes that so many more copies were connected by answers that came over this link.
    pub fn note_connected(&self, copies: u64) {
        self.shared.counters.connected(copies);
    }

    /// Closes the link for good.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }
}

impl Uplink for LinkHandle {
    fn name(&self) -> String {
        self.address().to_string()
    }

    fn queued_bytes(&self) -> usize {
        self.shared.outbound.queued_bytes()
    }

    fn announce(&self, epoch: Epoch, flows: impl Into<Bytes>) -> Result<(), SendError> {
        let flows = flows.into();
        self.send(epoch, Kind::Announce(Announce { flows }))
    }

    fn forget(&self, epoch: Epoch, ids: impl Into<Bytes>) -> Result<(), SendError> {
        let flow_ids = ids.into();
        self.send(epoch, Kind::Forget(Forget { flow_ids }))
    }

    fn claim(&self, epoch: Epoch, claim: &ClaimSet) -> Result<(), SendError> {
        self.send(epoch, Kind::Claim(Claim::from(claim)))
    }

    fn resync_begin(&self, epoch: Epoch) -> Result<(), SendError> {
        self.send(epoch, Kind::ResyncBegin(ResyncBegin {}))
    }

    fn resync_end(&self, epoch: Epoch) -> Result<(), SendError> {
        self.send(epoch, Kind::ResyncEnd(ResyncEnd {}))
    }

    fn trace(&self, epoch: Epoch, request: &TraceRequest) -> Result<(), SendError> {
        self.send(epoch, Kind::Trace(Trace::from(request)))
    }
}

#[cfg(test)]
mod tests {
    use millrace_notation::address::DefaultPort;
    use millrace_routes::interceptor::LEASE;

    use super::*;

    #[test]
    fn a_link_that_is_gone_is_noticed_before_its_claim_is_anothers() {
        let address = DefaultPort(1).parse_list("rs1").unwrap().remove(0);
        let config = LinkConfig::new(address, Security::Insecure, "copier");
        let noticed =
            config.peer.timeouts.keepalive_interval + config.peer.timeouts.keepalive_timeout;
        assert!(noticed < LEASE);
    }
}
