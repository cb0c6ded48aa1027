//! The holder's side: asks an agent for what is needed, and again whenever the stream was lost.

mod contract;

use std::sync::Arc;

use millrace_proto::v1::Need;
use millrace_proto::v1::hold_refused::Code;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::status::{HoldStatus, Tracker};
use crate::transport::Security;
use crate::upkeep::{self, Peer};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::Incarnation;
use millrace_daemon::quiet::Quiet;
use millrace_notation::address::HostPort;

use contract::HolderContract;

/// What a hold needs to know.
#[derive(Debug, Clone)]
pub struct HoldConfig {
    /// The agent.
    pub peer: Peer,
    /// Stable name of this holder.
    pub holder_id: String,
    /// This run of this holder.
    pub incarnation: Incarnation,
    /// What is to be diverted.
    pub need: Need,
}

impl HoldConfig {
    /// The defaults of [`Peer::new`].
    pub fn new(
        address: HostPort,
        security: Security,
        holder_id: impl Into<String>,
        need: Need,
    ) -> Self {
        HoldConfig {
            peer: Peer::new(address, security),
            holder_id: holder_id.into(),
            incarnation: Incarnation::of_this_process(),
            need,
        }
    }
}

/// What happens to a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldEvent {
    /// What was asked for stands, and was verified.
    Held {
        /// The agent's name.
        agent_id: String,
        /// What is to be mended on its host.
        warnings: Vec<String>,
    },
    /// The agent refuses; it is asked again at the slowest pace.
    Refused {
        /// Why.
        code: Code,
        /// Why, in one line.
        reason: String,
    },
    /// What was asked for stands no more, the agent says; the stream stays.
    Troubled {
        /// Why, in the operator's words.
        reason: String,
    },
    /// It stands again.
    Mended,
    /// The stream is gone; it is opened again by itself.
    Lost {
        /// Why, in the operator's words.
        reason: String,
    },
}

type OnEvent = Box<dyn Fn(HoldEvent) + Send + Sync>;

/// What the handle and the stream share.
struct Shared {
    config: HoldConfig,
    on_event: OnEvent,
    tracker: Tracker,
    /// What was wrong at the agent's host.
    said: Quiet<String>,
    closed: CancellationToken,
}

/// A running hold. Cheap to clone; the lease is given up when the last clone is dropped.
#[derive(Clone)]
pub struct HoldHandle {
    shared: Arc<Shared>,
    _close_when_dropped: Arc<DropGuard>,
}

impl std::fmt::Debug for HoldHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HoldHandle")
            .field("address", &self.shared.config.peer.address)
            .finish_non_exhaustive()
    }
}

/// Starts a hold on `runtime`. `on_event` is called from the runtime, in order, and must not block.
pub fn spawn(
    config: HoldConfig,
    runtime: &Handle,
    on_event: impl Fn(HoldEvent) + Send + Sync + 'static,
) -> HoldHandle {
    let closed = CancellationToken::new();
    let shared = Arc::new(Shared {
        config,
        on_event: Box::new(on_event),
        tracker: Tracker::default(),
        said: Quiet::default(),
        closed: closed.clone(),
    });
    let contract = HolderContract::new(shared.clone());
    let terms = contract.terms();
    upkeep::spawn(contract, terms, runtime, closed.clone());
    HoldHandle {
        shared,
        _close_when_dropped: Arc::new(closed.drop_guard()),
    }
}

impl HoldHandle {
    /// Whether what was asked for is in force at `now`, the present: held, and confirmed by the agent
    /// a fifth of a second ago at most, and twice as long as its answer took; or held by an agent that
    /// has said that it will be back. Takes no lock, and asks no clock.
    pub fn is_held(&self, now: BootTime) -> bool {
        self.shared.tracker.is_held(now)
    }

    /// Whether what was asked for was in force and is not any more. As [`HoldHandle::is_held`].
    pub fn has_lapsed(&self, now: BootTime) -> bool {
        self.shared.tracker.has_lapsed(now)
    }

    /// The hold as an operator wants to see it.
    pub fn status(&self) -> HoldStatus {
        self.shared.tracker.status(&self.shared.config.peer.address)
    }

    /// Gives the lease up; the agent keeps it for its grace time.
    pub fn close(&self) {
        self.shared.closed.cancel();
    }
}
