//! What is said in the log without being asked: what keeps a copier from copying, where nobody else says it, and how
//! things stand once a minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::{Cause, Headline, Monitor, State};

/// How often things are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// What goes wrong beside others that go on is not said again for so long.
const AGAIN: Duration = Duration::from_secs(600);
/// What is said has lasted for so many looks: what settles by itself is no news.
const LASTS: u32 = 3;

/// Looks at a live copier as long as it runs; `summary` is the time between two summaries, if they are wanted.
pub async fn follow(monitor: Monitor, summary: Option<Duration>) {
    let mut looks = interval(EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut talk = Talk::new(summary, Instant::now());
    loop {
        looks.tick().await;
        let report = monitor.shared.report();
        monitor.window.lock().sample(&report);
        for line in talk.lines(Instant::now(), &monitor.headline(&report)) {
            match line {
                Line::Trouble(text) => tracing::warn!("{text}"),
                Line::News(text) => tracing::info!("{text}"),
            }
        }
    }
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Trouble(String),
    News(String),
}

/// What was said.
#[derive(Debug)]
struct Talk {
    summary: Option<Duration>,
    summary_at: Instant,
    /// The cause that was found last, and in how many looks in a row.
    cause: Option<Cause>,
    lasts: u32,
    /// The cause that was said and has not ended.
    said: Option<Cause>,
    /// What was said beside it, and when.
    also: BTreeMap<String, Instant>,
}

impl Talk {
    fn new(summary: Option<Duration>, now: Instant) -> Self {
        Self {
            summary,
            summary_at: now + summary.unwrap_or_default(),
            cause: None,
            lasts: 0,
            said: None,
            also: BTreeMap::new(),
        }
    }

    /// What is to be said now.
    fn lines(&mut self, now: Instant, headline: &Headline) -> Vec<Line> {
        let mut lines = Vec::new();
        self.lasts = match headline.cause == self.cause {
            true => self.lasts.saturating_add(1),
            false => 1,
        };
        self.cause = headline.cause;
        if self.lasts >= LASTS && self.said != self.cause {
            lines.extend(self.change(headline));
        }
        self.also.retain(|_, at| now < *at + AGAIN);
        for remark in headline.also.iter().filter(|remark| remark.is_news) {
            let about = self.also.entry(remark.about.clone());
            if let std::collections::btree_map::Entry::Vacant(place) = about {
                place.insert(now);
                lines.push(Line::Trouble(remark.text.clone()));
            }
        }
        if let Some(every) = self.summary.filter(|_| now >= self.summary_at) {
            self.summary_at = now + every;
            lines.push(Line::News(headline.sentence.clone()));
        }
        lines
    }

    /// A cause that is new and lasts, or the end of one that was said.
    fn change(&mut self, headline: &Headline) -> Option<Line> {
        match headline.cause.filter(|cause| cause.is_news()) {
            Some(cause) => {
                self.said = Some(cause);
                let next = headline.next.as_ref();
                let next = next.map_or(String::new(), |next| format!(". Next: {next}"));
                Some(Line::Trouble(format!("{}{next}", headline.sentence)))
            }
            None => {
                // Another cause may follow, which others tell of.
                let over = headline.state != State::NotCopying && self.said.take().is_some();
                over.then(|| Line::News(headline.sentence.clone()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headline::Remark;

    fn headline(cause: Option<Cause>, sentence: &str) -> Headline {
        Headline {
            state: match cause {
                Some(_) => State::NotCopying,
                None => State::Copying,
            },
            cause,
            sentence: sentence.to_owned(),
            next: Some("do this".to_owned()),
            also: Vec::new(),
        }
    }

    fn trouble(text: &str) -> Line {
        Line::Trouble(format!("{text}. Next: do this"))
    }

    #[test]
    fn a_cause_that_lasts_is_said_once_and_its_end_too() {
        let now = Instant::now();
        let mut talk = Talk::new(None, now);
        let stuck =
            |second: u32| headline(Some(Cause::Silence), &format!("no packet in {second} s"));
        let mut lines = Vec::new();
        for second in 0..2000 {
            lines.extend(talk.lines(now, &stuck(second)));
        }
        assert_eq!(lines, [trouble("no packet in 2 s")]);
        let copying = headline(None, "copying");
        let lines: Vec<Line> = (0..9).flat_map(|_| talk.lines(now, &copying)).collect();
        assert_eq!(lines, [Line::News("copying".to_owned())]);
    }

    #[test]
    fn what_comes_and_goes_is_said_once_it_stays() {
        let now = Instant::now();
        let mut talk = Talk::new(None, now);
        let (stuck, copying) = (
            headline(Some(Cause::Stalled), "stuck"),
            headline(None, "copying"),
        );
        for _ in 0..100 {
            assert_eq!(talk.lines(now, &stuck), []);
            assert_eq!(talk.lines(now, &copying), []);
        }
        // Whoever finds them says these.
        let told = headline(Some(Cause::Interceptors), "no interceptor");
        for _ in 0..9 {
            assert_eq!(talk.lines(now, &told), []);
        }
        let lines: Vec<Line> = (0..9).flat_map(|_| talk.lines(now, &stuck)).collect();
        assert_eq!(lines, [trouble("stuck")]);
    }

    #[test]
    fn a_summary_comes_in_its_time_and_each_remark_once_in_a_while() {
        let now = Instant::now();
        let mut talk = Talk::new(Some(Duration::from_secs(60)), now);
        let at = |seconds| now + Duration::from_secs(seconds);
        let mut all = Vec::new();
        for second in 0..=600 {
            let mut headline = headline(None, "copying");
            headline.also = ["timeout", "tls"]
                .map(|about| Remark {
                    about: about.to_owned(),
                    text: format!("{second} {about}"),
                    is_news: true,
                })
                .to_vec();
            all.extend(talk.lines(at(second), &headline));
        }
        let summaries = all.iter().filter(|line| matches!(line, Line::News(_)));
        assert_eq!(summaries.count(), 10);
        let troubles = all.iter().filter(|line| matches!(line, Line::Trouble(_)));
        assert_eq!(troubles.count(), 4);
    }
}
