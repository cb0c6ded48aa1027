//! How often the shard looks for messages of interceptors: with many of them, not at each message.
//!
//! Ten interceptors answer in as many small messages, and waking up for each would cost the live
//! server more than the message itself. So a shard that has looked a moment ago rests before it
//! looks again, as network cards gather frames for one interrupt. One that has not looked for
//! longer does so at once: without load nothing waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What each interceptor but the first adds to the window.
const PER_INTERCEPTOR: Duration = Duration::from_micros(100);
/// The longest window: it delays turns of a session that waits for nothing else.
const LONGEST: Duration = Duration::from_millis(1);

/// The window, set by whoever knows the interceptors. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Moderation {
    nanoseconds: Arc<AtomicU64>,
}

impl Moderation {
    /// There are so many interceptors now.
    pub fn set_interceptors(&self, count: usize) {
        let others = u32::try_from(count.saturating_sub(1)).unwrap_or(u32::MAX);
        let window = PER_INTERCEPTOR.saturating_mul(others).min(LONGEST);
        let nanoseconds = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.store(nanoseconds, Ordering::Relaxed);
    }

    /// How long after a look the next one comes, at least.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_with_interceptors_up_to_a_bound() {
        let moderation = Moderation::default();
        let windows = [0, 1, 2, 10, 1000].map(|count| {
            moderation.set_interceptors(count);
            moderation.window().as_micros()
        });
        assert_eq!(windows, [0, 0, 100, 900, 1000]);
    }
}
