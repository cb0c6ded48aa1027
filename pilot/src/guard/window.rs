//! What happened lately: the difference between now and the beginning of the window.

use std::collections::VecDeque;
use std::time::Duration;

use super::Sample;

/// A window slides in this many parts; so many samples are kept.
const PARTS: u32 = 10;

/// What happened within a window.
#[derive(Debug, Clone)]
pub struct Recent {
    /// What happened.
    pub sample: Sample,
    /// How long it took: the window's length, or less after a beginning.
    pub span: Duration,
}

/// A sliding window over samples.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    /// Samples with their times, oldest first; the oldest is where the window begins.
    samples: VecDeque<(Duration, Sample)>,
}

impl Window {
    /// An empty window.
    pub const fn new(length: Duration) -> Self {
        Self {
            length,
            samples: VecDeque::new(),
        }
    }

    /// How long it is.
    pub const fn length(&self) -> Duration {
        self.length
    }

    /// Forgets everything: what was before says nothing about what comes now.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// Takes the sums at `now`; gives what happened within the window.
    pub fn slide(&mut self, now: Duration, sample: Sample) -> Option<Recent> {
        // The window begins at the newest sample that is as old as it is long.
        while self
            .samples
            .get(1)
            .is_some_and(|(time, _)| now.saturating_sub(*time) >= self.length)
        {
            self.samples.pop_front();
        }
        let recent = self.samples.front().map(|(time, before)| Recent {
            sample: sample.since(before),
            span: now.saturating_sub(*time),
        });
        let newest = self.samples.back().map(|(time, _)| *time);
        if newest.is_none_or(|newest| now.saturating_sub(newest) >= self.length / PARTS) {
            self.samples.push_back((now, sample));
        }
        recent
    }
}
