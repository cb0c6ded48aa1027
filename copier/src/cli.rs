//! The first word of a command line: a command such as `inspect`, or none for the daemon itself.
//!
//! TCPCopy's command line begins with an option, so the two never meet: what begins with a dash
//! is the daemon's.

use std::ffi::OsString;
use std::fmt::Write;

use clap::Parser;
use millrace_fleet::config;
use millrace_fleet::exit::ExitError;

use crate::{check_config, ctl, daemon, inspect, record};

/// The arguments of a command, the program's name first and the command itself left out.
pub type Arguments = Vec<OsString>;

/// A command.
struct Command {
    name: &'static str,
    about: &'static str,
    run: fn(Arguments) -> Result<(), ExitError>,
}

/// All commands, in the order in which the help lists them.
const COMMANDS: &[Command] = &[
    Command {
        name: "inspect",
        about: "Say what recordings hold, and whether a replay will be complete",
        run: inspect::run,
    },
    Command {
        name: "record",
        about: "Record live traffic into files",
        run: record::run,
    },
    Command {
        name: "check-config",
        about: "Explain in words what the copier would do",
        run: check_config::run,
    },
    Command {
        name: "ctl",
        about: "Tell a running copier how much to copy",
        run: ctl::run,
    },
];

/// Runs what the process's own command line asks for.
///
/// # Errors
/// One line that says what is wrong; its exit code is that of the command.
pub fn run() -> Result<(), ExitError> {
    let mut arguments: Arguments = std::env::args_os().collect();
    let word = arguments
        .get(1)
        .and_then(|word| word.to_str())
        .filter(|word| !word.is_empty() && !word.starts_with('-'));
    let Some(word) = word else {
        return daemon::run();
    };
    match COMMANDS.iter().find(|command| command.name == word) {
        Some(command) => {
            arguments.remove(1);
            (command.run)(arguments)
        }
        None => Err(ExitError::usage(format!(
            "no such command: {word}; the commands are {}, and to copy begin with an option such \
             as -x",
            names()
        ))),
    }
}

/// Parses the options of a command: its own, its environment variables and its file.
///
/// # Errors
/// As [`config::parse_from`].
pub fn parse<T: Parser>(arguments: Arguments) -> Result<T, ExitError> {
    config::parse_from(arguments, |name| std::env::var_os(name))
}

/// The commands as the end of the daemon's help lists them.
pub(crate) fn listed() -> String {
    let mut text = String::from("Commands (millrace-copier COMMAND --help says more):\n");
    for command in COMMANDS {
        // A string takes whatever is written.
        let _ = writeln!(text, "  {:<14} {}", command.name, command.about);
    }
    text
}

fn names() -> String {
    let names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
    names.join(", ")
}
