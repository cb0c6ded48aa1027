//! How latency and lag of copied turns grow with load. Clients wait for each answer before they think of the next request, so
//! a load that a machine does not carry shows in its rate.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millrace_lab::plot::{Line, chart};
use millrace_lab::{Error, Result};

use super::Served;
use super::channel::ChannelOptions;
use super::turns::{self, Asks, Clients, Run};
use crate::demo::say;

/// Connections that stay open; each asks one request after the other.
const CONNECTIONS: usize = 32;
/// The first load, in turns a second; each further one is half as much more.
const FIRST: f64 = 500.0;
/// Where clients come to less than this share of a load, it ends.
const CARRIED: f64 = 0.7;
const MOST_STEPS: usize = 16;

/// How it runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds of each load
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Draw it into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    channel: ChannelOptions,
}

/// Runs it and prints its table.
pub(super) fn run(options: &Options) -> Result<bool> {
    let pages = Served::pages(options.channel)?;
    let (stage, service) = (&pages.stage, &pages.service);
    let mut runs: Vec<Run> = Vec::new();
    let mut load = FIRST;
    for _ in 0..MOST_STEPS {
        say(&format!("{load:.0} turns a second"));
        let clients = Clients {
            asks: Asks::Page,
            connections: CONNECTIONS,
            pause: (CONNECTIONS as f64 * 1e6 / load) as u64,
            lasting: Duration::from_secs(options.seconds),
        };
        let done = match turns::live(stage, service, clients, &[]) {
            Ok(done) => done,
            // Beyond what the machine carries capture loses packets.
            Err(error) => {
                say(&format!("no figures of this load: {error}"));
                break;
            }
        };
        let carried = rate(&done) >= CARRIED * load;
        runs.push(done);
        if !carried {
            break;
        }
        load *= 1.5;
    }
    say(&table(&runs));
    if let Some(file) = &options.svg {
        std::fs::write(file, drawn(&runs)).map_err(|source| Error::Io {
            what: format!("writing {}", file.display()),
            source,
        })?;
    }
    pages.end()?;
    Ok(true)
}

/// Turns a second.
fn rate(run: &Run) -> f64 {
    run.turns as f64 / run.seconds.max(0.001)
}

fn latency(run: &Run, side: &str, percentile: &str) -> f64 {
    let latency = run.report.latency("first_byte", side, percentile);
    latency.unwrap_or_default()
}

/// The target's latency of this percentile less the live server's, in microseconds.
fn added(run: &Run, percentile: &str) -> f64 {
    (latency(run, "target", percentile) - latency(run, "live", percentile)).max(0.0)
}

/// The copies' lag of this percentile, in microseconds.
fn lag(run: &Run, percentile: &str) -> f64 {
    run.report.lag(percentile).unwrap_or_default()
}

fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "\n{:>8} {:>15} {:>15} {:>15} {:>15} {:>7}\n{:>8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7}\n{}\n",
        "turns/s",
        "live us",
        "target us",
        "longer us",
        "lag us",
        "kept",
        "",
        "p50",
        "p99",
        "p50",
        "p99",
        "p50",
        "p99",
        "p50",
        "p99",
        "",
        "-".repeat(80)
    );
    for run in runs {
        let pairs = ["p50", "p99"].map(|percentile| {
            let sides = ["live", "target"].map(|side| latency(run, side, percentile));
            let [live, target] = sides;
            [live, target, added(run, percentile), lag(run, percentile)]
        });
        let [p50, p99] = pairs;
        text += &format!("{:>8.0}", rate(run));
        for (p50, p99) in p50.iter().zip(p99) {
            text += &format!(" {p50:>7.0} {p99:>7.0}");
        }
        text += &format!(" {:>7.3}\n", run.kept);
    }
    let most = runs.iter().map(rate).fold(0.0, f64::max);
    if let Some(half) = runs.iter().rfind(|run| rate(run) <= most / 2.0) {
        text += &format!(
            "\n  at {:.0} of the {most:.0} turns/s that were reached, a turn in a hundred is later than {:.1} ms\n",
            rate(half),
            lag(half, "p99") / 1000.0
        );
    }
    text
}

fn drawn(runs: &[Run]) -> String {
    let line = |name, colour, y: &dyn Fn(&Run) -> f64| Line {
        name,
        colour,
        points: runs
            .iter()
            .map(|run| (rate(run) / 1000.0, y(run) / 1000.0))
            .collect(),
    };
    chart(
        "What the target's answers take longer than the live server's, and how late turns are sent",
        "thousand turns a second; clients, live server, copier, interceptor and target on two cores",
        "ms",
        &[
            line("longer, median", "#2060c0", &|run| added(run, "p50")),
            line("longer, 99th percentile", "#c04020", &|run| {
                added(run, "p99")
            }),
            line("lag, 99th percentile", "#208040", &|run| lag(run, "p99")),
        ],
    )
}
