//! A clock that counts the time for which the machine was suspended, too: what was true before is
//! not fresh after.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment: milliseconds since this machine was started (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct BootTime(u64);

impl BootTime {
    /// The present.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let ms = u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000;
        BootTime(seconds * 1000 + ms)
    }

    /// So many milliseconds since the start.
    pub const fn from_ms(ms: u64) -> Self {
        BootTime(ms)
    }

    /// Milliseconds since the start.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Later by `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        BootTime(self.0.saturating_add(ms(duration)))
    }

    /// How long `earlier` is past; zero if it is not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_forward() {
        let before = BootTime::now();
        assert!(before.ms() > 0);
        assert_eq!(
            before.after(Duration::from_secs(2)).since(before).as_secs(),
            2
        );
        assert_eq!(
            before.since(before.after(Duration::from_secs(2))),
            Duration::ZERO
        );
    }
}
