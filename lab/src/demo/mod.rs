//! The demo: a stage with real servers, live traffic of several kinds, its copy, and a table that tells what
//! arrived.

mod daemons;
pub(crate) mod report;
pub(crate) mod table;
pub(crate) mod traffic;

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;
use millrace_lab::apps::{Nginx, Redis};
use millrace_lab::recorder::{Recorder, RecorderConfig};
use millrace_lab::{Error, Place, Result, Stage, StageOptions};

pub(crate) use daemons::{admin, end, ready, ready_at};

use daemons::Daemons;
use report::Report;
use table::Outcome;
use traffic::Traffic;

/// Ports of the services, the same on the live server and on the target.
pub(crate) const NGINX: u16 = 80;
pub(crate) const REDIS: u16 = 6379;
pub(crate) const HTTP: u16 = 8080;
pub(crate) const HTTP_TOO: u16 = 8081;
pub(crate) const RESP: u16 = 6380;
pub(crate) const GREETING: u16 = 2525;

/// How the demo runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long live traffic flows
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..=600))]
    seconds: u64,
    /// Leave everything running afterwards, say how to look into it, and wait for Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// The same servers on the live server and on the target.
struct Servers {
    nginx: Nginx,
    redis: Redis,
    recorder: Recorder,
}

impl Servers {
    fn start(place: &Place) -> Result<Self> {
        let config = RecorderConfig {
            http: vec![HTTP, HTTP_TOO],
            resp: vec![RESP],
            greeting: vec![GREETING],
            ..RecorderConfig::default()
        };
        Ok(Self {
            nginx: Nginx::start(&place.host, NGINX)?,
            redis: Redis::start(&place.host, REDIS)?,
            recorder: Recorder::start(&place.host, &config)?,
        })
    }
}

/// Runs it; whether everything that the live server received reached the target, and no client saw an error.
pub(crate) fn run(options: &Options) -> Result<bool> {
    millrace_lab::enter()?;
    daemons::check_built()?;
    say("building the lab: clients, router, live server, target, assistant");
    let stage = Stage::new(StageOptions {
        clients: 2,
        addresses_per_client: 8,
        live_servers: 1,
    })?;
    let live = stage.live()?;
    say("starting nginx, redis and a recording server, each on the live server and on the target");
    let on_live = Servers::start(live)?;
    let on_target = Servers::start(&stage.target)?;
    say("starting the interceptor on the assistant and the copier on the live server");
    let mut daemons = Daemons::start(&stage)?;
    if options.keep {
        how_to_look(&stage);
    }

    say(&format!("live traffic for {} s", options.seconds));
    let lasting = Duration::from_secs(options.seconds);
    let traffic = Traffic::start(&stage, lasting)?;
    follow(&mut daemons, &traffic, lasting)?;
    let traffic = traffic.finish()?;
    say("traffic has ended; the copier finishes what it has begun");
    let report = if options.keep {
        daemons.settle()?
    } else {
        daemons.drain()?
    };

    let outcome = Outcome {
        report,
        traffic,
        nginx: (on_live.nginx.requests()?, on_target.nginx.requests()?),
        redis: (on_live.redis.commands()?, on_target.redis.commands()?),
        recorded: if options.keep {
            (on_live.recorder.records()?, on_target.recorder.records()?)
        } else {
            (on_live.recorder.stop()?, on_target.recorder.stop()?)
        },
    };
    say(&outcome.table());
    if options.keep {
        how_to_look(&stage);
        say("all is left running: Ctrl-C ends it");
        loop {
            // The lab cleans up when the signal comes.
            std::thread::park();
        }
    }
    Ok(outcome.good())
}

/// A line each second, until the time is up and the clients are done.
fn follow(daemons: &mut Daemons, traffic: &Traffic, lasting: Duration) -> Result<()> {
    let start = Instant::now();
    // Clients finish what they have begun; those that hang are counted as errors by then.
    let limit = lasting + Duration::from_secs(90);
    while !traffic.is_done() && start.elapsed() < limit {
        std::thread::sleep(Duration::from_secs(1));
        progress(start.elapsed(), &daemons.status()?);
    }
    if std::io::stdout().is_terminal() {
        say("");
    }
    Ok(())
}

fn progress(elapsed: Duration, report: &Report) {
    let line = format!(
        "{:>4} s  sessions {:>7}  captured {:>12}  delivered {:>12}",
        elapsed.as_secs(),
        table::number(report.sessions()),
        table::bytes(report.captured()),
        table::bytes(report.delivered()),
    );
    let mut out = std::io::stdout();
    // Whoever closed standard output does not want to read it.
    let _ = if out.is_terminal() {
        write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
    } else {
        writeln!(out, "{line}")
    };
}

fn how_to_look(stage: &Stage) {
    for host in stage.hosts() {
        say(&format!("  {:<10} {}", host.name(), host.nsenter()));
    }
    say(&format!("  logs       {}", stage.lab.directory().display()));
}

pub(crate) fn say(text: &str) {
    // As above.
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The error for a daemon that is not there any more, with the end of its log.
pub(crate) fn ended(what: &str, log: &str) -> Error {
    let lines: Vec<&str> = log.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(10)..)
        .unwrap_or_default()
        .join("\n  ");
    Error::Unsupported(format!("{what} has ended; its last words:\n  {tail}"))
}
