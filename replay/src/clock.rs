//! The shard's time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_engine::Time;

/// A capture time stamp further back than this comes from a wall clock that was set.
const OLDEST_STAMP: Duration = Duration::from_secs(60);

/// Time for the engine: the wall clock at the start, and from then on a clock that is never set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    wall_micros: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall_micros = u64::try_from(wall.as_micros()).unwrap_or_default();
        Self {
            origin: Instant::now(),
            wall_micros,
        }
    }

    pub(crate) fn now(&self) -> Time {
        Time::from_micros(self.wall_micros) + self.origin.elapsed()
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.origin.elapsed()
    }

    /// When a frame with this time stamp (Unix, nanoseconds) was captured.
    pub(crate) fn stamp(now: Time, nanos: u64) -> Time {
        let at = Time::from_micros(nanos / 1000).min(now);
        if now.since(at) > OLDEST_STAMP {
            now
        } else {
            at
        }
    }
}
