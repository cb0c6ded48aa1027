//! Says so when capture loses frames: at once, and then once a minute with how many there were.

use std::time::{Duration, Instant};

/// How long nothing more is said.
const QUIET: Duration = Duration::from_secs(60);

/// What was lost, as far as it was said.
#[derive(Debug, Default)]
pub(super) struct Losses {
    said: u64,
    quiet_until: Option<Instant>,
}

impl Losses {
    /// So many frames were lost until now.
    pub(super) fn tell(&mut self, now: Instant, dropped: u64) {
        if let Some(new) = self.news(now, dropped) {
            tracing::warn!(
                "capture lost {new} frames, since the copier got too little CPU time or its buffer is too \
                 small (-B): turns are missing, and how many is an estimate (fidelity_low)"
            );
        }
    }

    /// How many are to be spoken of now.
    fn news(&mut self, now: Instant, dropped: u64) -> Option<u64> {
        let new = dropped.checked_sub(self.said).filter(|new| *new > 0)?;
        if self.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        self.said = dropped;
        self.quiet_until = Some(now + QUIET);
        Some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_said_at_once_and_then_gathered() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        assert_eq!(losses.news(start, 0), None);
        assert_eq!(losses.news(start, 5), Some(5));
        assert_eq!(losses.news(start + QUIET / 2, 9), None);
        assert_eq!(losses.news(start + QUIET, 12), Some(7));
        assert_eq!(losses.news(start + 3 * QUIET, 12), None);
    }
}
