//! How fast one stream is read: a token bucket that goes into debt and waits it out.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What a message costs besides its bytes, so that floods of tiny ones are bounded too.
const OVERHEAD: usize = 256;

/// A bucket that holds a quarter of a second.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: f64,
    tokens: f64,
    last: Instant,
}

impl Rate {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        let per_second = bytes_per_second.max(1) as f64;
        Rate {
            per_second,
            tokens: per_second / 4.0,
            last: Instant::now(),
        }
    }

    /// Pays for a message; returns once the stream may be read again.
    pub(super) async fn pay(&mut self, bytes: usize) {
        let now = Instant::now();
        let earned = (now - self.last).as_secs_f64() * self.per_second;
        self.last = now;
        self.tokens = (self.tokens + earned).min(self.per_second / 4.0);
        self.tokens -= (bytes + OVERHEAD) as f64;
        if self.tokens < 0.0 {
            sleep(Duration::from_secs_f64(-self.tokens / self.per_second)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_read_at_the_given_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(1_000_000);
        for _ in 0..1000 {
            rate.pay(10_000 - OVERHEAD).await;
        }
        // 10 MB at 1 MB/s, less the burst of 0.25 s
        let took = start.elapsed().as_secs_f64();
        assert!((9.5..10.5).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_modest_stream_never_waits() {
        let mut rate = Rate::new(1_000_000);
        for _ in 0..100 {
            let before = Instant::now();
            rate.pay(1000).await;
            assert_eq!(before.elapsed(), Duration::ZERO);
            sleep(Duration::from_millis(10)).await;
        }
    }
}
