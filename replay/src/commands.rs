//! What operators ask for, on its way to the shard.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_pilot::Command;
use parking_lot::Mutex;

/// Commands that may wait: whoever sends more than the shard takes between two looks is no
/// operator.
const MOST: usize = 64;

/// Commands on their way to the shard.
#[derive(Debug, Clone, Default)]
pub struct Commands(Arc<Mutex<VecDeque<Command>>>);

impl Commands {
    /// Hands a command over; says whether there was room for it.
    pub fn push(&self, command: Command) -> bool {
        let mut waiting = self.0.lock();
        let fits = waiting.len() < MOST;
        if fits {
            waiting.push_back(command);
        }
        fits
    }

    /// Takes the oldest.
    pub fn pop(&self) -> Option<Command> {
        let mut waiting = self.0.lock();
        waiting.pop_front()
    }
}
