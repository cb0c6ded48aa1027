//! A rule's figure, from what happened lately.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::{Guard, Limit, Metric, Recent, Turns};

/// The live server's clock may show nothing at all: its answers take this long at least, in seconds.
const LEAST: f64 = 1e-6;

/// A figure with what it was made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// A part of all, how many times the live server's, or seconds: as the rule's limit is written.
    pub value: f64,
    /// From how many events: connects, ended replicas, turns or answers.
    pub count: u64,
    /// The live server's own figure, where there is one: a part, or seconds.
    pub live: Option<f64>,
    /// The target's own figure: a part, or seconds.
    pub target: f64,
}

impl Guard {
    /// The figure that this rule looks at; `None` when there was nothing to look at, or less than
    /// `min_sample` answers of the live server to compare with.
    pub fn figure(&self, recent: &Recent, min_sample: u64) -> Option<Figure> {
        let recent = &recent.sample;
        let share = |part: u64, of: u64| part as f64 / of as f64;
        match self.metric {
            Metric::ConnectFailures => {
                let failed = recent.refused + recent.unanswered_connects;
                // A SYN that was answered late counts twice here: as unanswered and as connected.
                let count = failed + recent.connected;
                let value = (count > 0).then(|| share(failed, count))?;
                Some(Figure {
                    value,
                    count,
                    live: None,
                    target: value,
                })
            }
            Metric::Resets => {
                let value = (recent.ended > 0).then(|| share(recent.resets, recent.ended))?;
                Some(Figure {
                    value,
                    count: recent.ended,
                    live: None,
                    target: value,
                })
            }
            Metric::Unanswered => {
                let part = |turns: &Turns| {
                    (turns.count() > 0).then(|| share(turns.overdue, turns.count()))
                };
                let target = part(&recent.target_turns)?;
                // A recording may hold the clients' side alone.
                let seen = recent.live_segments > 0;
                let live = part(&recent.live_turns).filter(|_| seen);
                Some(Figure {
                    value: (target - live.unwrap_or_default()).max(0.0),
                    count: recent.target_turns.count(),
                    live,
                    target,
                })
            }
            Metric::Latency(quantile) => {
                let count = recent.target_latency.len();
                let seconds = |latencies: &Histogram<u64>| {
                    let micros = latencies.value_at_quantile(quantile);
                    (!latencies.is_empty()).then_some(micros as f64 / 1e6)
                };
                let target = seconds(&recent.target_latency)?;
                let live = seconds(&recent.live_latency);
                let value = match self.limit {
                    Limit::Time(_) => target,
                    Limit::Times(_) | Limit::Share(_) => {
                        let live = live.filter(|_| recent.live_latency.len() >= min_sample)?;
                        target / live.max(LEAST)
                    }
                };
                Some(Figure {
                    value,
                    count,
                    live,
                    target,
                })
            }
        }
    }

    /// Whether this rule compares with the live server, and there is enough to judge of the target
    /// but too little of the live server.
    pub fn lacks_live(&self, recent: &Recent, min_sample: u64) -> bool {
        let compares = matches!(self.limit, Limit::Times(_));
        let (live, target) = (&recent.sample.live_latency, &recent.sample.target_latency);
        compares && target.len() >= min_sample && live.len() < min_sample
    }

    /// Whether a figure passes the rule's bound.
    pub fn is_broken_by(&self, figure: &Figure) -> bool {
        let limit = match self.limit {
            Limit::Share(limit) | Limit::Times(limit) => limit,
            Limit::Time(time) => time.as_secs_f64(),
        };
        figure.value > limit
    }

    /// A figure in words.
    pub fn describe(&self, figure: &Figure, span: Duration) -> String {
        let Figure {
            value,
            count,
            live,
            target,
        } = *figure;
        let percent = |share: f64| (share * 1000.0).round() / 10.0;
        let millis = |seconds: f64| (seconds * 1e5).round() / 100.0;
        let within = millrace_notation::units::show(span);
        match self.metric {
            Metric::ConnectFailures => {
                format!(
                    "{}% of {count} connects failed within {within}",
                    percent(value)
                )
            }
            Metric::Resets => {
                format!(
                    "the target reset {}% of {count} connections that ended within {within}",
                    percent(value)
                )
            }
            Metric::Unanswered => {
                let live = match live {
                    Some(live) => format!("{}% at the live server", percent(live)),
                    None => "nothing seen of the live server".to_owned(),
                };
                format!(
                    "{}% of {count} turns unanswered at the target, {live}, within {within}",
                    percent(target),
                )
            }
            Metric::Latency(_) => {
                let live = match live {
                    Some(live) => format!(
                        "live {} ms ({:.1} times as long)",
                        millis(live),
                        target / live.max(LEAST)
                    ),
                    None => "nothing seen of the live server".to_owned(),
                };
                let target = millis(target);
                format!("target {target} ms, {live} in {count} answers within {within}")
            }
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} from {}", self.value, self.count)
    }
}
