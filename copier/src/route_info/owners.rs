//! Which interceptor has shown itself to be a flow's: its real server answered.

use millrace_engine::ReplicaKey;
use slotmap::SecondaryMap;

use super::InterceptorId;

/// The owners known so far.
#[derive(Debug, Default)]
pub(super) struct FlowOwners(SecondaryMap<ReplicaKey, InterceptorId>);

impl FlowOwners {
    /// The owner, if it is known.
    pub(super) fn get(&self, key: ReplicaKey) -> Option<InterceptorId> {
        self.0.get(key).copied()
    }

    /// Notes an owner. Says whether it is news.
    pub(super) fn learn(&mut self, key: ReplicaKey, interceptor: InterceptorId) -> bool {
        if self.0.contains_key(key) {
            return false;
        }
        self.0.insert(key, interceptor);
        true
    }

    /// The flow is over.
    pub(super) fn remove(&mut self, key: ReplicaKey) -> Option<InterceptorId> {
        self.0.remove(key)
    }

    /// An interceptor is none any more. Says whether it had flows.
    pub(super) fn forget_interceptor(&mut self, interceptor: InterceptorId) -> bool {
        let before = self.0.len();
        self.0.retain(|_, owner| *owner != interceptor);
        self.0.len() != before
    }
}
