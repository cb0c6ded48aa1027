//! What clients of the live server feel: the same load at full speed without a copier, with one, and with one whose
//! processor time is bounded.

use std::time::Duration;

use clap::Args;
use millrace_lab::{Error, Result, Stage};

use super::channel::ChannelOptions;
use super::programs::{self, Copier};
use super::{Served, Service, median};
use crate::demo::report::Report;
use crate::demo::say;

/// The bound of the third case: percent of one processor.
const MAX_CPU: &str = "30";

/// How it runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often the cases take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
    /// Seconds of load for each of them in a round; a bounded copier needs some to find its share
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    #[command(flatten)]
    channel: ChannelOptions,
}

/// With what the clients share the live server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    Alone,
    Copier,
    Bounded,
}

const CASES: [(Case, &str); 3] = [
    (Case::Alone, "no copier"),
    (Case::Copier, "a copier"),
    (Case::Bounded, "a copier, --max-cpu 30"),
];

/// What clients saw in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Felt {
    requests_per_second: f64,
    /// Milliseconds.
    p50: f64,
    /// Milliseconds.
    p99: f64,
}

/// One run.
#[derive(Debug)]
struct Run {
    felt: Felt,
    report: Option<Report>,
}

/// Runs it and prints its table.
pub(super) fn run(options: &Options) -> Result<bool> {
    let pages = Served::pages(options.channel)?;
    let (stage, service) = (&pages.stage, &pages.service);
    let lasting = Duration::from_secs(options.seconds);
    let mut runs: Vec<Vec<Run>> = CASES.map(|_| Vec::new()).into();
    for round in 0..options.rounds {
        say(&format!("round {} of {}", round + 1, options.rounds));
        // Who is first changes from round to round.
        for turn in 0..CASES.len() {
            let index = (turn + round as usize) % CASES.len();
            if let (Some((case, _)), Some(runs)) = (CASES.get(index), runs.get_mut(index)) {
                runs.push(one(stage, service, *case, lasting)?);
            }
        }
    }
    say(&table(&runs));
    pages.end()?;
    Ok(true)
}

fn one(stage: &Stage, service: &Service, case: Case, lasting: Duration) -> Result<Run> {
    let copier = match case {
        Case::Alone => None,
        Case::Copier => Some(Copier::start(stage, service, &[])?),
        Case::Bounded => Some(Copier::start(stage, service, &["--max-cpu", MAX_CPU])?),
    };
    let (text, _) = programs::wrk(stage, service, lasting)?;
    let felt = felt(&text).ok_or_else(|| Error::Malformed {
        what: "the output of wrk".to_owned(),
        detail: text,
    })?;
    let report = copier.map(Copier::end).transpose()?;
    Ok(Run { felt, report })
}

/// What wrk prints with `--latency`.
fn felt(text: &str) -> Option<Felt> {
    let after = |word: &str| {
        let mut lines = text.lines().map(str::split_whitespace);
        lines.find_map(|mut words| (words.next()? == word).then(|| words.next()).flatten())
    };
    Some(Felt {
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(after("50%")?)?,
        p99: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let mut found = units
        .iter()
        .filter_map(|(unit, scale)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale));
    found.next()
}

fn table(runs: &[Vec<Run>]) -> String {
    let mut text = format!(
        "\n{:<26} {:>11} {:>7} {:>9} {:>9} {:>8} {:>9}\n{}\n",
        "What live clients feel",
        "requests/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "copied",
        "fidelity",
        "-".repeat(84)
    );
    let of = |index: usize, of: fn(&Run) -> f64| {
        median(
            runs.get(index)
                .map_or_else(Vec::new, |runs| runs.iter().map(of).collect()),
        )
    };
    let rate = |run: &Run| run.felt.requests_per_second;
    let alone = of(0, rate);
    for (index, (case, name)) in CASES.iter().enumerate() {
        let copied = match case {
            Case::Alone => String::new(),
            Case::Copier | Case::Bounded => format!(
                "{:>7.0}% {:>9.6}",
                100.0 * of(index, |run| run.report.as_ref().map_or(0.0, copied)),
                of(index, |run| run.report.as_ref().map_or(0.0, fidelity)),
            ),
        };
        text += &format!(
            "  {name:<24} {:>11.0} {:>7.2} {:>9.2} {:>9.2} {copied}\n",
            of(index, rate),
            of(index, rate) / alone.max(1.0),
            of(index, |run| run.felt.p50),
            of(index, |run| run.felt.p99),
        );
    }
    text + "\nMedians of the rounds. Copied: the share of the clients' bytes that the target got; the rest was left out, whole\n\
            sessions at a time. Fidelity: of the sessions that were taken.\n"
}

/// The share of what clients sent that arrived at the target.
fn copied(report: &Report) -> f64 {
    let number = |pointer| report.number(pointer).unwrap_or_default() as f64;
    let left_out = ["/bytes/refused", "/bytes/set_aside", "/bytes/missing"].map(number);
    let all = number("/bytes/captured") + left_out.iter().sum::<f64>();
    number("/bytes/delivered") / all.max(1.0)
}

fn fidelity(report: &Report) -> f64 {
    report.fidelity().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wrk_prints_is_read() {
        let text = "  Latency Distribution\n     50%  636.00us\n     75%    1.10ms\n     90%    1.50ms\n     99%    4.42ms\n\
                    Requests/sec:  41234.50\nTransfer/sec:     33.41MB\n";
        let felt = felt(text).unwrap();
        assert!((felt.requests_per_second - 41234.5).abs() < 1e-6);
        assert!((felt.p50 - 0.636).abs() < 1e-9 && (felt.p99 - 4.42).abs() < 1e-9);
        assert!((milliseconds("1.2s").unwrap() - 1200.0).abs() < 1e-9);
        assert!(super::felt("wrk: unable to connect").is_none());
    }
}
