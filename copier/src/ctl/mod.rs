//! `millrace-copier ctl`: tells a running copier how much to copy and what to log, over its Unix socket; or all of a
//! cluster, by its plan in Consul.
//!
//! - [`status`]: how running copiers of this host stand.
//! - `cluster`: a cluster's plan, and its copiers.

mod cluster;
pub mod status;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use millrace_daemon::exit::ExitError;
use millrace_daemon::request;
use millrace_daemon::status::printable;

use crate::command::{self, Arguments};
use crate::control::{default_path, instances};
use crate::options::ADMIN;
use millrace_engine::Intensity;
use millrace_fleet::options::ConsulOptions;
use millrace_fleet::peers::Cluster;
use millrace_pilot::IntensityStatus;
use millrace_pilot::ramp::Ramp;

/// Tells a running copier how much to copy; with --cluster all copiers of a cluster, by its plan in Consul.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier-ctl",
    bin_name = "millrace-copier ctl",
    version
)]
struct Options {
    /// What to do.
    #[arg(value_enum)]
    action: Action,

    /// intensity: how much is copied from now on, such as 0.2, 20% or 2.5; without it the present one
    /// is shown. ramp: the stages, such as 10%..100%/5m,hold:10m,300%. guards: rules, as of --guard, or none.
    /// log-level: a filter, as of --log-level.
    value: Option<String>,

    /// Admin port of the copier: tells which copier of this host is meant, where there are several.
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<SocketAddr>,

    /// The copier's --control, where it has one.
    #[arg(long, value_name = "FILE")]
    control: Option<PathBuf>,

    /// Where Consul is.
    #[command(flatten)]
    consul: ConsulOptions,

    /// Write the plan of this cluster, which copiers with --follow-plan follow.
    #[arg(long, value_name = "NAME", help_heading = "Consul", conflicts_with_all = ["admin", "control"])]
    cluster: Option<Cluster>,

    /// How guards of a plan judge.
    #[command(flatten)]
    guards: cluster::GuardOptions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Show how much is copied and why, or set it
    Intensity,
    /// Follow a ramp from its beginning
    Ramp,
    /// Copy nothing new; open sessions go on, a ramp stands still
    Pause,
    /// Go on after a pause, or after a guard has held or stopped
    Resume,
    /// End the copier: open sessions finish first, within its --grace. With --cluster: all copies end within 2 s, and
    /// copiers wait for `resume`
    Stop,
    /// Show a cluster's plan, who changed it, and its copiers
    Status,
    /// Set what must not happen at a cluster's targets; none: nothing is guarded
    Guards,
    /// Log by another filter from now on, such as debug or info,millrace_channel=debug
    LogLevel,
}

/// Its command line, for the manual and for shells.
pub(crate) fn command_line() -> clap::Command {
    <Options as clap::CommandFactory>::command()
}

