//! The options that every daemon has; a daemon flattens them into its own.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::logging::{self, LogFormat, LogOptions};

/// Options of all daemons. `#[command(flatten)]` them.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Daemon")]
pub struct CommonOptions {
    /// Read options from FILE (TOML; keys are the long option names). Environment variables win
    /// over the file, flags over both.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Append the log to FILE instead of stderr. SIGHUP reopens it.
    #[arg(short = 'l', long = "log-file", value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,millrace_channel=debug.
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = logging::level)]
    pub log_level: String,

    /// How each line of the log is written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// Write the process id to FILE, and remove it at the end. Refused while a process holds it.
    #[arg(short = 'P', long = "pid-file", value_name = "FILE")]
    pub pid_file: Option<PathBuf>,

    /// Go to the background once everything is up; an error before that is still reported here.
    #[arg(short = 'd', long)]
    pub daemon: bool,

    /// Serve /healthz, /readyz, /metrics and /status here.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,

    /// Mutual TLS: the CAs whose certificates other Millrace daemons must show (PEM).
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// Mutual TLS: this daemon's certificate, then its intermediate CAs (PEM). Its URI says what
    /// the daemon may do: spiffe://TRUST_DOMAIN/millrace/ROLE[/NAME].
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// Mutual TLS: the key of --cert (PEM). All three files are read again when they change.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Checks that are not made at the start, separated by commas, or all: their failures keep a daemon from
    /// starting (`check` shows them).
    #[arg(
        long,
        visible_alias = "skip",
        value_name = "CHECK,...",
        value_delimiter = ','
    )]
    pub skip_checks: Vec<String>,

    /// Become this user once what needs root is open: NAME or NAME:GROUP.
    #[arg(long, value_name = "NAME[:GROUP]")]
    pub user: Option<String>,

    /// Do not confine the daemon to its own files (landlock).
    #[arg(long)]
    pub no_landlock: bool,

    /// Talk to other Millrace daemons in plain text, without authentication.
    #[arg(long)]
    pub insecure: bool,
}

impl CommonOptions {
    /// Where the admin port is: where the operator says, or at `default`.
    pub fn admin(&self, default: SocketAddr) -> SocketAddr {
        self.admin.unwrap_or(default)
    }

    /// What [`crate::logging::init`] needs.
    pub fn logging(&self) -> LogOptions {
        LogOptions {
            file: self.log_file.clone(),
            level: self.log_level.clone(),
            format: self.log_format,
        }
    }
}
