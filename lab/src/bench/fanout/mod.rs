//! What one more interceptor costs a copier: sessions of one request to a cluster behind a director, with 1, 10 and 50
//! interceptors, announced flow by flow and claimed as a pool.

mod farm;
mod table;

use std::time::Duration;

use clap::Args;
use millrace_lab::load::{Kind, Load};
use millrace_lab::{Error, Process, Result, wait_for};
use serde_json::Value;

use crate::bench::programs::COPIER;
use crate::demo::report::Report;
use crate::demo::{admin, end, ended, ready, say};
use farm::{Farm, PORT};
use table::table;

/// How many interceptors the copier is connected to, in turn.
const SIZES: [usize; 3] = [1, 10, 50];
/// Client connections at a time.
const AT_A_TIME: u64 = 64;
/// How long what was captured may take to be delivered.
const PATIENCE: Duration = Duration::from_secs(30);
/// Source addresses of the copier in claims mode.
const POOL: &str = "198.18.9.1-198.18.9.254";
/// How often a run is tried.
const ATTEMPTS: u32 = 3;

/// How the benchmark of the fan-out runs.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Sessions of each run
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    sessions: u64,
    /// New sessions per second
    #[arg(long, default_value_t = 7000, value_parser = clap::value_parser!(u32).range(10..=50_000))]
    rate: u32,
    /// How often each is measured, in turn with the others
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    rounds: u32,
}

/// How interceptors know whose a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Each flow is announced to all of them.
    Flows,
    /// A pool is claimed once at each.
    Claims,
}

impl Form {
    const BOTH: [Self; 2] = [Self::Flows, Self::Claims];
}

/// What a run of one copier amounts to.
#[derive(Clone, Copy, Debug)]
struct Run {
    form: Form,
    interceptors: usize,
    sessions: u64,
    per_second: f64,
    /// Processor seconds of the copier's process, and of its shard in it.
    process: f64,
    shard: f64,
    /// Messages to all interceptors, and from them.
    messages_out: u64,
    messages_in: u64,
}

/// Runs it and prints its table.
pub(crate) fn run(options: &Options) -> Result<bool> {
    millrace_lab::enter()?;
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        for size in SIZES {
            say(&format!("round {round}: {size} interceptors"));
            let farm = Farm::new(size)?;
            for form in Form::BOTH {
                runs.push(measure(&farm, form, options)?);
            }
            farm.end()?;
        }
    }
    say(&table(&runs));
    Ok(true)
}

fn measure(farm: &Farm, form: Form, options: &Options) -> Result<Run> {
    let mut attempt = 1;
    loop {
        match once(farm, form, options) {
            // On a machine that is busy with something else, capture may lose packets.
            Err(error) if attempt < ATTEMPTS => say(&format!("once more: {error}")),
            outcome => return outcome,
        }
        attempt += 1;
    }
}

fn once(farm: &Farm, form: Form, options: &Options) -> Result<Run> {
    let mut copier = start_copier(farm, form)?;
    // Probes and the first sessions are no part of it.
    sessions(farm, AT_A_TIME, f64::from(options.rate))?;
    settle(farm, &mut copier, AT_A_TIME)?;
    let used = (copier.thread_cpu_time("shard")?, copier.cpu_time()?);
    let before = messages(farm)?;
    let seconds = sessions(farm, options.sessions, f64::from(options.rate))?;
    settle(farm, &mut copier, AT_A_TIME + options.sessions)?;
    let after = messages(farm)?;
    let shard = copier.thread_cpu_time("shard")?.saturating_sub(used.0);
    let process = copier.cpu_time()?.since(used.1).total();
    end(&mut copier, PATIENCE)?;
    Ok(Run {
        form,
        interceptors: farm.interceptors(),
        sessions: options.sessions,
        per_second: options.sessions as f64 / seconds.max(0.001),
        process: process.as_secs_f64(),
        shard: shard.as_secs_f64(),
        messages_out: after.0 - before.0,
        messages_in: after.1 - before.1,
    })
}

fn start_copier(farm: &Farm, form: Form) -> Result<Process> {
    let live = farm.live()?;
    let services = format!("{}:{PORT}-{}:{PORT}", live.address.v4, farm.vip());
    let (interceptors, admin) = (farm.addresses(), admin().to_string());
    let mut arguments = vec![
        "-x",
        &services,
        "-s",
        &interceptors,
        "--insecure",
        "--admin",
        &admin,
    ];
    match form {
        Form::Flows => {}
        Form::Claims => arguments.extend(["-c", POOL]),
    }
    let log = live.host.file("copier.log");
    let program = millrace_lab::binary(COPIER)?;
    let mut process = live.host.spawn(program, &arguments, &[], &log)?;
    ready(&live.host, &mut process)?;
    Ok(process)
}

/// Runs so many sessions; how many seconds they took.
fn sessions(farm: &Farm, count: u64, rate: f64) -> Result<f64> {
    let client = farm.client()?;
    let kind = Kind::OneRequest {
        count,
        rate: Some(rate),
        path: "/".to_owned(),
    };
    let from: Vec<_> = client.addresses.iter().map(|pair| pair.v4.into()).collect();
    let to = (farm.live()?.address.v4, PORT).into();
    let load = Load::new(kind, to).from(&from).concurrency(AT_A_TIME);
    let summary = client.host.enter_async(move || load.run())?;
    if summary.errors > 0 {
        return Err(Error::Unsupported(format!(
            "clients of the live server saw errors: {:?}",
            summary.examples
        )));
    }
    Ok(summary.seconds)
}

/// Waits until all sessions since the copier's start are completed. Figures of others would be too good.
fn settle(farm: &Farm, copier: &mut Process, count: u64) -> Result<()> {
    let mut last = Report::default();
    let done = wait_for("all sessions to be completed", PATIENCE, || {
        let status = status(farm);
        last = status
            .map(|status| Report::in_status(&status))
            .unwrap_or_default();
        last.number("/replicas/completed") == Some(count) || !copier.is_running()
    });
    if !copier.is_running() {
        return Err(ended(copier.label(), &copier.log()));
    }
    done.map_err(|_| {
        Error::Unsupported(format!(
            "of {count} sessions {} were completed at the real servers; capture dropped {} packets (is this machine \
             busy with something else?)",
            last.number("/replicas/completed").unwrap_or_default(),
            last.number("/capture/dropped").unwrap_or_default(),
        ))
    })
}

fn status(farm: &Farm) -> Result<Value> {
    farm.live()?.host.get_json(admin(), "/status")
}

/// Messages to and from all interceptors since the copier's start.
fn messages(farm: &Farm) -> Result<(u64, u64)> {
    let status = status(farm)?;
    let links = status.get("interceptors").and_then(Value::as_array);
    let sum = |name: &str| {
        let counts = links
            .into_iter()
            .flatten()
            .filter_map(|link| link.get(name)?.as_u64());
        counts.sum()
    };
    Ok((sum("messages_out"), sum("messages_in")))
}
