//! Options of TCPCopy that mean nothing here: they stand in people's scripts.

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
}

impl TcpcopyOptions {
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
