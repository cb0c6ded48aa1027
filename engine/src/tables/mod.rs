//! The engine's tables. Those of sessions and replicas find their entries, keep their deadlines, and have the sums over
//! them, which follow whenever an entry changes.
//!
//! - [`Sessions`]: what clients and live servers do.
//! - [`Replicas`]: the connections to targets, and the queue of those that may have something to send.
//! - [`Ways`]: what is known of the ways to targets and back, and the replicas that wait for theirs.

mod kept;
mod replicas;
mod resumption;
mod sessions;
mod timed;
mod ways;

use self::kept::Kept;
pub(crate) use self::replicas::Replicas;
pub(crate) use self::sessions::Sessions;
pub(crate) use self::ways::{WayState, Ways};
use crate::key::SessionKey;
use crate::time::Time;

/// Memory for each entry besides the entry itself, in bytes: its generation in the slot map, its
/// place in the hash table at three quarters full, and one timer.
const ENTRY_COST: usize = 8 + 12 + size_of::<(Time, SessionKey)>();

#[cfg(test)]
mod tests {
    use super::*;

    /// What one idle session with one established replica costs, in bytes.
    #[test]
    fn an_idle_session_takes_600_bytes_at_most() {
        let (session, replica) = (sessions::SESSION_COST, replicas::REPLICA_COST);
        let connection = crate::replica::CONNECTION_SIZE;
        let sum = session + replica + connection;
        println!("session {session}, replica {replica}, connection {connection}: {sum}");
        assert!(sum <= 600, "{sum} bytes");
    }
}