/// Runs the command.
///
/// # Errors
/// What to write instead (exit code 64), or why the copier did not do it (exit code 1).
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let options: Options = command::parse(arguments)?;
    let value = options.value.as_deref();
    if let Some(cluster) = &options.cluster {
        let client = options.consul.client()?;
        return cluster::run(&client, cluster, options.action, value, options.guards);
    }
    if options.consul.consul.is_some() {
        return Err(ExitError::usage(
            "--consul: name the cluster whose plan is meant with --cluster",
        ));
    }
    let (path, body) = match (options.action, value) {
        (Action::Intensity, None) => return show(admin(options.admin)?),
        (Action::Intensity, Some(value)) => {
            intensity(value)?;
            ("/intensity", value.to_owned())
        }
        (Action::Ramp, stages) => {
            ramp(stages)?;
            let body = serde_json::json!({ "ramp": stages });
            ("/intensity", body.to_string())
        }
        (Action::LogLevel, Some(value)) => ("/log-level", value.to_owned()),
        (Action::LogLevel, None) => {
            return Err(ExitError::usage(
                "ctl log-level: the filter is missing: write `ctl log-level debug`",
            ));
        }
        (Action::Pause, None) => ("/pause", String::new()),
        (Action::Resume, None) => ("/resume", String::new()),
        (Action::Stop, None) => ("/stop", String::new()),
        (Action::Pause | Action::Resume | Action::Stop, Some(value)) => {
            return Err(no_value(value));
        }
        (Action::Status, _) => {
            return Err(ExitError::usage(
                "ctl status shows a cluster: name it with --cluster; `millrace-copier status` shows the copiers of \
                 this host",
            ));
        }
        (Action::Guards, _) => {
            return Err(ExitError::usage(
                "ctl guards sets those of a cluster's plan: name it with --cluster; those of one copier are its --guard",
            ));
        }
    };
    let socket = match options.control {
        Some(named) => named,
        None => default_path(admin(options.admin)?.port()),
    };
    let answer =
        request::post(&socket, path, &body).map_err(|error| unreachable(&socket, &error))?;
    match answer.code {
        200..300 => Err(ExitError::text(printable(&answer.body) + "\n")),
        code => Err(ExitError::start(format!(
            "the copier refused ({code}): {}",
            printable(&answer.body)
        ))),
    }
}

fn intensity(value: &str) -> Result<Intensity, ExitError> {
    let read: Result<Intensity, _> = value.parse();
    read.map_err(|error| ExitError::usage(error.to_string()))
}

fn ramp(stages: Option<&str>) -> Result<Ramp, ExitError> {
    let stages = stages.ok_or_else(|| {
        ExitError::usage("ctl ramp: the stages are missing: write `ctl ramp 10%..100%/5m`")
    })?;
    let read: Result<Ramp, _> = stages.parse();
    read.map_err(|error| ExitError::usage(format!("ramp: {error}")))
}

fn no_value(value: &str) -> ExitError {
    ExitError::usage(format!(
        "'{value}': only `ctl intensity`, `ctl ramp`, `ctl guards` and `ctl log-level` take a value"
    ))
}

/// The admin port of the copier that is meant: the one that is named, or the only one of this host.
fn admin(named: Option<SocketAddr>) -> Result<SocketAddr, ExitError> {
    if let Some(named) = named {
        return Ok(named);
    }
    let at = |port| SocketAddr::new(ADMIN.ip(), port);
    match instances().as_slice() {
        [] => Ok(ADMIN),
        [only] => Ok(at(*only)),
        several => {
            let several: Vec<String> = several.iter().map(|port| at(*port).to_string()).collect();
            Err(ExitError::usage(format!(
                "several copiers run here: say which one is meant, with --admin and one of {}",
                several.join(", ")
            )))
        }
    }
}

/// Why no copier takes commands at this socket, and what to do.
fn unreachable(socket: &Path, error: &io::Error) -> ExitError {
    let what = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "give commands as root, or as the user that started the copier"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is the copier running in this network namespace, and is that its --admin (or --control)?"
        }
        _ => "is that the socket of a copier?",
    };
    ExitError::start(format!("{}: {error}: {what}", socket.display()))
}

/// Shows how much is copied and why.
fn show(admin: SocketAddr) -> Result<(), ExitError> {
    let answer = request::get(admin, "/intensity").map_err(|error| {
        ExitError::start(format!(
            "no answer from the admin port {admin}: {error}; is the copier running, and is that its --admin?"
        ))
    })?;
    match answer.code {
        200..300 => Err(ExitError::text(printable(&shown(&answer.body)))),
        404 => Err(ExitError::start(format!(
            "{admin} has no /intensity: it is not the admin port of a copier"
        ))),
        code => Err(ExitError::start(format!(
            "the copier refused ({code}): {}",
            printable(&answer.body)
        ))),
    }
}

/// The answer for people.
fn shown(body: &str) -> String {
    // What this version does not understand is shown as it came.
    serde_json::from_str::<IntensityStatus>(body)
        .map_or_else(|_| body.to_owned() + "\n", |status| status.to_string())
}
