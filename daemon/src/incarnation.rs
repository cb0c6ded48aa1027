//! Which run of a daemon is speaking.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// One run of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// Random.
    pub id: u64,
    /// Start time, milliseconds since the Unix epoch.
    pub started_at_ms: u64,
}

impl Incarnation {
    /// This process's: the same at every call.
    pub fn of_this_process() -> Self {
        static THIS: OnceLock<Incarnation> = OnceLock::new();
        *THIS.get_or_init(Incarnation::start)
    }

    /// A new one that starts now.
    pub fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let millis = since.map_or(0, |since| since.as_millis());
        Incarnation {
            id: random_u64(),
            started_at_ms: u64::try_from(millis).unwrap_or(u64::MAX),
        }
    }
}

/// A number that no other process guesses or shares; not for cryptography.
pub fn random_u64() -> u64 {
    // The standard library keys each hasher from the kernel's random numbers.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_are_told_apart() {
        assert_ne!(Incarnation::start().id, Incarnation::start().id);
        assert_eq!(
            Incarnation::of_this_process(),
            Incarnation::of_this_process()
        );
    }
}
