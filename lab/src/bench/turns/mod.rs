//! What each turn of a copied connection costs beyond the target's own time: clients that ask one request after the other,
//! as databases and caches on a local network are asked.

mod clients;
mod device;
mod recorded;

use std::time::{Duration, Instant};

use clap::Args;
use millrace_lab::fault::Fault;
use millrace_lab::{Result, Stage};

use super::channel::ChannelOptions;
use super::programs::{Copier, Work};
use super::{Served, Service};
use crate::demo::report::Report;
use crate::demo::say;
pub(super) use clients::{Asks, Clients};
use device::Device;

/// How long the target may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(120);
/// Connections, and microseconds that a client thinks between two turns.
const CASES: [(usize, u64); 5] = [(1, 1000), (1, 100), (1, 0), (4, 100), (64, 2000)];

/// How it runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds of load for each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Percent of the packets to the target that are lost
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    loss: f64,
    /// Percent of the target's responses that are lost on their way to the interceptor
    #[arg(long, default_value_t = 0.0, value_parser = percent)]
    response_loss: f64,
    /// Replay recordings of the same clients, once they have ended, in place of what is captured meanwhile
    #[arg(long)]
    recorded: bool,
    /// Ask redis for a key in place of nginx for a page
    #[arg(long)]
    redis: bool,
    /// Replay with the protocol module for what is asked and with --read-only, so that it reads each request
    #[arg(long)]
    protocol: bool,
    /// Have tcpdump watch the target's device, too: what it sees is the target's own time
    #[arg(long, conflicts_with_all = ["loss", "response_loss"])]
    at_target: bool,
    /// Connections, in place of the five cases
    #[arg(long, requires = "pause", value_parser = clap::value_parser!(u16).range(1..=1000))]
    connections: Option<u16>,
    /// Microseconds that a client thinks between two turns
    #[arg(long, requires = "connections", value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    pause: Option<u64>,
    #[command(flatten)]
    channel: ChannelOptions,
}

fn percent(text: &str) -> std::result::Result<f64, String> {
    match text.parse() {
        Ok(percent) if (0.0..=50.0).contains(&percent) => Ok(percent),
        Ok(_) | Err(_) => Err("a number from 0 to 50 is wanted".to_owned()),
    }
}

/// One case.
#[derive(Debug)]
pub(super) struct Run {
    clients: Clients,
    pub(super) turns: u64,
    /// From the first client's start to the last one's end.
    pub(super) seconds: f64,
    /// Share of the bytes that the target had when the clients ended; of a recording, after as long.
    pub(super) kept: f64,
    /// Seconds from the end of the clients to the end of their copies; of a recording, what its replay takes longer.
    behind: f64,
    work: Work,
    pub(super) report: Report,
    /// Median and 99th percentile of what the target's device saw, in microseconds.
    device: Option<[f64; 2]>,
}

/// Runs it and prints its table.
pub(super) fn run(options: &Options) -> Result<bool> {
    if options.redis {
        cases(options, Served::keys(options.channel)?, Asks::Key)
    } else {
        cases(options, Served::pages(options.channel)?, Asks::Page)
    }
}

fn cases<S>(options: &Options, mut served: Served<S>, asks: Asks) -> Result<bool> {
    if options.loss > 0.0 || options.response_loss > 0.0 {
        let [to, from] = [options.loss, options.response_loss].map(|loss| Fault {
            loss: loss / 100.0,
            ..Fault::none()
        });
        served.stage.target.link.set_faults(to, from, 1)?;
    }
    let (stage, service) = (&served.stage, &served.service);
    let module = format!("{}={}", service.live.port(), asks.module());
    let protocol: &[&str] = match options.protocol {
        true => &["--protocol", &module, "--read-only"],
        false => &[],
    };
    if options.protocol {
        say(&format!("the copier has {}", protocol.join(" ")));
    }
    let lasting = Duration::from_secs(options.seconds);
    let mut runs = Vec::new();
    let case = options.connections.zip(options.pause);
    let cases = case.map_or(CASES.to_vec(), |(connections, pause)| {
        vec![(usize::from(connections), pause)]
    });
    for (connections, pause) in cases {
        say(&format!(
            "{connections} connections, {pause} us between turns"
        ));
        let clients = Clients {
            asks,
            connections,
            pause,
            lasting,
        };
        let watch = || Device::watch(stage, service);
        let device = options.at_target.then(watch).transpose()?;
        let mut run = if options.recorded {
            recorded::run(stage, service, clients, protocol)?
        } else {
            live(stage, service, clients, protocol)?
        };
        run.device = device.map(Device::finish).transpose()?;
        runs.push(run);
    }
    say(&table(&runs));
    served.end()?;
    Ok(true)
}

/// Copies what is captured while the clients ask; the copier has these options, too.
pub(super) fn live(
    stage: &Stage,
    service: &Service,
    clients: Clients,
    more: &[&str],
) -> Result<Run> {
    let copier = Copier::start(stage, service, more)?;
    let started = Instant::now();
    let turns = clients.run(stage, service)?;
    let seconds = started.elapsed().as_secs_f64();
    let ended = Instant::now();
    let kept = copier.status()?;
    let kept = kept.delivered() as f64 / kept.captured().max(1) as f64;
    let (work, report) = copier.finish_within(CATCH_UP)?;
    Ok(Run {
        clients,
        turns,
        seconds,
        kept,
        behind: ended.elapsed().as_secs_f64(),
        work,
        report,
        device: None,
    })
}

fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "\n{:>5} {:>9} {:>9} {:>15} {:>15} {:>15} {:>8} {:>9} {:>13}\n{:>25}{}{:>33}\n{}\n",
        "conns",
        "pause us",
        "turns/s",
        "live us",
        "target us",
        "its device us",
        "kept",
        "behind s",
        "CPU us/turn",
        "",
        "     p50     p99".repeat(3),
        "copier",
        "-".repeat(100)
    );
    for run in runs {
        let latency = |side, percentile| {
            run.report
                .latency("first_byte", side, percentile)
                .unwrap_or_default()
        };
        let device = match run.device {
            Some([p50, p99]) => format!("{p50:>7.0} {p99:>7.0}"),
            None => format!("{:>7} {:>7}", "-", "-"),
        };
        text += &format!(
            "{:>5} {:>9} {:>9.0} {:>7.0} {:>7.0} {:>7.0} {:>7.0} {device} {:>8.3} {:>9.2} {:>13.1}\n",
            run.clients.connections,
            run.clients.pause,
            run.turns as f64 / run.seconds,
            latency("live", "p50"),
            latency("live", "p99"),
            latency("target", "p50"),
            latency("target", "p99"),
            run.kept,
            run.behind,
            run.work.process * 1e6 / run.turns.max(1) as f64,
        );
    }
    text
}
