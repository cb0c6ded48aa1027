//! Recorded traffic: its time is that of the recording, not of the run.
//!
//! A recording is fed as fast as its owner wants, so two clocks go apart. What concerns the live
//! side (latencies of the live server, think times, gaps, idle sessions) is measured on the clock of
//! the recording; what concerns the target is measured on that of the run. Only think times cross
//! over: they are shortened here, and nowhere else.

use std::time::Duration;

use crate::time::Time;

/// How a recording is replayed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Think times are divided by this; infinite: there are none.
    pub speed: f64,
    /// No think time is longer, before it is divided.
    pub longest_pause: Option<Duration>,
}

impl Default for Recorded {
    fn default() -> Self {
        Self {
            speed: 1.0,
            longest_pause: None,
        }
    }
}

impl Recorded {
    /// The think time of a replica for that of a client, both in microseconds.
    pub(crate) fn think(&self, micros: u32) -> u32 {
        let limit = self.longest_pause.map_or(u32::MAX, |pause| {
            u32::try_from(pause.as_micros()).unwrap_or(u32::MAX)
        });
        let scaled = f64::from(micros.min(limit)) / self.speed;
        // A float that is out of range becomes the nearest number, and no number becomes 0.
        scaled as u32
    }
}

/// How far a recording was taken in.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RecordedClock {
    /// The latest time of the recording that was met.
    latest: Time,
    /// Nothing follows what was taken in.
    pub(crate) over: bool,
}

impl RecordedClock {
    /// A segment bears this time. The origin stands for "not yet" and is left out.
    pub(crate) fn meet(&mut self, at: Time) -> Time {
        let at = at.max(Time::ORIGIN.plus_micros(1));
        self.latest = self.latest.max(at);
        self.over = false;
        at
    }

    /// The present of the recording.
    pub(crate) const fn now(&self) -> Time {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn think_times_are_cut_and_then_divided() {
        let recorded = |speed, pause: Option<u64>| Recorded {
            speed,
            longest_pause: pause.map(Duration::from_micros),
        };
        assert_eq!(recorded(1.0, None).think(700), 700);
        assert_eq!(recorded(10.0, None).think(700), 70);
        assert_eq!(recorded(0.5, None).think(u32::MAX), u32::MAX);
        assert_eq!(recorded(2.0, Some(100)).think(700), 50);
        assert_eq!(recorded(f64::INFINITY, None).think(u32::MAX), 0);
    }
}
