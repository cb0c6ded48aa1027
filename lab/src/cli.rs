//! The command line of `millrace-lab`.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use millrace_lab::Error;
use millrace_lab::fault::{Fault, Hop};
use millrace_lab::load::{Kind, Load};
use millrace_lab::recorder::{Manners, RecorderConfig, serve};
use tokio::signal::unix::{SignalKind, signal};

use crate::{bench, demo};

/// Exit status when a check of the lab found a difference or an error.
const FAILED: u8 = 1;

/// The network lab of Millrace.
#[derive(Debug, Parser)]
#[command(name = "millrace-lab", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Copies live traffic of several kinds in a lab of its own, and shows what arrived
    Demo(demo::Options),
    /// Measures copier and interceptor, side by side with a bare loop from capture to sending
    Bench(bench::Options),
    /// A server that hashes the byte stream of every connection
    Recorder(RecorderArguments),
    /// Client traffic in which every answer is checked; prints a summary as JSON
    Load(LoadArguments),
    /// Carries frames between two devices and loses, doubles, reorders or delays some
    Hop(HopArguments),
}

#[derive(Debug, Args)]
struct RecorderArguments {
    /// Port that speaks HTTP/1.1; may be given several times
    #[arg(long, value_name = "PORT")]
    http: Vec<u16>,
    /// Port that speaks RESP, the protocol of redis
    #[arg(long, value_name = "PORT")]
    resp: Vec<u16>,
    /// Port on which the server speaks first
    #[arg(long, value_name = "PORT")]
    greeting: Vec<u16>,
    /// File that gets one JSON line for each connection that ended
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Wait before each answer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Reset a connection in place of its Nth answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    reset_every: Option<u64>,
    /// Close a connection that was idle this long
    #[arg(long, value_name = "MS")]
    close_idle: Option<u64>,
}

#[derive(Debug, Args)]
struct LoadArguments {
    /// Client addresses, used in turn
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', global = true)]
    from: Vec<IpAddr>,
    /// Connections at a time
    #[arg(long, value_name = "N", default_value_t = 16, global = true, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    concurrency: u64,
    /// Seconds that one connection may take
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    patience: u64,
    #[command(subcommand)]
    kind: LoadKind,
}

#[derive(Debug, Subcommand)]
enum LoadKind {
    /// One GET per connection
    OneRequest {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Connections per second
        #[arg(long)]
        rate: Option<f64>,
        #[arg(long, default_value = "/bytes/100")]
        path: String,
    },
    /// Requests one after the other on connections that stay
    KeepAlive {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// What a client waits before its next request
        #[arg(long, value_name = "MS", default_value_t = 0)]
        pause: u64,
        #[arg(long, default_value = "/bytes/100")]
        path: String,
    },
    /// One PUT per connection
    Upload {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        /// Bytes of each body
        #[arg(long, default_value_t = 100_000)]
        size: u64,
        #[arg(long, default_value_t = 100)]
        count: u64,
    },
    /// One GET of a large body per connection
    Download {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        /// Bytes of each body
        #[arg(long, default_value_t = 1_000_000)]
        size: u64,
        #[arg(long, default_value_t = 100)]
        count: u64,
    },
    /// Redis commands, many in flight
    Resp {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        /// Commands sent before their answers are read
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        pipeline: u64,
        #[arg(long, default_value_t = 100)]
        batches: u64,
        #[arg(long, default_value_t = 100)]
        count: u64,
    },
    /// A server that speaks first
    Greeting {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        #[arg(long, default_value_t = 10)]
        lines: u64,
        #[arg(long, default_value_t = 100)]
        count: u64,
    },
    /// A request, silence, another request
    Idle {
        /// The service, ADDRESS:PORT
        to: SocketAddr,
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        #[arg(long, default_value_t = 10)]
        count: u64,
    },
    /// Two services at once from the same client ports
    SamePort {
        /// The first service, ADDRESS:PORT
        to: SocketAddr,
        /// The second service, ADDRESS:PORT
        other: SocketAddr,
        #[arg(long, default_value_t = 100)]
        count: u64,
        #[arg(long, default_value_t = 20_000)]
        first_port: u16,
    },
}

