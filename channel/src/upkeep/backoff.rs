//! The waits between attempts: doubling, jittered, bounded.

use std::time::Duration;

/// Waits that double from `first` to `max`. Each is shortened by a random part of up to a half, so
/// that many copiers do not come back at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(50),
            max: Duration::from_secs(2),
        }
    }
}

impl Backoff {
    /// The wait after `failures` failures in a row, from 1. `random` picks the jitter.
    pub(super) fn wait(&self, failures: u32, random: u64) -> Duration {
        let doubled = 1u32
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u32::MAX);
        let full = self.first.saturating_mul(doubled).min(self.max);
        // random / 2^64 of a half
        let half = u64::try_from((full / 2).as_nanos()).unwrap_or(u64::MAX);
        let less = (u128::from(half) * u128::from(random)) >> 64;
        full - Duration::from_nanos(u64::try_from(less).unwrap_or(half))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_lose_at_most_a_half() {
        let backoff = Backoff::default();
        let longest: Vec<_> = (1..=8).map(|n| backoff.wait(n, 0).as_millis()).collect();
        assert_eq!(longest, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff.wait(u32::MAX, 0), backoff.max);
        let shortest = backoff.wait(8, u64::MAX);
        assert!((Duration::from_secs(1)..Duration::from_millis(1001)).contains(&shortest));
    }
}
