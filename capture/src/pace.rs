//! How soon a reader looks for packets again.

use std::time::{Duration, Instant};

/// Lets a reader gather packets that come one by one: waking threads for each would cost the host
/// more than the packet does. One that comes after a pause is not waited with.
///
/// The reader asks after each look that found something and before it sleeps on its sources.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    window: Duration,
    looked_at: Option<Instant>,
}

impl Pace {
    /// What comes within `window` after a look waits until it is over.
    pub const fn new(window: Duration) -> Self {
        Self {
            window,
            looked_at: None,
        }
    }

    /// The reader has looked at its sources, and found something.
    pub fn looked(&mut self, now: Instant) {
        self.looked_at = Some(now);
    }

    /// How long the reader is to rest before it looks again; `None` if it need not.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        let since = now.saturating_duration_since(self.looked_at?);
        let left = self.window.checked_sub(since)?;
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_a_look_soon_is_gathered() {
        let (start, window) = (Instant::now(), Duration::from_millis(1));
        let mut pace = Pace::new(window);
        assert_eq!(pace.rest(start), None);
        pace.looked(start);
        let later = start + Duration::from_micros(300);
        assert_eq!(pace.rest(later), Some(Duration::from_micros(700)));
        assert_eq!(pace.rest(start + window), None);
        assert_eq!(pace.rest(start + 2 * window), None);
    }
}
