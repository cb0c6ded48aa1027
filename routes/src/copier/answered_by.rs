//! Which interceptor has shown itself to be a flow's: its real server answered.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use millrace_proto::FlowId;

use super::InterceptorId;

/// The owners known so far.
#[derive(Debug, Default)]
pub(super) struct AnsweredBy(HashMap<FlowId, InterceptorId, RandomState>);

impl AnsweredBy {
    /// The owner, if it is known.
    pub(super) fn get(&self, id: FlowId) -> Option<InterceptorId> {
        self.0.get(&id).copied()
    }

    /// Notes an owner. Says whether it is news.
    pub(super) fn learn(&mut self, id: FlowId, interceptor: InterceptorId) -> bool {
        if self.0.contains_key(&id) {
            return false;
        }
        self.0.insert(id, interceptor);
        true
    }

    /// The flow is over.
    pub(super) fn remove(&mut self, id: FlowId) -> Option<InterceptorId> {
        self.0.remove(&id)
    }

    /// The operator does not name an interceptor any more. Says whether it had flows.
    pub(super) fn forget_interceptor(&mut self, interceptor: InterceptorId) -> bool {
        let before = self.0.len();
        self.0.retain(|_, owner| *owner != interceptor);
        self.0.len() != before
    }
}
