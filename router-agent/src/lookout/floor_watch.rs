//! What the floor's counters say: that it had to stop something is proof that answers go past what
//! diverts them, though every look-up says otherwise.

use std::time::{Duration, Instant};

use crate::kernel::model::Stopped;

/// How often the counters are read.
const INTERVAL: Duration = Duration::from_millis(50);
/// For how long it is trouble after the last packet was stopped. No look-up tells when the cause is
/// gone, so copying is tried again after this time; and after twice as long each time that it was in
/// vain.
const SHORTEST: Duration = Duration::from_secs(5);
/// The longest such time.
const LONGEST: Duration = Duration::from_secs(160);

/// Reads the floor's counters, and remembers.
#[derive(Debug)]
pub(super) struct FloorWatch {
    /// What was counted when nothing was wrong.
    counted: Stopped,
    next_at: Option<Instant>,
    until: Option<Instant>,
    lasts: Duration,
    /// All that was ever stopped.
    total: Stopped,
}

impl Default for FloorWatch {
    fn default() -> Self {
        Self {
            counted: Stopped::default(),
            next_at: None,
            until: None,
            lasts: SHORTEST,
            total: Stopped::default(),
        }
    }
}

impl FloorWatch {
    /// Whether the counters are to be read now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if self.next_at.is_some_and(|at| at > now) {
            return false;
        }
        self.next_at = Some(now + INTERVAL);
        true
    }

    /// Whether more was stopped than is known.
    pub(super) fn is_news(&self, stopped: Stopped) -> bool {
        stopped.packets > self.counted.packets || stopped.errors > self.counted.errors
    }

    /// Begins with these counters: what was stopped before is not counted.
    pub(super) fn begin_at(&mut self, stopped: Stopped) {
        self.counted = stopped;
    }

    /// Takes the counters in. What was stopped since the last call is `explained` where the cause is
    /// known: a change that was just made, or a look-up that went wrong. Says how much it was.
    pub(super) fn take(&mut self, now: Instant, stopped: Stopped, explained: bool) -> Stopped {
        // A floor that was replaced counts from 0.
        let grown = |before: u64, after: u64| after.checked_sub(before).unwrap_or(after);
        let new = Stopped {
            packets: grown(self.counted.packets, stopped.packets),
            errors: grown(self.counted.errors, stopped.errors),
        };
        self.counted = stopped;
        self.total.packets += new.packets;
        self.total.errors += new.errors;
        if new.packets > 0 && !explained {
            let over = self.until.is_none_or(|until| until <= now);
            let again = self.until.is_some_and(|until| until + self.lasts > now);
            if over {
                self.lasts = if again {
                    (2 * self.lasts).min(LONGEST)
                } else {
                    SHORTEST
                };
            }
            self.until = Some(now + self.lasts);
        }
        new
    }

    /// Whether it had to stop something a short time ago.
    pub(super) fn is_trouble(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// All that was stopped since the start.
    pub(super) fn total(&self) -> Stopped {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(packets: u64) -> Stopped {
        Stopped { packets, errors: 0 }
    }

    #[test]
    fn what_was_stopped_is_trouble_until_nothing_was_for_a_while() {
        let (now, mut watch) = (Instant::now(), FloorWatch::default());
        watch.begin_at(stopped(100));
        watch.take(now, stopped(103), true);
        assert!(!watch.is_trouble(now), "the cause is known");
        assert!(!watch.is_news(stopped(103)) && watch.is_news(stopped(104)));
        assert_eq!(watch.take(now, stopped(105), false), stopped(2));
        assert!(watch.is_trouble(now + SHORTEST / 2));
        assert!(!watch.is_trouble(now + SHORTEST));
        assert_eq!(watch.total(), stopped(5));
    }

    #[test]
    fn a_cause_that_stays_is_tried_less_and_less_often() {
        let (mut now, mut watch) = (Instant::now(), FloorWatch::default());
        let mut waits = Vec::new();
        for packets in 1..8 {
            watch.take(now, stopped(packets), false);
            let began = now;
            while watch.is_trouble(now) {
                now += Duration::from_secs(1);
            }
            waits.push((now - began).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 160]);
        now += 2 * LONGEST;
        watch.take(now, stopped(9), false);
        assert!(
            !watch.is_trouble(now + SHORTEST),
            "it was all right for long"
        );
    }

    #[test]
    fn a_floor_that_was_replaced_counts_from_0() {
        let (now, mut watch) = (Instant::now(), FloorWatch::default());
        watch.take(now, stopped(100), true);
        assert_eq!(watch.take(now, stopped(2), true), stopped(2));
    }
}
