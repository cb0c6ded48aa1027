//! Saying the same thing about the same peer once a minute: strangers must not fill the log.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// One thing is said once in this time.
const QUIET: Duration = Duration::from_secs(60);

/// Things that are remembered; further ones are not said at all until others are forgotten.
const MAX_REMEMBERED: usize = 256;

/// What was said when.
#[derive(Debug)]
pub struct Quiet<K> {
    said: Mutex<HashMap<K, Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// How often it happened since, unsaid.
    more: u64,
}

impl<K> Default for Quiet<K> {
    fn default() -> Self {
        Quiet {
            said: Mutex::default(),
        }
    }
}

impl<K: Hash + Eq> Quiet<K> {
    /// How often it happened unsaid before this time; none if this time is not to be said either.
    pub fn say(&self, key: K, now: Instant) -> Option<u64> {
        let mut said = self.said.lock();
        if let Some(entry) = said.get_mut(&key) {
            if now.saturating_duration_since(entry.at) < QUIET {
                entry.more += 1;
                return None;
            }
            entry.at = now;
            return Some(std::mem::take(&mut entry.more));
        }
        if said.len() >= MAX_REMEMBERED {
            said.retain(|_, entry| now.saturating_duration_since(entry.at) < QUIET);
            if said.len() >= MAX_REMEMBERED {
                return None;
            }
        }
        said.insert(key, Said { at: now, more: 0 });
        Some(0)
    }
}

/// ` (and 3 times before)`, or nothing.
pub fn times_before(more: u64) -> String {
    match more {
        0 => String::new(),
        more => format!(" (and {more} times before)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_with_what_was_left_out() {
        let quiet = Quiet::default();
        let start = Instant::now();
        assert_eq!(quiet.say("a", start), Some(0));
        assert_eq!(quiet.say("a", start + Duration::from_secs(1)), None);
        assert_eq!(quiet.say("b", start + Duration::from_secs(1)), Some(0));
        assert_eq!(quiet.say("a", start + QUIET), Some(1));
    }

    #[test]
    fn many_strangers_are_not_remembered() {
        let quiet = Quiet::default();
        let start = Instant::now();
        let said = (0..1000).filter(|n| quiet.say(*n, start).is_some()).count();
        assert_eq!(said, MAX_REMEMBERED);
        assert_eq!(quiet.said.lock().len(), MAX_REMEMBERED);
        assert_eq!(quiet.say(5000, start + QUIET), Some(0));
    }
}
