//! How far a replay is: a bar with the time left on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use millrace_engine::Engine;

/// How often the bar is drawn.
const BAR_INTERVAL: Duration = Duration::from_millis(200);
/// How often there is a line where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Characters of the bar itself.
const BAR_WIDTH: usize = 24;

/// Shows how far a replay is, on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    rounds: u32,
    begun: Instant,
    next: Instant,
    terminal: bool,
    drawn: bool,
}

impl Progress {
    /// For files that are read so often.
    pub(crate) fn new(rounds: u32) -> Self {
        let now = Instant::now();
        Self {
            rounds,
            begun: now,
            next: now,
            terminal: std::io::stderr().is_terminal(),
            drawn: false,
        }
    }

    /// Shows the state, if it is time: which part of this round was handed over, if that is known,
    /// and whether all of all rounds was.
    pub(crate) fn show(
        &mut self,
        rounds_done: u32,
        within: Option<f64>,
        over: bool,
        engine: &Engine,
    ) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let first = self.next == self.begun;
        self.next = now
            + if self.terminal {
                BAR_INTERVAL
            } else {
                LINE_INTERVAL
            };
        if first && !self.terminal {
            return;
        }
        let elapsed = now.saturating_duration_since(self.begun);
        let part = match over {
            true => Some(1.0),
            false => within.map(|within| self.part(rounds_done, within)),
        };
        let stats = engine.stats();
        let counts = format!(
            "{} sessions, {} completed, {} aborted, {:.1} MB delivered",
            stats.sessions_captured,
            stats.replicas_completed,
            stats.replicas_aborted.total(),
            stats.bytes_delivered as f64 / 1e6
        );
        let text = state(part, elapsed);
        if self.terminal {
            let bar = part.map(bar).unwrap_or_default();
            self.drawn = true;
            // Whoever has closed stderr does not want to see it.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{bar}{text}: {counts}");
        } else {
            tracing::info!("{text}: {counts}");
        }
    }

    /// Leaves the terminal's line.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.drawn) {
            let _ = writeln!(std::io::stderr());
        }
    }

    /// Which part of all rounds was handed over. What was only read ahead does not count: the next
    /// packet may be due in an hour.
    fn part(&self, rounds_done: u32, within: f64) -> f64 {
        let part = (f64::from(rounds_done) + within) / f64::from(self.rounds.max(1));
        part.min(0.999)
    }
}

fn bar(part: f64) -> String {
    // Between 0 and the width.
    let full = ((part * BAR_WIDTH as f64) as usize).min(BAR_WIDTH);
    format!("[{}{}] ", "#".repeat(full), " ".repeat(BAR_WIDTH - full))
}

fn state(part: Option<f64>, elapsed: Duration) -> String {
    match part {
        None => format!("replaying for {}", clock(elapsed)),
        Some(part) if part >= 1.0 => {
            format!("all read after {}, sessions finish", clock(elapsed))
        }
        Some(part) if part > 0.001 => {
            let left = elapsed.mul_f64((1.0 - part) / part);
            format!(
                "{:.0}% after {}, {} left",
                part * 100.0,
                clock(elapsed),
                clock(left)
            )
        }
        Some(part) => format!("{:.0}% after {}", part * 100.0, clock(elapsed)),
    }
}

fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_in_the_file_is_not_done_and_rounds_count() {
        let mut progress = Progress::new(4);
        assert!((progress.part(0, 0.5) - 0.125).abs() < 1e-9);
        assert!((progress.part(3, 0.2) - 0.8).abs() < 1e-9);
        progress.rounds = 1;
        let text = state(Some(progress.part(0, 1.0)), Duration::from_secs(60));
        assert!(text.starts_with("100% after 1:00"), "{text}");
    }

    #[test]
    fn the_time_left_follows_from_the_part_that_is_done() {
        let elapsed = Duration::from_secs(60);
        assert_eq!(state(Some(0.25), elapsed), "25% after 1:00, 3:00 left");
        assert_eq!(state(None, elapsed), "replaying for 1:00");
        assert!(state(Some(1.0), elapsed).starts_with("all read"));
        assert_eq!(clock(Duration::from_secs(3661)), "1:01:01");
        assert_eq!(bar(0.5).matches('#').count(), BAR_WIDTH / 2);
        assert_eq!(bar(2.0).matches('#').count(), BAR_WIDTH);
    }
}
