//! A rule's figure, from what happened lately.

use std::fmt;
use std::time::Duration;

use super::{Guard, Limit, Metric, Recent};

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
    /// The figure that this rule looks at; `None` when there was nothing to look at.
    pub fn figure(&self, recent: &Recent) -> Option<Figure> {
        let (due_live, due_target) = recent.due_turns;
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
                let open = |asked: u64, answered: u64| {
                    let left = asked.saturating_sub(answered);
                    if asked == 0 { 0.0 } else { share(left, asked) }
                };
                let count = due_target;
                let target = open(count, recent.target_turns.1);
                let live = open(due_live, recent.live_turns.1);
                let value = (target - live).max(0.0);
                (count > 0).then_some(Figure {
                    value,
                    count,
                    live: Some(live),
                    target,
                })
            }
            Metric::Latency(quantile) => {
                let count = recent.target_latency.len();
                let seconds = |micros: u64| micros as f64 / 1e6;
                let target = seconds(recent.target_latency.value_at_quantile(quantile));
                let live = seconds(recent.live_latency.value_at_quantile(quantile));
                let value = match self.limit {
                    Limit::Time(_) => target,
                    // The live server's clock may show nothing at all: a microsecond at least.
                    Limit::Times(_) | Limit::Share(_) => target / live.max(1e-6),
                };
                let comparable =
                    matches!(self.limit, Limit::Time(_)) || !recent.live_latency.is_empty();
                (count > 0 && comparable).then_some(Figure {
                    value,
                    count,
                    live: Some(live),
                    target,
                })
            }
        }
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
        let within = crate::units::show(span);
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
            Metric::Unanswered => format!(
                "{}% of {count} turns unanswered at the target, {}% at the live server, within {within}",
                percent(target),
                percent(live.unwrap_or_default())
            ),
            Metric::Latency(_) => {
                let live = live.unwrap_or_default();
                format!(
                    "target {} ms, live {} ms ({:.1} times as long) in {count} answers within {within}",
                    millis(target),
                    millis(live),
                    target / live.max(1e-6)
                )
            }
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} from {}", self.value, self.count)
    }
}
