//! Flows whose responses are to come with their payload: those that a protocol module listens to. Mostly none.

use std::collections::{BTreeMap, HashSet};

use foldhash::fast::RandomState;
use millrace_proto::FlowId;

use super::ConnId;

/// The flows, and the ports of their targets.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    flows: HashSet<(ConnId, FlowId), RandomState>,
    /// How many flows each port has. Port 0 stands for any: of such a flow only the client is known.
    ports: BTreeMap<u16, usize>,
    /// How often the ports have changed.
    changes: u64,
}

impl Wishes {
    /// What a flow's last announcement says.
    pub(super) fn set(&mut self, conn: ConnId, id: FlowId, target_port: u16, wants: bool) {
        if !wants {
            self.remove(conn, id, target_port);
        } else if self.flows.insert((conn, id)) {
            let count = self.ports.entry(target_port).or_default();
            self.changes += u64::from(*count == 0);
            *count += 1;
        }
    }

    /// The flow is over, or has another target.
    pub(super) fn remove(&mut self, conn: ConnId, id: FlowId, target_port: u16) {
        if !self.flows.is_empty()
            && self.flows.remove(&(conn, id))
            && let Some(count) = self.ports.get_mut(&target_port)
        {
            *count -= 1;
            if *count == 0 {
                self.ports.remove(&target_port);
                self.changes += 1;
            }
        }
    }

    /// The flow is on another stream of its copier now.
    pub(super) fn move_to(&mut self, before: ConnId, conn: ConnId, id: FlowId) {
        if self.flows.remove(&(before, id)) {
            self.flows.insert((conn, id));
        }
    }

    /// Whether this flow is one of them.
    pub(super) fn contains(&self, conn: ConnId, id: FlowId) -> bool {
        !self.flows.is_empty() && self.flows.contains(&(conn, id))
    }

    /// The ports of the targets.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.keys().copied()
    }

    /// How often the ports have changed.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }
}
