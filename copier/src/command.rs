//! The names of the copier's commands, and how each reads its options.

use std::ffi::OsString;
use std::fmt::Write;

use clap::Parser;
use millrace_daemon::config;
use millrace_daemon::exit::ExitError;

/// The arguments of a command, the program's name first and the command itself left out.
pub type Arguments = Vec<OsString>;

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// What recordings hold.
    Inspect,
    /// Live traffic into files.
    Record,
    /// What would keep the copier from its work.
    Check,
    /// What the copier would do, in words.
    CheckConfig,
    /// Certificates for all daemons.
    Certs,
    /// How much a running copier is to copy.
    Ctl,
    /// How running copiers stand.
    Status,
}

impl Command {
    /// All of them, in the order in which the help lists them.
    pub const ALL: [Self; 7] = [
        Self::Status,
        Self::Ctl,
        Self::Inspect,
        Self::Record,
        Self::Check,
        Self::CheckConfig,
        Self::Certs,
    ];

    /// The command of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.name() == name)
    }

    /// What operators write.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Record => "record",
            Self::Check => "check",
            Self::CheckConfig => "check-config",
            Self::Certs => "certs",
            Self::Ctl => "ctl",
            Self::Status => "status",
        }
    }

    const fn about(self) -> &'static str {
        match self {
            Self::Inspect => "Say what recordings hold, and whether a replay will be complete",
            Self::Record => "Record live traffic into files",
            Self::Check => "Say what would keep the copier from its work, or hurt others",
            Self::CheckConfig => "Explain in words what the copier would do",
            Self::Certs => "Make a CA and certificates for all daemons",
            Self::Ctl => "Tell a running copier how much to copy",
            Self::Status => "Say whether the copiers of this host copy, and why not",
        }
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
    for command in Command::ALL {
        // A string takes whatever is written.
        let _ = writeln!(text, "  {:<14} {}", command.name(), command.about());
    }
    text
}

/// All names, separated by commas.
pub(crate) fn names() -> String {
    Command::ALL.map(Command::name).join(", ")
}
