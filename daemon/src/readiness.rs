//! Whether the daemon is ready: each task registers, and those that are pending are named.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The tasks that must be ready before the daemon is. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    tasks: Arc<Mutex<BTreeMap<String, bool>>>,
}

impl Readiness {
    /// Nothing registered: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a task that is pending. Its name is what an operator sees at `/readyz`.
    pub fn register(&self, name: impl Into<String>) -> Task {
        let name = name.into();
        self.tasks.lock().insert(name.clone(), false);
        Task {
            readiness: self.clone(),
            name,
        }
    }

    /// The names of the tasks that are not ready, in order.
    pub fn pending(&self) -> Vec<String> {
        let tasks = self.tasks.lock();
        let pending = tasks.iter().filter(|(_, ready)| !**ready);
        pending.map(|(name, _)| name.clone()).collect()
    }
}

/// One task's part in the daemon's readiness. A task that is dropped stays as it last was: one
/// that died before it was ready keeps the daemon from being ready, and is named.
#[derive(Debug)]
pub struct Task {
    readiness: Readiness,
    name: String,
}

impl Task {
    /// Says whether the task is ready now. Of no account once it is withdrawn.
    pub fn set(&self, ready: bool) {
        if let Some(task) = self.readiness.tasks.lock().get_mut(&self.name) {
            *task = ready;
        }
    }

    /// The task is ready, for good.
    pub fn ready(self) {
        self.set(true);
    }

    /// The task is no longer part of the daemon's readiness.
    pub fn withdraw(&self) {
        self.readiness.tasks.lock().remove(&self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_tasks_are_named_until_each_is_ready() {
        let readiness = Readiness::new();
        assert!(readiness.pending().is_empty());
        let capture = readiness.register("capture");
        let stream = readiness.register("stream");
        assert_eq!(readiness.pending(), ["capture", "stream"]);
        capture.ready();
        assert_eq!(readiness.pending(), ["stream"]);
        stream.set(true);
        assert!(readiness.pending().is_empty());
        stream.set(false);
        assert_eq!(readiness.pending(), ["stream"]);
        stream.withdraw();
        assert!(readiness.pending().is_empty());
        stream.set(false);
        assert!(readiness.pending().is_empty(), "what comes late is ignored");
    }

    #[test]
    fn a_task_that_died_pending_is_still_named() {
        let readiness = Readiness::new();
        drop(readiness.register("capture"));
        assert_eq!(readiness.pending(), ["capture"]);
    }
}
