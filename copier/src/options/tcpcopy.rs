//! Options of TCPCopy that mean nothing here, or cannot be had yet: they stand in people's scripts.

use millrace_daemon::exit::ExitError;

/// Options that are understood for TCPCopy's sake.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "For TCPCopy's sake")]
pub struct TcpcopyOptions {
    /// Accepted: a copier always survives the loss of an interceptor.
    #[arg(short = 'L', long = "lonely", hide_short_help = true)]
    pub lonely: bool,

    /// Accepted: round trips are measured, of live clients and of targets.
    #[arg(
        short = 'R',
        long = "default-rtt",
        value_name = "MS",
        hide_short_help = true
    )]
    pub default_rtt: Option<u32>,

    /// Refused: log-ins to MySQL cannot be replayed yet, and passwords are given in a file (--accounts-file).
    #[arg(
        short = 'u',
        long = "accounts",
        value_name = "USER@PASSWORD,...",
        hide_short_help = true
    )]
    pub accounts: Option<String>,
}

impl TcpcopyOptions {
    /// Refuses what cannot be had, rather than copying something else.
    ///
    /// # Errors
    /// What to do instead.
    pub fn check(&self) -> Result<(), ExitError> {
        if self.accounts.is_some() {
            return Err(ExitError::usage(
                "-u: log-ins to MySQL cannot be replayed by this version, and copied sessions would \
                 fail at the target; leave -u out to copy other services",
            ));
        }
        Ok(())
    }

    /// What was given without need, in words.
    pub fn needless(&self) -> Vec<&'static str> {
        [
            (
                self.lonely,
                "-L is not needed: a copier always survives the loss of an interceptor",
            ),
            (
                self.default_rtt.is_some(),
                "-R is not needed: round trips are measured",
            ),
        ]
        .into_iter()
        .filter_map(|(given, line)| given.then_some(line))
        .collect()
    }
}
