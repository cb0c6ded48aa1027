//! The first word of a command line: `check`, `status`, or none for the daemon itself.

use std::ffi::OsString;

use clap::CommandFactory;
use millrace_daemon::config;
use millrace_daemon::exit::ExitError;
use millrace_daemon::status::{self, StatusOptions};

use crate::daemon::{self, ADMIN};
use crate::options::Options;
use crate::{check, headline};

/// Says whether the interceptor of this host returns responses, and if not, why and what to do.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-interceptor-status",
    bin_name = "millrace-interceptor status",
    version
)]
struct Status {
    #[command(flatten)]
    status: StatusOptions,
}

/// All of the command line, the commands among it, for the manual and for shells: they see one program.
pub fn command_line() -> clap::Command {
    Options::command()
        .after_help(None)
        .disable_help_subcommand(true)
        .subcommand(Status::command().name("status"))
        .subcommand(check::command_line().name("check"))
}

/// Runs what the process's own command line asks for.
///
/// # Errors
/// One line that says what is wrong; its exit code is that of the command.
pub fn run() -> Result<(), ExitError> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let word = arguments.get(1).and_then(|word| word.to_str());
    match word.map(str::to_owned).as_deref() {
        Some("check") => {
            arguments.remove(1);
            check::run(arguments)
        }
        Some("status") => {
            arguments.remove(1);
            show(arguments)
        }
        Some(_) | None => daemon::run(),
    }
}

fn show(arguments: Vec<OsString>) -> Result<(), ExitError> {
    let Status { status } = config::parse_from(arguments, |name| std::env::var_os(name))?;
    let admin = status.admin.unwrap_or(ADMIN);
    let ask = || vec![(admin, status::ask(admin, "interceptor"))];
    status::show(&status, ask, |status, _| headline::screen(status))
}
