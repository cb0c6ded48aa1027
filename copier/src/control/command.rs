//! What operators ask for while the copier runs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_engine::Intensity;

use crate::ramp::Ramp;

/// Commands that may wait: whoever sends more than the shard takes between two looks is no
/// operator.
const MOST: usize = 64;

/// A wish of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// From now on this much. Ends a ramp.
    Set(Intensity),
    /// A new ramp, from its beginning.
    Follow(Ramp),
    /// Nothing new is copied; open sessions go on. A ramp stands still.
    Pause,
    /// On from where a pause, a guard or a stop left it.
    Resume,
}

/// Commands on their way to the shard.
#[derive(Debug, Clone, Default)]
pub struct Commands(Arc<Mutex<VecDeque<Command>>>);

impl Commands {
    /// Hands a command over; says whether there was room for it.
    pub fn push(&self, command: Command) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = waiting.len() < MOST;
        if fits {
            waiting.push_back(command);
        }
        fits
    }

    /// Takes the oldest.
    pub fn pop(&self) -> Option<Command> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }
}
