//! `millrace-copier check-config`: explains a command line in words, and does nothing else.
//!
//! - `words`: what will be copied, to where, how much and through what.
//! - `unusual`: what of it deserves a second look.

mod unusual;
mod words;

use clap::{CommandFactory, FromArgMatches};
use millrace_daemon::config;
use millrace_daemon::exit::ExitError;

use crate::command::Arguments;
use crate::options::Options;
use crate::plan::Plan;

/// The options of the copier itself, under a name that says what becomes of them.
struct Checked(Options);

impl FromArgMatches for Checked {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Options::from_arg_matches(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl CommandFactory for Checked {
    fn command() -> clap::Command {
        Options::command()
            .bin_name("millrace-copier check-config")
            .about(
                "Explains in words what the copier would do with these options, without doing it",
            )
    }

    fn command_for_update() -> clap::Command {
        Self::command()
    }
}

impl clap::Parser for Checked {}

/// Its command line, for the manual and for shells.
pub(crate) fn command_line() -> clap::Command {
    <Checked as clap::CommandFactory>::command()
}

/// Runs the command.
///
/// # Errors
/// What is wrong with the options, as the daemon would say it, or else the explanation.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let environment = |name: &str| std::env::var_os(name);
    let Checked(options) = config::parse_from::<Checked>(arguments, environment)?;
    let plan = Plan::new(&options)?;
    Err(ExitError::text(explain(&options, &plan)))
}

/// The explanation.
pub fn explain(options: &Options, plan: &Plan) -> String {
    let mut text = String::new();
    for (title, lines) in words::sections(options, plan) {
        text += &format!("{title}:\n");
        for line in lines {
            text += &format!("  {line}\n");
        }
    }
    let unusual = unusual::lines(options, plan);
    if unusual.is_empty() {
        text += "Nothing unusual.\n";
    } else {
        text += "Worth a second look:\n";
        for line in unusual {
            text += &format!("  - {line}\n");
        }
    }
    text
}
