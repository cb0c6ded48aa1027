//! `millrace-copier ctl`: tells a running copier how much to copy, over its admin port.
//!
//! - `request`: one HTTP request.

mod request;

use std::net::SocketAddr;

use clap::ValueEnum;
use millrace_fleet::exit::ExitError;

use crate::command::{self, Arguments};
use crate::control::IntensityStatus;
use crate::options::ADMIN;

/// Tells a running copier how much to copy.
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
    /// is shown. ramp: the stages, such as 10%..100%/5m,hold:10m,300%.
    value: Option<String>,

    /// Admin port of the copier.
    #[arg(long, value_name = "ADDR:PORT", default_value_t = ADMIN)]
    admin: SocketAddr,
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
    /// End the copier: open sessions finish first, within its --grace
    Stop,
}

/// Runs the command.
///
/// # Errors
/// What to write instead (exit code 64), or why the copier did not do it (exit code 1).
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let options: Options = command::parse(arguments)?;
    let value = options.value.as_deref();
    let (method, path, body) = match (options.action, value) {
        (Action::Intensity, None) => ("GET", "/intensity", String::new()),
        (Action::Intensity, Some(value)) => {
            let checked: Result<millrace_engine::Intensity, _> = value.parse();
            checked.map_err(|error| ExitError::usage(error.to_string()))?;
            ("POST", "/intensity", value.to_owned())
        }
        (Action::Ramp, Some(value)) => {
            let checked: Result<crate::ramp::Ramp, _> = value.parse();
            checked.map_err(|error| ExitError::usage(format!("ramp: {error}")))?;
            let body = serde_json::json!({ "ramp": value });
            ("POST", "/intensity", body.to_string())
        }
        (Action::Ramp, None) => {
            return Err(ExitError::usage(
                "ctl ramp: the stages are missing: write `ctl ramp 10%..100%/5m`",
            ));
        }
        (Action::Pause, None) => ("POST", "/pause", String::new()),
        (Action::Resume, None) => ("POST", "/resume", String::new()),
        (Action::Stop, None) => ("POST", "/stop", String::new()),
        (Action::Pause | Action::Resume | Action::Stop, Some(value)) => {
            return Err(ExitError::usage(format!(
                "'{value}': only `ctl intensity` and `ctl ramp` take a value"
            )));
        }
    };
    let answer = request::send(options.admin, method, path, &body).map_err(|error| {
        ExitError::start(format!(
            "no answer from the admin port {}: {error}; is the copier running, and is that its \
             --admin?",
            options.admin
        ))
    })?;
    match answer.code {
        200..300 => Err(ExitError::text(shown(options.action, value, &answer.body))),
        404 => Err(ExitError::start(format!(
            "{} has no {path}: it is not the admin port of a copier",
            options.admin
        ))),
        code => Err(ExitError::start(format!(
            "the copier refused ({code}): {}",
            answer.body
        ))),
    }
}

/// The answer for people.
fn shown(action: Action, value: Option<&str>, body: &str) -> String {
    if action != Action::Intensity || value.is_some() {
        return body.to_owned() + "\n";
    }
    // What this version does not understand is shown as it came.
    serde_json::from_str::<IntensityStatus>(body)
        .map_or_else(|_| body.to_owned() + "\n", |status| status.to_string())
}
