//! The command line of `record`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use millrace_capture::ServiceFilter;
use millrace_daemon::exit::ExitError;
use millrace_daemon::options::CommonOptions;
use millrace_recordings::record::files::Rotation;
use millrace_recordings::record::room::MinFree;

use crate::tunnels::TunnelOptions;

/// Records live traffic into pcapng files.
///
/// Clients' packets are kept whole, those of the live server as headers: that is all a replay needs.
/// SIGTERM and SIGINT end a recording; SIGHUP begins a new file.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier-record",
    bin_name = "millrace-copier record",
    version,
    max_term_width = 100
)]
pub struct RecordOptions {
    /// Services to record: `PORT` or `IP:PORT`, several separated by commas.
    #[arg(
        short = 'x',
        long = "services",
        value_name = "LIST",
        value_delimiter = ','
    )]
    pub services: Vec<Live>,

    /// The file. With --rotate-size or --rotate-time a number is put before its extension.
    #[arg(short = 'w', long, value_name = "FILE")]
    pub write: PathBuf,

    /// Devices to record on, separated by commas, or any; by default those that carry the services.
    #[arg(short = 'i', long, value_name = "DEV", value_delimiter = ',')]
    pub devices: Vec<String>,

    /// A pcap-filter(7) expression in place of the filter made from -x.
    #[arg(short = 'F', long, value_name = "EXPRESSION")]
    pub filter: Option<String>,

    /// Keep the live server's packets whole too.
    #[arg(long)]
    pub whole: bool,

    /// Begin a new file when one has this size, in MB.
    #[arg(long, value_name = "MB", value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_048_576))]
    pub rotate_size: Option<u64>,

    /// Begin a new file when one is this old, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = RangedU64ValueParser::<u64>::new().range(1..=31_536_000))]
    pub rotate_time: Option<u64>,

    /// Keep this many files and remove the oldest beyond; by default all are kept.
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub keep: Option<usize>,

    /// Leave so much of the file system free: MB, or a percentage such as 5%. Before it gets less, the
    /// oldest files are removed with --keep; else the recording ends.
    #[arg(long, value_name = "MB|PERCENT", default_value = "100")]
    pub min_free: MinFree,

    /// Capture buffer of all devices together, in MB.
    #[arg(short = 'B', long = "buffer", value_name = "MB", default_value_t = 64,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=1024))]
    pub buffer_mb: u32,

    /// Bytes kept of each packet; the default holds any packet but BIG TCP.
    #[arg(short = 'S', long = "snap-length", value_name = "BYTES", default_value_t = 65_599,
          value_parser = RangedU64ValueParser::<u32>::new().range(128..=524_288))]
    pub snap_length: u32,

    /// Tunnels.
    #[command(flatten)]
    pub tunnels: TunnelOptions,

    /// Leave devices as they are: without promiscuous mode a mirror port or a bridge hands over only
    /// what is for this host.
    #[arg(short = 'p', long)]
    pub no_promiscuous: bool,

    /// Append the log to FILE instead of stderr. SIGHUP reopens it.
    #[arg(short = 'l', long = "log-file", value_name = "FILE")]
    pub log_file: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter.
    #[arg(long, value_name = "FILTER", default_value = "info",
          value_parser = millrace_daemon::logging::level)]
    pub log_level: String,

    /// Become this user once the log is open: NAME or NAME:GROUP. It must be able to make the files.
    #[arg(long, value_name = "NAME[:GROUP]")]
    pub user: Option<String>,

    /// Do not confine the recorder to its own files (landlock).
    #[arg(long)]
    pub no_landlock: bool,

    /// Read options from FILE (TOML; keys are the long option names).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl RecordOptions {
    /// How the files follow each other.
    ///
    /// # Errors
    /// `--keep` without a way to get a second file.
    pub fn rotation(&self) -> Result<Rotation, ExitError> {
        let rotates = self.rotate_size.is_some() || self.rotate_time.is_some();
        if self.keep.is_some() && !rotates {
            return Err(ExitError::usage(
                "--keep is for several files: add --rotate-size MB or --rotate-time SECONDS",
            ));
        }
        Ok(Rotation {
            path: self.write.clone(),
            size: self.rotate_size.map(|mb| mb << 20),
            age: self.rotate_time.map(Duration::from_secs),
            keep: self.keep,
            min_free: self.min_free,
        })
    }
}

impl From<&RecordOptions> for CommonOptions {
    /// Those of a daemon's options that a recorder has.
    fn from(options: &RecordOptions) -> Self {
        CommonOptions {
            log_file: options.log_file.clone(),
            log_level: options.log_level.clone(),
            user: options.user.clone(),
            no_landlock: options.no_landlock,
            ..CommonOptions::default()
        }
    }
}

/// A service as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live(pub ServiceFilter);

impl FromStr for Live {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no service: write PORT, IPV4:PORT or [IPV6]:PORT, such as 80");
        let (address, port) = match text.rsplit_once(':') {
            None => (None, text),
            Some((ip, port)) => {
                let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
                let ip: IpAddr = bare.unwrap_or(ip).parse().map_err(|_| wrong())?;
                if ip.is_ipv6() != bare.is_some() {
                    return Err(wrong());
                }
                (Some(ip), port)
            }
        };
        match port.parse() {
            Ok(port @ 1..) => Ok(Self(ServiceFilter { address, port })),
            Ok(_) | Err(_) => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_is_consistent() {
        RecordOptions::command().debug_assert();
        let line = "record -x 80,198.18.2.10:81,[2001:db8::1]:82 -w f --rotate-size 5 --keep 3";
        let options = RecordOptions::try_parse_from(line.split(' ')).unwrap();
        let ports: Vec<u16> = options.services.iter().map(|one| one.0.port).collect();
        assert_eq!(ports, [80, 81, 82]);
        assert_eq!(options.rotation().unwrap().size, Some(5 << 20));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "",
            "0",
            "x",
            "80-1.2.3.4:80",
            "2001:db8::1:80",
            "[1.2.3.4]:80",
            "65536",
        ] {
            assert!(wrong.parse::<Live>().is_err(), "{wrong}");
        }
        let line = "record -x 80 -w f --keep 3";
        let options = RecordOptions::try_parse_from(line.split(' ')).unwrap();
        assert!(
            options
                .rotation()
                .unwrap_err()
                .to_string()
                .contains("--rotate-size")
        );
    }
}
