//! The times of a recording: when each packet is due in the replay.

use std::time::Duration;

/// A step back longer than this is a clock that was set, or the next file of another time; a
/// shorter one is the disorder of a capture with several queues.
const CLOCK_SET_BACK: u64 = 60_000_000_000;

/// Where a packet lies, in nanoseconds from the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// By the recording's clock.
    pub recorded: u64,
    /// With long pauses shortened; the speed does not count here.
    pub replayed: u64,
}

/// Follows the time stamps of a recording. Positions never go back.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    longest_pause: u64,
    /// The latest time stamp.
    latest: Option<u64>,
    position: Position,
    longest_seen: u64,
}

impl Timeline {
    /// A timeline on which no pause is longer than `longest_pause`.
    pub fn new(longest_pause: Option<Duration>) -> Self {
        Self {
            longest_pause: longest_pause.map_or(u64::MAX, |pause| {
                u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX)
            }),
            latest: None,
            position: Position::default(),
            longest_seen: 0,
        }
    }

    /// Where a packet with this time stamp (nanoseconds since 1970) lies.
    pub fn advance(&mut self, timestamp: u64) -> Position {
        let latest = *self.latest.get_or_insert(timestamp);
        if timestamp >= latest {
            let pause = timestamp - latest;
            self.longest_seen = self.longest_seen.max(pause);
            let Position { recorded, replayed } = self.position;
            self.position = Position {
                recorded: recorded.saturating_add(pause),
                replayed: replayed.saturating_add(pause.min(self.longest_pause)),
            };
            self.latest = Some(timestamp);
        } else if latest - timestamp > CLOCK_SET_BACK {
            self.latest = Some(timestamp);
        }
        self.position
    }

    /// Where the latest packet lies.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// What follows begins where this ends.
    pub const fn begin_anew(&mut self) {
        self.latest = None;
    }

    /// The longest pause between two packets so far.
    pub const fn longest_seen(&self) -> Duration {
        Duration::from_nanos(self.longest_seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn replayed(timeline: &mut Timeline, times: &[u64]) -> Vec<u64> {
        times
            .iter()
            .map(|time| timeline.advance(*time).replayed)
            .collect()
    }

    #[test]
    fn long_pauses_are_shortened_and_the_rest_kept() {
        let mut timeline = Timeline::new(Some(Duration::from_secs(2)));
        let times = [100, 101, 111, 112].map(|s| s * SECOND);
        assert_eq!(
            replayed(&mut timeline, &times),
            [0, SECOND, 3 * SECOND, 4 * SECOND]
        );
        assert_eq!(timeline.advance(112 * SECOND).recorded, 12 * SECOND);
        assert_eq!(timeline.longest_seen(), Duration::from_secs(10));
    }

    #[test]
    fn disorder_costs_no_time_and_a_clock_set_back_goes_on() {
        let mut timeline = Timeline::new(None);
        let times = [5, 7, 6, 8].map(|s| s * SECOND);
        assert_eq!(
            replayed(&mut timeline, &times),
            [0, 2 * SECOND, 2 * SECOND, 3 * SECOND]
        );
        let mut timeline = Timeline::new(None);
        let times = [1000, 1001, 100, 102].map(|s| s * SECOND);
        assert_eq!(
            replayed(&mut timeline, &times),
            [0, SECOND, SECOND, 3 * SECOND]
        );
    }

    #[test]
    fn a_repetition_follows_at_once() {
        let mut timeline = Timeline::new(None);
        replayed(&mut timeline, &[SECOND, 3 * SECOND]);
        timeline.begin_anew();
        assert_eq!(
            replayed(&mut timeline, &[SECOND, 3 * SECOND]),
            [2 * SECOND, 4 * SECOND]
        );
    }
}
