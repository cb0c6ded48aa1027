//! What happened since the start, in bounded memory: the last minutes by the second, hours and days more coarsely.

use std::collections::VecDeque;

use serde::Serialize;

use crate::report::{Buckets, Report};

/// Each level: the length of its points in seconds, and how many it keeps. They reach back 10 minutes, 3 hours and 8 days.
const LEVELS: [(f64, usize); 3] = [(1.0, 600), (15.0, 720), (300.0, 2400)];
/// Samples come about once a second: a span that lacks less than this, in seconds, is complete.
const JITTER: f64 = 0.5;

/// Counters of a report at a moment.
#[derive(Clone, Debug)]
struct Sample {
    seconds: f64,
    sessions: u64,
    copies: u64,
    lost: u64,
    wanted: u64,
    delivered: u64,
    live: Buckets,
    target: Buckets,
    lag: Buckets,
}

impl From<&Report> for Sample {
    fn from(report: &Report) -> Self {
        let ended = report.replicas.aborted.values();
        let refused = report.sessions.refused.values();
        let lost = ended.chain(refused).chain(report.replicas.refused.values());
        let first_byte = &report.latency.first_byte;
        Self {
            seconds: report.duration_seconds,
            sessions: report.sessions.captured,
            copies: report.replicas.established,
            lost: lost.sum(),
            wanted: report.bytes.wanted,
            delivered: report.bytes.delivered,
            live: first_byte.live.buckets.clone(),
            target: first_byte.target.buckets.clone(),
            lag: report.turn_lag.buckets.clone(),
        }
    }
}

/// A span of time. Rates are per second, times in milliseconds; what nothing was seen of is missing.
#[derive(Clone, Debug, Serialize)]
struct Point {
    /// Its end, in seconds since the start.
    at: f64,
    /// How long it is.
    seconds: f64,
    sessions: f32,
    copies: f32,
    /// Copies that ended otherwise than the client's connection, and what was refused.
    lost: f32,
    wanted_bytes: f32,
    delivered_bytes: f32,
    /// Of all since the start, at its end.
    fidelity: f64,
    /// Copies for each session that begins, at its end.
    intensity: f32,
    live_p50: Option<f32>,
    live_p99: Option<f32>,
    target_p50: Option<f32>,
    target_p99: Option<f32>,
    lag_p99: Option<f32>,
}

impl Point {
    fn new(before: &Sample, now: &Sample, report: &Report) -> Self {
        let seconds = (now.seconds - before.seconds).max(f64::MIN_POSITIVE);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as f32;
        let (live, target) = (
            now.live.since(&before.live),
            now.target.since(&before.target),
        );
        let ms = |buckets: &Buckets, share| Some((buckets.quantile(share)? / 1e3) as f32);
        let intensity = &report.intensity;
        Self {
            at: now.seconds,
            seconds,
            sessions: rate(now.sessions, before.sessions),
            copies: rate(now.copies, before.copies),
            lost: rate(now.lost, before.lost),
            wanted_bytes: rate(now.wanted, before.wanted),
            delivered_bytes: rate(now.delivered, before.delivered),
            fidelity: report.fidelity,
            intensity: (intensity.now * f64::from(intensity.factor)) as f32,
            live_p50: ms(&live, 0.5),
            live_p99: ms(&live, 0.99),
            target_p50: ms(&target, 0.5),
            target_p99: ms(&target, 0.99),
            lag_p99: ms(&now.lag.since(&before.lag), 0.99),
        }
    }
}

#[derive(Debug)]
struct Level {
    length: f64,
    room: usize,
    points: VecDeque<Point>,
    /// Where the span that is not complete begins.
    since: Option<Sample>,
}

/// The history of one copier.
#[derive(Debug)]
pub(super) struct History([Level; 3]);

/// Points of one level, oldest first.
#[derive(Debug, Serialize)]
pub(super) struct Excerpt {
    /// About how long each is, in seconds.
    length: f64,
    points: Vec<Point>,
}

impl Default for History {
    fn default() -> Self {
        Self(LEVELS.map(|(length, room)| Level {
            length,
            room,
            points: VecDeque::new(),
            since: None,
        }))
    }
}

