//! What is said in the log without being asked: where copies go, what keeps them from going, and how things stand once a
//! minute.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::{Headline, Monitor, State, causes};
use crate::report::Report;

/// How often things are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The same trouble is not said again for so long.
const AGAIN: Duration = Duration::from_secs(300);
/// A cause must last for so many looks: what settles by itself is no news.
const LASTS: u32 = 3;

/// Looks at a live copier as long as it runs; `summary` is the time between two summaries, if they are wanted.
pub async fn follow(monitor: Monitor, summary: Option<Duration>) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut talk = Talk::new(summary, Instant::now());
    loop {
        looks.tick().await;
        let report = monitor.shared.report();
        super::lock(&monitor.window).sample(&report);
        let headline = monitor.headline(&report);
        let recent = monitor.recent(&report);
        for line in talk.lines(Instant::now(), &headline, &report) {
            match line {
                Line::Trouble(text) => tracing::warn!("{text}"),
                Line::News(text) => tracing::info!("{text}"),
                Line::Summary(text) => tracing::info!(
                    "{text} ({} delivered in the last {:.0} s)",
                    causes::delivered(&recent),
                    recent.seconds
                ),
            }
        }
    }
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Trouble(String),
    News(String),
    Summary(String),
}

/// What was said.
#[derive(Debug)]
struct Talk {
    summary: Option<Duration>,
    summary_at: Instant,
    /// Since how many looks nothing has been copied.
    stuck: u32,
    /// Why, as it was said last, and when that was.
    said: Option<(String, Instant)>,
    also_said: BTreeSet<String>,
    forget_at: Instant,
}

impl Talk {
    fn new(summary: Option<Duration>, now: Instant) -> Self {
        Self {
            summary,
            summary_at: now + summary.unwrap_or_default(),
            stuck: 0,
            said: None,
            also_said: BTreeSet::new(),
            forget_at: now + AGAIN,
        }
    }

    /// What is to be said now.
    fn lines(&mut self, now: Instant, headline: &Headline, report: &Report) -> Vec<Line> {
        let mut lines = Vec::new();
        if now >= self.forget_at {
            self.also_said.clear();
            self.forget_at = now + AGAIN;
        }
        match headline.state {
            State::NotCopying => {
                self.stuck += 1;
                lines.extend(self.trouble(now, headline));
            }
            State::Copying => {
                self.stuck = 0;
                if self.said.take().is_some() {
                    lines.push(Line::News(headline.sentence.clone()));
                }
            }
            State::Idle => self.stuck = 0,
        }
        for text in &headline.also {
            // Figures change, and are no news.
            let kind: String = text.chars().filter(|it| !it.is_ascii_digit()).collect();
            if self.also_said.insert(kind) {
                lines.push(Line::Trouble(text.clone()));
            }
        }
        if let Some(every) = self.summary.filter(|_| now >= self.summary_at) {
            self.summary_at = now + every;
            if report.duration_seconds > 0.0 {
                lines.push(Line::Summary(headline.sentence.clone()));
            }
        }
        lines
    }

    /// Says why nothing is copied: when that is new, and again after a while.
    fn trouble(&mut self, now: Instant, headline: &Headline) -> Option<Line> {
        let kind: String = (headline.sentence.chars())
            .filter(|it| !it.is_ascii_digit())
            .collect();
        let known = self.said.as_ref();
        let old = known.is_some_and(|(said, at)| *said == kind && now < *at + AGAIN);
        if old || self.stuck < LASTS {
            return None;
        }
        self.said = Some((kind, now));
        let next = headline.next.as_ref();
        let next = next.map_or(String::new(), |next| format!(". Next: {next}"));
        Some(Line::Trouble(format!("{}{next}", headline.sentence)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headline(state: State, sentence: &str) -> Headline {
        Headline {
            state,
            sentence: sentence.to_owned(),
            next: Some("do this".to_owned()),
            also: Vec::new(),
        }
    }

    #[test]
    fn a_cause_that_lasts_is_said_once_and_its_end_too() {
        let now = Instant::now();
        let mut talk = Talk::new(None, now);
        let report = Report::default();
        let stuck =
            |seconds: u32| headline(State::NotCopying, &format!("no packet in {seconds} s"));
        let mut lines = Vec::new();
        for second in 0..200 {
            lines.extend(talk.lines(now, &stuck(second), &report));
        }
        let line = Line::Trouble("no packet in 2 s. Next: do this".to_owned());
        assert_eq!(lines, [line]);
        assert_eq!(talk.lines(now + AGAIN, &stuck(300), &report).len(), 1);
        let copying = headline(State::Copying, "copying");
        let line = Line::News("copying".to_owned());
        assert_eq!(talk.lines(now, &copying, &report), [line]);
        assert_eq!(talk.lines(now, &copying, &report), []);
    }

    #[test]
    fn a_summary_comes_once_in_its_time_and_what_goes_wrong_besides_once_in_five_minutes() {
        let now = Instant::now();
        let mut talk = Talk::new(Some(Duration::from_secs(60)), now);
        let report = Report {
            duration_seconds: 1.0,
            ..Report::default()
        };
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut all = Vec::new();
        for second in 0..=300 {
            let mut headline = headline(State::Copying, "copying");
            headline.also = vec![format!("{second} timeouts")];
            all.extend(talk.lines(at(second), &headline, &report));
        }
        let summaries = all.iter().filter(|line| matches!(line, Line::Summary(_)));
        assert_eq!(summaries.count(), 5);
        let troubles = all.iter().filter(|line| matches!(line, Line::Trouble(_)));
        assert_eq!(troubles.count(), 2);
    }
}