#[derive(Debug, Args)]
struct HopArguments {
    /// The two devices, of the namespace in which this runs, both without addresses
    #[arg(num_args = 2, required = true, value_name = "DEVICE")]
    devices: Vec<String>,
    /// Share of packets lost, 0 to 1, in both directions
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Share of packets sent twice
    #[arg(long, default_value_t = 0.0)]
    duplicate: f64,
    /// Share of packets held back, so that others overtake them
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// Delay of every packet
    #[arg(long, value_name = "MS", default_value_t = 0)]
    delay: u64,
    /// Random delay on top, at most
    #[arg(long, value_name = "MS", default_value_t = 0)]
    jitter: u64,
    /// What all that is random comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs a part and turns its outcome into an exit status.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.part {
        Part::Demo(options) => demo::run(&options),
        Part::Bench(options) => bench::run(&options),
        Part::Recorder(arguments) => recorder(arguments),
        Part::Load(arguments) => load(arguments),
        Part::Hop(arguments) => hop(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            // Whoever closed standard error does not want to read it.
            let _ = writeln!(std::io::stderr(), "millrace-lab: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn recorder(arguments: RecorderArguments) -> Result<bool, Error> {
    let config = RecorderConfig {
        http: arguments.http,
        resp: arguments.resp,
        greeting: arguments.greeting,
        out: arguments.out,
        manners: Manners {
            delay: Duration::from_millis(arguments.delay),
            reset_every: arguments.reset_every,
            close_idle: arguments.close_idle.map(Duration::from_millis),
        },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| io("starting a runtime", source))?;
    runtime.block_on(async {
        let stop = asked_to_stop()?;
        serve(config, stop).await.map(|()| true)
    })
}

fn load(arguments: LoadArguments) -> Result<bool, Error> {
    let seconds = Duration::from_secs;
    let (to, kind) = match arguments.kind {
        LoadKind::OneRequest {
            to,
            count,
            rate,
            path,
        } => (to, Kind::OneRequest { count, rate, path }),
        LoadKind::KeepAlive {
            to,
            seconds: lasting,
            pause,
            path,
        } => (
            to,
            Kind::KeepAlive {
                lasting: seconds(lasting),
                pause: Duration::from_millis(pause),
                path,
            },
        ),
        LoadKind::Upload { to, size, count } => (to, Kind::Upload { size, count }),
        LoadKind::Download { to, size, count } => (to, Kind::Download { size, count }),
        LoadKind::Resp {
            to,
            pipeline,
            batches,
            count,
        } => (
            to,
            Kind::Resp {
                count,
                batches,
                pipeline,
            },
        ),
        LoadKind::Greeting { to, lines, count } => (to, Kind::Greeting { count, lines }),
        LoadKind::Idle {
            to,
            seconds: lasting,
            count,
        } => (
            to,
            Kind::Idle {
                count,
                lasting: seconds(lasting),
            },
        ),
        LoadKind::SamePort {
            to,
            other,
            count,
            first_port,
        } => (
            to,
            Kind::SamePort {
                count,
                other,
                first_port,
            },
        ),
    };
    let load = Load {
        kind,
        to,
        from: arguments.from,
        concurrency: arguments.concurrency,
        patience: seconds(arguments.patience),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| io("starting a runtime", source))?;
    let summary = runtime.block_on(load.run());
    let text = serde_json::to_string(&summary).map_err(|error| {
        Error::Unsupported(format!("the summary cannot be written as JSON: {error}"))
    })?;
    writeln!(std::io::stdout(), "{text}").map_err(|source| io("writing the summary", source))?;
    Ok(summary.errors == 0)
}

fn hop(arguments: &HopArguments) -> Result<bool, Error> {
    let [first, second] = arguments.devices.as_slice() else {
        return Err(Error::Unsupported(
            "a hop is between two devices".to_owned(),
        ));
    };
    let fault = Fault {
        loss: arguments.loss,
        duplicate: arguments.duplicate,
        reorder: arguments.reorder,
        delay: Duration::from_millis(arguments.delay),
        jitter: Duration::from_millis(arguments.jitter),
        ..Fault::none()
    };
    fault.check()?;
    let hop = Hop::start_here(first, second, arguments.seed)?;
    hop.set(fault, fault);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|source| io("starting a runtime", source))?;
    runtime.block_on(async {
        asked_to_stop()?.await;
        Ok::<_, Error>(())
    })?;
    let text = serde_json::to_string(&hop.stop()).map_err(|error| {
        Error::Unsupported(format!("the counts cannot be written as JSON: {error}"))
    })?;
    writeln!(std::io::stdout(), "{text}").map_err(|source| io("writing the counts", source))?;
    Ok(true)
}

/// Done on SIGTERM or SIGINT, which are caught from this call on.
fn asked_to_stop() -> Result<impl Future<Output = ()>, Error> {
    let catch = |kind| signal(kind).map_err(|source| io("catching signals", source));
    let (mut terminate, mut interrupt) = (
        catch(SignalKind::terminate())?,
        catch(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn io(what: &str, source: std::io::Error) -> Error {
    Error::Io {
        what: what.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_options_stand_behind_their_benchmark() {
        Arguments::command().debug_assert();
        let parse = |line: &str| Arguments::try_parse_from(line.split(' '));
        for right in [
            "lab bench --tls",
            "lab bench turns --tls --protocol",
            "lab bench load --tls",
        ] {
            parse(right).unwrap();
        }
        parse("lab bench --tls turns").unwrap_err();
        parse("lab bench fan-out --tls").unwrap_err();
    }
}