impl History {
    /// Takes a report in, about once a second.
    pub(super) fn sample(&mut self, report: &Report) {
        let now = Sample::from(report);
        for level in &mut self.0 {
            let Some(since) = &level.since else {
                level.since = Some(now.clone());
                continue;
            };
            if now.seconds - since.seconds < level.length - JITTER {
                continue;
            }
            if level.points.len() >= level.room {
                level.points.pop_front();
            }
            level.points.push_back(Point::new(since, &now, report));
            level.since = Some(now.clone());
        }
    }

    /// What is known of the last `span` seconds, as finely as it is kept for so long, and of that what came after `after`
    /// seconds since the start.
    pub(super) fn excerpt(&self, span: f64, after: f64) -> Excerpt {
        let [finest, .., coarsest] = &self.0;
        let keeps = |level: &&Level| level.length * level.room as f64 >= span;
        let level = self.0.iter().find(keeps).unwrap_or(coarsest);
        let end = finest.points.back().map_or(0.0, |point| point.at);
        let from = after.max(end - span);
        let wanted = level.points.iter().filter(|point| point.at > from);
        Excerpt {
            length: level.length,
            points: wanted.cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seconds: u64) -> Report {
        let mut report = Report {
            duration_seconds: seconds as f64,
            fidelity: 1.0,
            ..Report::default()
        };
        report.sessions.captured = 10 * seconds;
        report.bytes.wanted = 1000 * seconds;
        report.bytes.delivered = 900 * seconds;
        report.replicas.aborted.insert("timeout", seconds);
        report.sessions.refused.insert("memory", seconds);
        report
    }

    #[test]
    fn two_hundred_hours_are_kept_in_bounded_memory() {
        let mut history = History::default();
        for second in 0..200 * 3600 {
            history.sample(&report(second));
        }
        let kept: Vec<usize> = history.0.iter().map(|level| level.points.len()).collect();
        assert_eq!(kept, [600, 720, 2399]);
        let bytes = kept.iter().sum::<usize>() * size_of::<Point>();
        assert!(bytes < 512 * 1024, "{bytes}");
        let all = history.excerpt(200.0 * 3600.0, 0.0);
        assert_eq!((all.length, all.points.len()), (300.0, 2399));
        let rates = |excerpt: &Excerpt| {
            let each = excerpt.points.iter();
            each.map(|point| (point.sessions, point.wanted_bytes, point.delivered_bytes))
                .collect::<Vec<_>>()
        };
        for span in [60.0, 600.0, 3.0 * 3600.0, 1e9] {
            let excerpt = history.excerpt(span, 0.0);
            assert!(!excerpt.points.is_empty());
            let steady = rates(&excerpt);
            assert!(steady.iter().all(|it| *it == (10.0, 1000.0, 900.0)));
            assert!(excerpt.points.iter().all(|point| point.lost == 2.0));
        }
    }

    #[test]
    fn an_excerpt_is_what_the_reader_lacks() {
        let mut history = History::default();
        assert!(history.excerpt(600.0, 0.0).points.is_empty());
        for second in 0..100 {
            history.sample(&report(second));
        }
        let at = |excerpt: Excerpt| -> Vec<f64> { excerpt.points.iter().map(|it| it.at).collect() };
        assert_eq!(at(history.excerpt(600.0, 96.0)), [97.0, 98.0, 99.0]);
        assert_eq!(at(history.excerpt(2.0, 0.0)), [98.0, 99.0]);
        assert_eq!(at(history.excerpt(3600.0, 40.0)), [45.0, 60.0, 75.0, 90.0]);
    }

    #[test]
    fn latencies_are_those_of_the_span() {
        let mut histogram = hdrhistogram::Histogram::new_with_max(3_600_000_000, 2).unwrap();
        let mut history = History::default();
        let mut at = |second, micros| {
            histogram.record_n(micros, 100).unwrap();
            let mut report = report(second);
            report.latency.first_byte.target = (&histogram).into();
            history.sample(&report);
        };
        at(0, 1_000);
        at(1, 1_000);
        at(2, 40_000);
        let excerpt = history.excerpt(600.0, 0.0);
        let p50: Vec<Option<f32>> = excerpt.points.iter().map(|it| it.target_p50).collect();
        let near = |value: Option<f32>, wanted: f32| (value.unwrap() / wanted - 1.0).abs() < 0.3;
        assert!(near(p50[0], 1.0) && near(p50[1], 40.0), "{p50:?}");
        assert_eq!(excerpt.points[0].live_p50, None, "nothing was seen of it");
    }
}
