//! Latencies in the report: percentiles, and counts by bucket from which others are made.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies from the last byte of a turn to its answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// To the first byte of the answer.
    pub first_byte: Sides,
    /// To the last byte of the answer.
    pub last_byte: Sides,
}

/// Live and target side by side.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sides {
    /// At the live server, as captured there.
    pub live: Percentiles,
    /// At the target: from sending to the response header's arrival, the interceptor's way here
    /// included.
    pub target: Percentiles,
}

/// Percentiles in microseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Percentiles {
    /// How many turns.
    pub count: u64,
    /// The median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// The longest.
    pub max: u64,
    /// The same as counts, for metrics and the history: the report's reader has the percentiles.
    #[serde(skip)]
    pub buckets: Buckets,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(histogram: &Histogram<u64>) -> Self {
        Self {
            count: histogram.len(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            max: histogram.max(),
            buckets: histogram.into(),
        }
    }
}

/// The largest values of buckets below 100 µs, and so on in each power of ten: about a tenth apart.
const STEPS: [u64; 20] = [
    10, 11, 12, 13, 14, 16, 18, 20, 22, 25, 28, 32, 36, 40, 45, 50, 56, 63, 71, 80,
];
/// Those of them that metrics have.
const COARSE_STEPS: [u64; 3] = [10, 20, 50];
/// Powers of ten: from 10 µs to 80 s.
const POWERS: usize = 7;
const BUCKETS: usize = POWERS * STEPS.len() + 1;

/// The largest value of each bucket but the last, in microseconds, and whether metrics have it.
fn bounds() -> impl Iterator<Item = (u64, bool)> {
    let powers = (0..POWERS as u32).map(|power| 10_u64.pow(power));
    powers.flat_map(|power| STEPS.map(|step| (step * power, COARSE_STEPS.contains(&step))))
}

/// How many values fell into each bucket, and their sum. Both only grow from report to report.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    counts: [u64; BUCKETS],
    sum: f64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            counts: [0; BUCKETS],
            sum: 0.0,
        }
    }
}

impl From<&Histogram<u64>> for Buckets {
    fn from(histogram: &Histogram<u64>) -> Self {
        let mut buckets = Self::default();
        let mut bounds = bounds().map(|(bound, _)| bound).enumerate().peekable();
        // Values come in their order.
        for value in histogram.iter_recorded() {
            let (micros, count) = (value.value_iterated_to(), value.count_at_value());
            // Of all that the histogram does not tell apart, 1 ms for 1 ms.
            let least = histogram.lowest_equivalent(micros);
            while bounds.next_if(|(_, bound)| *bound < least).is_some() {}
            let place = bounds.peek().map_or(BUCKETS - 1, |(place, _)| *place);
            if let Some(place) = buckets.counts.get_mut(place) {
                *place += count;
            }
            buckets.sum += histogram.median_equivalent(micros) as f64 * count as f64;
        }
        buckets
    }
}

impl Buckets {
    /// All values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values in seconds, to two significant digits of each.
    pub fn sum_seconds(&self) -> f64 {
        self.sum / 1e6
    }

    /// For each bucket of metrics its largest value in seconds, and how many values are in it.
    pub fn in_seconds(&self) -> Vec<(f64, u64)> {
        let bounds = bounds().map(|(bound, coarse)| (bound as f64 / 1e6, coarse));
        let bounds = bounds.chain([(f64::INFINITY, true)]);
        let mut buckets = Vec::new();
        let mut below = 0;
        for ((bound, coarse), count) in bounds.zip(self.counts) {
            below += count;
            if coarse {
                buckets.push((bound, std::mem::take(&mut below)));
            }
        }
        buckets
    }

    /// What was added since `before`, a former state of the same.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(before.counts) {
            *count = count.saturating_sub(before);
        }
        since.sum = (self.sum - before.sum).max(0.0);
        since
    }

    /// The value below which this share of all lies, in microseconds; nothing where there are none. Within a bucket values
    /// are taken as spread evenly.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.count() as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        // Of the last bucket no more than its lower end is known.
        let bounds = bounds().map(|(bound, _)| Some(bound as f64)).chain([None]);
        for (upper, count) in bounds.zip(&self.counts) {
            let upper = upper.unwrap_or(lower);
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return Some(lower + (upper - lower) * ((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            lower = upper;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Percentiles {
        let mut histogram = Histogram::new_with_max(3_600_000_000, 2).unwrap();
        for value in values {
            histogram.record(value).unwrap();
        }
        Percentiles::from(&histogram)
    }

    #[test]
    fn every_value_is_in_one_bucket_and_metrics_lose_none() {
        let values = (0..40).map(|power| 3_u64 << (power % 30));
        let all = of(values).buckets;
        assert_eq!(all.count(), 40);
        let metrics = all.in_seconds();
        assert_eq!(metrics.iter().map(|(_, count)| count).sum::<u64>(), 40);
        assert!(metrics.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(metrics.last().map(|it| it.0), Some(f64::INFINITY));
        let bounds: Vec<f64> = metrics.iter().map(|it| it.0).take(7).collect();
        assert_eq!(bounds, [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3]);
        let at_most = |limit: f64, values: Percentiles| -> u64 {
            let below = values.buckets.in_seconds().into_iter();
            below.filter(|it| it.0 <= limit).map(|it| it.1).sum()
        };
        assert_eq!(
            at_most(0.001, of([1000, 1000, 1100])),
            2,
            "a bound is in its bucket"
        );
    }

    #[test]
    fn a_quantile_is_within_its_bucket_of_the_true_one() {
        let values = || (1..=1000).map(|it| it * it);
        let (exact, buckets) = (of(values()), of(values()).buckets);
        for (share, exact) in [(0.5, exact.p50), (0.9, exact.p90), (0.99, exact.p99)] {
            let near = buckets.quantile(share).unwrap();
            let ratio = near / exact as f64;
            assert!((0.9..1.12).contains(&ratio), "{share}: {near} for {exact}");
        }
        assert_eq!(of([]).buckets.quantile(0.5), None);
        let hour = of([3_600_000_000]).buckets.quantile(0.5);
        assert_eq!(hour, Some(80e6), "the last bucket has no upper end");
    }

    #[test]
    fn a_span_is_the_difference_of_two_states() {
        let (before, now) = (of([5, 100]).buckets, of([5, 100, 100, 9000]).buckets);
        let since = now.since(&before);
        assert_eq!(since.count(), 2);
        assert_eq!(since.quantile(0.4).map(f64::round), Some(96.0));
        assert_eq!(before.since(&now).count(), 0);
    }
}
