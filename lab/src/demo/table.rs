//! The table at the end.

use std::fmt::Write as _;

use millrace_lab::records::RecordedStreams;

use super::report::Report;
use super::traffic::Seen;

/// Redis commands, and how often each was called.
type Calls = Vec<(String, u64)>;

/// All that the demo has found out; pairs are live and target.
pub(super) struct Outcome {
    pub(super) report: Report,
    pub(super) traffic: Seen,
    pub(super) nginx: (u64, u64),
    pub(super) redis: (Calls, Calls),
    pub(super) recorded: (RecordedStreams, RecordedStreams),
}

impl Outcome {
    /// Whether all bytes were delivered, the recorded streams are equal, and no client saw an error.
    pub(super) fn good(&self) -> bool {
        self.report
            .fidelity()
            .is_some_and(|fidelity| fidelity >= 1.0)
            && self.streams_equal()
            && self.errors() == 0
    }

    fn streams_equal(&self) -> bool {
        self.recorded.0.compare(&self.recorded.1).is_none()
    }

    fn errors(&self) -> u64 {
        self.traffic
            .loads
            .iter()
            .map(|(_, summary)| summary.errors)
            .sum()
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        self.clients(&mut text);
        self.servers(&mut text);
        self.latency(&mut text);
        self.copy(&mut text);
        let verdict = if self.good() {
            "The target received exactly what the live server received."
        } else {
            "NOT everything is as it should be: see above."
        };
        line(&mut text, verdict);
        text
    }

    fn clients(&self, text: &mut String) {
        heading(text, "What live clients did", ["requests", "errors"]);
        for (name, requests) in &self.traffic.tools {
            row(text, name, [&number(*requests), "0"]);
        }
        let mut names: Vec<&str> = self.traffic.loads.iter().map(|(name, _)| *name).collect();
        names.dedup();
        names.truncate(self.traffic.loads.len() / 2);
        for name in names {
            let same = || {
                self.traffic
                    .loads
                    .iter()
                    .filter(|(other, _)| *other == name)
            };
            let requests: u64 = same().map(|(_, summary)| summary.requests).sum();
            let errors: u64 = same().map(|(_, summary)| summary.errors).sum();
            row(
                text,
                &format!("{name} (IPv4, IPv6)"),
                [&number(requests), &number(errors)],
            );
        }
        for (name, summary) in &self.traffic.loads {
            for example in &summary.examples {
                line(text, &format!("    {name}: {example}"));
            }
        }
    }

    fn servers(&self, text: &mut String) {
        heading(text, "What servers received", ["live", "target"]);
        let mut both =
            |name: &str, live: u64, target: u64| row(text, name, [&number(live), &number(target)]);
        both("nginx requests", self.nginx.0, self.nginx.1);
        for (command, live) in &self.redis.0 {
            let target = self
                .redis
                .1
                .iter()
                .find(|(name, _)| name == command)
                .map_or(0, |(_, calls)| *calls);
            both(&format!("redis {command}"), *live, target);
        }
        let (live, target) = &self.recorded;
        both(
            "recorded connections",
            live.len() as u64,
            target.len() as u64,
        );
        both("recorded requests", live.requests(), target.requests());
        both("recorded bytes", live.bytes(), target.bytes());
        let difference = live.compare(target);
        let streams = if difference.is_none() {
            "equal, byte for byte".to_owned()
        } else {
            difference.to_string()
        };
        line(text, &format!("  recorded streams: {streams}"));
    }

    fn latency(&self, text: &mut String) {
        heading(text, "Latency of responses, in µs", ["live", "target"]);
        for (byte, name) in [("first_byte", "first byte"), ("last_byte", "last byte")] {
            for percentile in ["p50", "p90", "p99"] {
                let side = |side| {
                    let value = self.report.latency(byte, side, percentile);
                    value.map_or_else(|| "-".to_owned(), |value| number(value.round() as u64))
                };
                row(
                    text,
                    &format!("{name} {percentile}"),
                    [&side("live"), &side("target")],
                );
            }
        }
    }

    fn copy(&self, text: &mut String) {
        let count = |pointer| {
            self.report
                .number(pointer)
                .map_or_else(|| "-".to_owned(), number)
        };
        heading(text, "The copy", ["", ""]);
        row(
            text,
            "sessions captured",
            ["", &count("/sessions/captured")],
        );
        row(text, "replicas opened", ["", &count("/replicas/opened")]);
        row(
            text,
            "replicas completed",
            ["", &count("/replicas/completed")],
        );
        for (reason, aborted) in self.report.counts("/replicas/aborted") {
            row(
                text,
                &format!("replicas aborted: {reason}"),
                ["", &number(aborted)],
            );
        }
        for (reason, refused) in self.report.counts("/sessions/refused") {
            row(
                text,
                &format!("sessions refused: {reason}"),
                ["", &number(refused)],
            );
        }
        // What a crowded machine may show.
        for (name, pointer) in [
            ("sessions set aside", "/sessions/set_aside"),
            ("sessions taken up again", "/sessions/resumed"),
            ("frames dropped by capture", "/capture/dropped"),
            ("bytes missing", "/bytes/missing"),
        ] {
            let value = self.report.number(pointer).filter(|value| *value > 0);
            if let Some(value) = value {
                row(text, name, ["", &number(value)]);
            }
        }
        row(text, "bytes captured", ["", &count("/bytes/captured")]);
        row(text, "bytes delivered", ["", &count("/bytes/delivered")]);
        let fidelity = self
            .report
            .fidelity()
            .map_or_else(|| "-".to_owned(), |share| format!("{share:.6}"));
        row(text, "fidelity", ["", &fidelity]);
        line(text, "");
    }
}

fn heading(text: &mut String, name: &str, columns: [&str; 2]) {
    line(text, "");
    let [first, second] = columns;
    line(text, &format!("{name:<44} {first:>14} {second:>14}"));
    line(text, &"-".repeat(74));
}

fn row(text: &mut String, name: &str, columns: [&str; 2]) {
    let [first, second] = columns;
    line(text, &format!("  {name:<42} {first:>14} {second:>14}"));
}

fn line(text: &mut String, content: &str) {
    // Writing to memory cannot fail.
    let _ = writeln!(text, "{}", content.trim_end());
}

/// With a comma after each three digits.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In the unit that a person would choose.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, f64); 3] = [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)];
    let value = bytes as f64;
    match UNITS.iter().find(|(_, size)| value >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", value / size),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1,234,567");
        assert_eq!(bytes(512), "512 B");
        assert_eq!(bytes(12_340_000), "12.3 MB");
    }
}
