//! Flows that are announced one by one, though this copier claims the pool that they come from: those in parts that it has
//! yielded, and those whose responses come with their payload, which a claim cannot ask for.

use std::collections::HashSet;

use millrace_proto::FlowId;

/// The flows that interceptors have been told of.
#[derive(Debug, Default)]
pub(super) struct Exceptions(HashSet<FlowId>);

impl Exceptions {
    /// Notes a flow. Says whether it is new.
    pub(super) fn insert(&mut self, id: FlowId) -> bool {
        self.0.insert(id)
    }

    /// A flow is over. Says whether it was one of them.
    pub(super) fn remove(&mut self, id: FlowId) -> bool {
        !self.0.is_empty() && self.0.remove(&id)
    }

    /// Whether a flow is one of them.
    pub(super) fn contains(&self, id: FlowId) -> bool {
        !self.0.is_empty() && self.0.contains(&id)
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = FlowId> {
        self.0.iter().copied()
    }
}
