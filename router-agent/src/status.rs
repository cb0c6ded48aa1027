//! The agent as an operator sees it, at /status and in metrics.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde::Serialize;

use crate::agent::{Agent, Counters};
use crate::install::Verified;
use crate::kernel::model::Stopped;
use crate::need::Need;

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LeaseStatus {
    /// Who holds it.
    pub holder: String,
    /// What was asked for.
    pub need: Need,
    /// Seconds until it ends, if its holder is gone.
    pub ends_in_seconds: Option<u64>,
}

/// The state of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How responses are diverted here.
    pub mode: String,
    /// What is diverted.
    pub diverted: Vec<String>,
    /// The leases.
    pub leases: Vec<LeaseStatus>,
    /// Rules of an earlier run that wait for their holders.
    pub found: usize,
    /// Seconds until these end.
    pub found_ends_in_seconds: Option<u64>,
    /// Whether something was applied by hand.
    pub applied_by_hand: bool,
    /// What is no longer wanted, and stays because of open connections.
    pub leaving: Vec<String>,
    /// These connections.
    pub leaving_connections: usize,
    /// The last change.
    pub last_change: Verified,
    /// What is to be mended on this host.
    pub warnings: Vec<String>,
    /// Why responses are not diverted as they should be, if they are not: copiers send nothing then.
    pub unsound: Option<String>,
    /// Why what is no longer wanted cannot be removed, if it cannot.
    pub trouble: Option<String>,
    /// Addresses of this host from which something was diverted when it was last looked.
    pub held_addresses: usize,
    /// What the floor has stopped since the start.
    pub stopped: Stopped,
    /// Changes of the kernel's state since the start.
    pub changes: u64,
    /// Counts since the start.
    pub counters: Counters,
}

/// The latest state, shared with the admin port.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Status>>);

impl Shared {
    /// The latest state.
    pub fn get(&self) -> Status {
        self.0.lock().clone()
    }

    /// Replaces it.
    pub fn replace(&self, agent: &mut Agent, now: Instant) {
        let status = Status::of(agent, now);
        *self.0.lock() = status;
    }
}

impl Status {
    fn of(agent: &mut Agent, now: Instant) -> Self {
        let seconds = |at: Instant| at.saturating_duration_since(now).as_secs();
        let changes = agent.installer().changes();
        let mode = agent.installer().host().mode.to_string();
        let leases = agent.leases();
        let mut all = leases.wanted();
        all.extend(agent.leaving());
        let found = leases.found();
        Self {
            mode,
            diverted: all.iter().map(ToString::to_string).collect(),
            leases: leases
                .iter()
                .map(|(holder, lease)| LeaseStatus {
                    holder: holder.clone(),
                    need: lease.need.clone(),
                    ends_in_seconds: lease.ends.map(seconds),
                })
                .collect(),
            found: found.map_or(0, |(selectors, _)| selectors.len()),
            found_ends_in_seconds: found.map(|(_, until)| seconds(*until)),
            applied_by_hand: !leases.by_hand().is_empty(),
            leaving: agent.leaving().iter().map(ToString::to_string).collect(),
            leaving_connections: if agent.leaving().is_empty() {
                0
            } else {
                agent.speaking
            },
            last_change: agent.last,
            warnings: agent.warnings.all(),
            unsound: agent.unsound().map(str::to_owned),
            trouble: agent.trouble.clone(),
            held_addresses: agent.lookout.own_addresses(),
            stopped: agent.lookout.stopped(),
            changes,
            counters: agent.counters,
        }
    }
}
