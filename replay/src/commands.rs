//! What operators ask for, on its way to the shard.

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_capture::Waker;
use millrace_pilot::Command;
use parking_lot::Mutex;

/// Commands that may wait: whoever sends more than the shard takes between two looks is no
/// operator.
const MOST: usize = 64;

/// Commands on their way to the shard.
#[derive(Debug, Clone)]
pub struct Commands {
    waiting: Arc<Mutex<VecDeque<Command>>>,
    shard: Waker,
}

impl Commands {
    /// None yet; one that comes ends the sleep of the shard.
    pub fn new(shard: Waker) -> Self {
        Self {
            waiting: Arc::default(),
            shard,
        }
    }

    /// Hands a command over; says whether there was room for it.
    pub fn push(&self, command: Command) -> bool {
        let mut waiting = self.waiting.lock();
        let fits = waiting.len() < MOST;
        if fits {
            waiting.push_back(command);
        }
        drop(waiting);
        if fits {
            self.shard.wake();
        }
        fits
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// Takes the oldest.
    pub fn pop(&self) -> Option<Command> {
        let mut waiting = self.waiting.lock();
        waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fits_ends_the_sleep_of_the_shard() {
        let shard = Waker::new().unwrap();
        let commands = Commands::new(shard.clone());
        assert!(!shard.clear() && commands.is_empty());
        for _ in 0..MOST {
            assert!(commands.push(Command::Pause));
            assert!(shard.clear());
        }
        assert!(!commands.push(Command::Pause));
        assert!(!shard.clear());
        assert_eq!(commands.pop(), Some(Command::Pause));
    }
}
