//! What a load counted and measured.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Texts of errors that are kept; the rest is only counted.
const EXAMPLES: usize = 5;
/// Longest latency that is told apart, in microseconds; longer ones count as this.
const LONGEST: u64 = 3_600_000_000;

/// The result of a load, as its program prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Connections that went as they should, to their end.
    pub sessions: u64,
    /// Requests whose answers were right.
    pub requests: u64,
    /// Connections that went wrong: refused, reset, too slow, or with a wrong answer.
    pub errors: u64,
    /// The first few of those, in words.
    pub examples: Vec<String>,
    /// From the first byte of a request sent to the last byte of its answer received.
    pub latency_us: Latency,
    /// How long it all took.
    pub seconds: f64,
}

/// Percentiles in microseconds; zeros when nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the requests were faster.
    pub p50: u64,
    /// Nine of ten were faster.
    pub p90: u64,
    /// 99 of 100 were faster.
    pub p99: u64,
    /// The slowest.
    pub max: u64,
}

/// What is being counted. The histogram (tens of KB) is only made when there is something to measure.
#[derive(Debug, Default)]
pub(super) struct Tally {
    sessions: u64,
    errors: u64,
    examples: Vec<String>,
    few: Vec<Duration>,
    many: Option<Histogram<u64>>,
}

impl Tally {
    /// A request was answered as it should be.
    pub(super) fn request(&mut self, took: Duration) {
        self.few.push(took);
        if self.few.len() >= 4096 {
            self.settle();
        }
    }

    /// A session went well.
    pub(super) fn session(&mut self) {
        self.sessions += 1;
    }

    /// A session did not.
    pub(super) fn trouble(&mut self, what: String) {
        self.errors += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what);
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.errors += other.errors;
        let room = EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.into_iter().take(room));
        self.few.extend(other.few);
        if self.few.len() >= 4096 {
            self.settle();
        }
        if let Some(theirs) = other.many {
            match &mut self.many {
                // Of the same construction: adding cannot fail.
                Some(ours) => drop(ours.add(theirs)),
                None => self.many = Some(theirs),
            }
        }
    }

    fn settle(&mut self) {
        if self.many.is_none() {
            // Three digits, as its own documentation recommends; these bounds are always accepted.
            self.many = Histogram::new_with_bounds(1, LONGEST, 3).ok();
        }
        if let Some(many) = &mut self.many {
            for took in self.few.drain(..) {
                many.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
            }
        }
    }

    pub(super) fn summary(mut self, took: Duration) -> Summary {
        self.settle();
        let latency = |share| {
            self.many
                .as_ref()
                .map_or(0, |many| many.value_at_quantile(share))
        };
        Summary {
            sessions: self.sessions,
            requests: self.many.as_ref().map_or(0, |many| many.len()),
            errors: self.errors,
            examples: self.examples,
            latency_us: Latency {
                p50: latency(0.5),
                p90: latency(0.9),
                p99: latency(0.99),
                max: self.many.as_ref().map_or(0, |many| many.max()),
            },
            seconds: took.as_secs_f64(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_survive_adding_up() {
        let mut total = Tally::default();
        for part in 0..10 {
            let mut tally = Tally::default();
            for number in 1..=1000 {
                tally.request(Duration::from_micros(part * 1000 + number));
            }
            tally.session();
            total.add(tally);
        }
        total.trouble("one".to_owned());
        let summary = total.summary(Duration::from_secs(2));
        assert_eq!(
            (summary.sessions, summary.requests, summary.errors),
            (10, 10_000, 1)
        );
        assert!(
            (4_990..=5_010).contains(&summary.latency_us.p50),
            "{summary:?}"
        );
        assert!(
            (9_890..=9_910).contains(&summary.latency_us.p99),
            "{summary:?}"
        );
    }
}
