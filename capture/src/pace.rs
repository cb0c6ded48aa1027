//! How soon a reader looks for packets again.

use std::time::{Duration, Instant};

/// Lets a reader gather packets that come one by one: waking threads for each would cost the host
/// more than the packet does. One that comes after a pause is not waited with.
///
/// The reader asks after each look that found something and before it sleeps on its sources.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    looked_at: Option<Instant>,
}

impl Pace {
    /// The reader has looked at its sources, and found something.
    pub fn looked(&mut self, now: Instant) {
        self.looked_at = Some(now);
    }

    /// How long the reader is to rest before it looks again, so that a look is no sooner than `window`
    /// after the one before; `None` if it need not.
    pub fn rest(&self, now: Instant, window: Duration) -> Option<Duration> {
        let since = now.saturating_duration_since(self.looked_at?);
        window.checked_sub(since).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_follows_a_look_soon_is_gathered() {
        let (start, window) = (Instant::now(), Duration::from_millis(1));
        let mut pace = Pace::default();
        assert_eq!(pace.rest(start, window), None);
        pace.looked(start);
        let later = start + Duration::from_micros(300);
        assert_eq!(pace.rest(later, window), Some(Duration::from_micros(700)));
        assert_eq!(pace.rest(start + window, window), None);
        assert_eq!(pace.rest(later, Duration::ZERO), None);
    }
}
