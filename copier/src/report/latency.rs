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

/// The largest value of each bucket but the last, in microseconds: six for each power of ten, from 10 µs to 70 s.
#[rustfmt::skip]
const BOUNDS: [u64; 42] = [
    10, 15, 20, 30, 50, 70,
    100, 150, 200, 300, 500, 700,
    1_000, 1_500, 2_000, 3_000, 5_000, 7_000,
    10_000, 15_000, 20_000, 30_000, 50_000, 70_000,
    100_000, 150_000, 200_000, 300_000, 500_000, 700_000,
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 5_000_000, 7_000_000,
    10_000_000, 15_000_000, 20_000_000, 30_000_000, 50_000_000, 70_000_000,
];
const BUCKETS: usize = BOUNDS.len() + 1;

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
        for value in histogram.iter_recorded() {
            buckets.add(value.value_iterated_to(), value.count_at_value());
        }
        buckets
    }
}

impl Buckets {
    fn add(&mut self, micros: u64, count: u64) {
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(place) = self.counts.get_mut(place) {
            *place += count;
        }
        self.sum += micros as f64 * count as f64;
    }

    /// All values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all values in seconds, to two significant digits of each.
    pub fn sum_seconds(&self) -> f64 {
        self.sum / 1e6
    }

    /// For each bucket its largest value in seconds, and how many values are in it: those of metrics, three for each power
    /// of ten, and the rest.
    pub fn in_seconds(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS.iter().map(|micros| *micros as f64 / 1e6);
        let all = bounds.chain([f64::INFINITY]).zip(self.counts);
        let mut coarse = Vec::with_capacity(BUCKETS / 2 + 1);
        let mut below = 0;
        for (place, (bound, count)) in all.enumerate() {
            below += count;
            // 1, 2 and 5 of each power of ten.
            if place % 2 == 0 {
                coarse.push((bound, std::mem::take(&mut below)));
            }
        }
        coarse
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

    /// Adds what others counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }

    /// The value below which this share of all lies, in microseconds; nothing where there are none. Within a bucket values
    /// are taken as spread evenly.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = share * self.count() as f64;
        let mut below = 0.0;
        let mut lower = 0.0;
        for (place, count) in self.counts.iter().enumerate() {
            // Of the last bucket no more than its lower end is known.
            let upper = BOUNDS.get(place).map_or(lower, |bound| *bound as f64);
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
    }

    #[test]
    fn a_quantile_is_within_its_bucket_of_the_true_one() {
        let values = || (1..=1000).map(|it| it * it);
        let (exact, buckets) = (of(values()), of(values()).buckets);
        for (share, exact) in [(0.5, exact.p50), (0.9, exact.p90), (0.99, exact.p99)] {
            let near = buckets.quantile(share).unwrap();
            let ratio = near / exact as f64;
            assert!((0.8..1.25).contains(&ratio), "{share}: {near} for {exact}");
        }
        assert_eq!(of([]).buckets.quantile(0.5), None);
        let hour = of([3_600_000_000]).buckets.quantile(0.5);
        assert_eq!(hour, Some(70e6), "the last bucket has no upper end");
    }

    #[test]
    fn a_span_is_the_difference_of_two_states() {
        let (before, now) = (of([5, 100]).buckets, of([5, 100, 100, 9000]).buckets);
        let mut again = before.clone();
        let since = now.since(&before);
        assert_eq!(since.count(), 2);
        again.merge(&since);
        assert_eq!(again.counts, now.counts);
        assert!((again.sum - now.sum).abs() < 1.0);
    }
}
