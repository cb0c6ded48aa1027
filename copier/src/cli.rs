//! The first word of a command line: a command such as `inspect`, or none for the daemon itself.
//!
//! TCPCopy's command line begins with an option, so the two never meet: what begins with a dash
//! is the daemon's.

use clap::CommandFactory;
use millrace_daemon::config::secret::off_the_command_line;
use millrace_daemon::exit::ExitError;

use crate::certs::CertsOptions;
use crate::command::{Arguments, Command, names};
use crate::inspect::InspectOptions;
use crate::options::Options;
use crate::record::options::RecordOptions;
use crate::{certs, check, check_config, ctl, daemon, inspect, record};

/// All of the command line, the commands among it, for the manual and for shells: they see one program.
pub fn command_line() -> clap::Command {
    let daemon = Options::command()
        .after_help(None)
        .disable_help_subcommand(true)
        .subcommand_negates_reqs(true);
    Command::ALL.into_iter().fold(daemon, |all, command| {
        let own = match command {
            Command::Inspect => InspectOptions::command(),
            Command::Record => RecordOptions::command(),
            Command::Check => check::command_line(),
            Command::CheckConfig => check_config::command_line().after_help(None),
            Command::Certs => CertsOptions::command(),
            Command::Ctl => ctl::command_line(),
            Command::Status => ctl::status::command_line(),
        };
        all.subcommand(own.name(command.name()))
    })
}

/// Runs what the process's own command line asks for.
///
/// # Errors
/// One line that says what is wrong; its exit code is that of the command.
pub fn run() -> Result<(), ExitError> {
    hide_accounts()?;
    let mut arguments: Arguments = std::env::args_os().collect();
    let word = arguments
        .get(1)
        .and_then(|word| word.to_str())
        .filter(|word| !word.is_empty() && !word.starts_with('-'));
    let Some(word) = word else {
        return daemon::run();
    };
    let Some(command) = Command::find(word) else {
        return Err(ExitError::usage(format!(
            "no such command: {word}; the commands are {}, and to copy begin with an option such \
             as -x",
            names()
        )));
    };
    arguments.remove(1);
    match command {
        Command::Inspect => inspect::run(arguments),
        Command::Record => record::run(arguments),
        Command::Check => check::run(arguments),
        Command::CheckConfig => check_config::run(arguments),
        Command::Certs => certs::run(arguments),
        Command::Ctl => ctl::run(arguments),
        Command::Status => ctl::status::run(arguments),
    }
}

/// Passwords leave the command line before anything else: commands take the daemon's options, too.
fn hide_accounts() -> Result<(), ExitError> {
    let daemon = Options::command();
    let takes_no_value = |argument: &&clap::Arg| !argument.get_action().takes_values();
    let flags = daemon.get_arguments().filter(takes_no_value);
    let flags: String = flags.filter_map(clap::Arg::get_short).collect();
    off_the_command_line("MILLRACE_COPIER_ACCOUNTS", ('u', "--accounts"), &flags)
}
