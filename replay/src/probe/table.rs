//! First contact as an operator sees it.

use millrace_daemon::readiness::{Readiness, Task};
use millrace_wire::Endpoint;
use serde::Serialize;

use super::target::{State, Target};

/// How far first contact with a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// No probe yet: no interceptor is connected, or no client is known whose address it could
    /// bear.
    Waiting,
    /// Probes are on their way.
    Asking,
    /// Probes did not come back; they are repeated.
    Failed,
    /// Probes came back: sessions are replayed.
    Open,
    /// The target leads to the live service again: copying to it is over.
    Misdirected,
}

/// First contact with one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStatus {
    /// The target.
    pub target: String,
    /// The kind of clients that this is about, where each is judged by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<&'static str>,
    /// How far it is.
    pub state: ProbeState,
    /// Volleys begun.
    pub volleys: u32,
    /// What the last volley showed, in one line.
    pub finding: Option<String>,
}

/// The targets' part in the daemon's readiness. One that nothing is known of counts as ready: the first client shows
/// it. One that was tried in vain, or that fell silent, does not.
#[derive(Debug)]
pub(super) struct Ready(Vec<(Endpoint, Task)>);

impl Ready {
    /// Registers each target once.
    pub(super) fn register(readiness: &Readiness, targets: &[Target]) -> Self {
        let mut addresses: Vec<Endpoint> = targets.iter().map(|target| target.address).collect();
        addresses.sort();
        addresses.dedup();
        let task = |address| (address, readiness.register(format!("target {address}")));
        Self(addresses.into_iter().map(task).collect())
    }

    /// Says what is known now.
    pub(super) fn show(&self, targets: &[Target]) {
        for (address, task) in &self.0 {
            let ways = || targets.iter().filter(|target| target.address == *address);
            let open = ways().any(|way| matches!(way.state, State::Proven));
            task.set(open || ways().all(|way| way.verdict.is_none() && way.stops == 0));
        }
    }
}
