//! The command line of the interceptor. TCPCopy's letters keep their meaning.

use std::net::IpAddr;

use clap::builder::RangedU64ValueParser;
use millrace_daemon::exit::ExitError;
use millrace_daemon::options::CommonOptions;
use millrace_fleet::options::RegisterOptions;
use millrace_notation::address::ClientPool;

/// The port on which interceptors listen, as TCPCopy's did.
pub const PORT: u16 = 36_524;

/// The queue that router-agent's rules hand packets to.
pub const QUEUE: u16 = 36_524;

/// The device that router-agent makes.
pub const SINK: &str = "millrace0";

/// Where responses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// A sink device of this host, into which routes divert them.
    Sink,
    /// A device of this host, an assistant, to which other hosts' routes divert them.
    Link,
    /// A firewall queue of this host, whose packets end here.
    Nfqueue,
}

/// Returns the headers of a target's responses to the copiers that own them.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-interceptor",
    version,
    max_term_width = 100,
    after_help = "Commands (millrace-interceptor COMMAND --help says more):\n  \
                  status  Say whether the interceptor of this host returns responses, and why not\n  \
                  check   Say what would keep an interceptor with these options from its work"
)]
pub struct Options {
    /// How responses are diverted to here: to a sink device of this host, to this host as an
    /// assistant (link), or by an NFQUEUE rule. By default link with -i, else sink.
    #[arg(long, value_name = "MODE")]
    pub mode: Option<Mode>,

    /// Devices on which responses are captured, separated by commas; with --mode sink by default
    /// millrace0, the one that router-agent makes.
    #[arg(short = 'i', long, value_name = "DEV", value_delimiter = ',')]
    pub devices: Vec<String>,

    /// Number of the queue that is read with --mode nfqueue.
    #[arg(long, value_name = "N", default_value_t = QUEUE)]
    pub queue: u16,

    /// Addresses whose packets are let through with --mode nfqueue, besides the rule's own
    /// pass-list: directors and testers. Addresses, ranges FIRST-LAST and CIDR, separated by commas.
    #[arg(short = 'x', long, value_name = "LIST")]
    pub pass_list: Option<ClientPool>,

    /// A pcap-filter(7) expression: which packets are responses. By default all TCP that is not
    /// for this host itself.
    #[arg(short = 'F', long, value_name = "EXPRESSION")]
    pub filter: Option<String>,

    /// Address to listen on for copiers; by default all, IPv4 and IPv6, and with --insecure only
    /// 127.0.0.1.
    #[arg(short = 'b', long, value_name = "ADDR")]
    pub bind: Option<IpAddr>,

    /// Port to listen on for copiers.
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT,
          value_parser = RangedU64ValueParser::<u16>::new().range(1..=65_535))]
    pub port: u16,

    /// Accepted for TCPCopy's sake: the table of copied connections grows as it is needed.
    #[arg(
        short = 's',
        long = "table-size",
        value_name = "N",
        hide_short_help = true
    )]
    pub table_size: Option<u64>,

    /// Refused: TCPCopy's container addresses; --nat of the copier replaces them.
    #[arg(
        short = 'D',
        long = "container",
        value_name = "IP-IP",
        hide_short_help = true
    )]
    pub container: Option<String>,

    /// Flows that copiers may announce, in all; each takes up to 200 bytes.
    #[arg(long, value_name = "N", default_value_t = 2_000_000,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=100_000_000))]
    pub max_flows: u32,

    /// Capture buffer of each device for headers, in MB. Three times as much more is taken as needed for answers with
    /// their payload, which protocol modules of copiers ask for.
    #[arg(short = 'B', long = "buffer", value_name = "MB", default_value_t = 16,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=1024))]
    pub buffer_mb: u32,

    /// Serve with --mode link though this host forwards packets: its firewall drops what is diverted
    /// to it.
    #[arg(long)]
    pub allow_forwarding: bool,

    /// Name of this interceptor towards copiers; by default the host's name.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,

    /// How copiers find it.
    #[command(flatten)]
    pub register: RegisterOptions,

    /// Options of every daemon.
    #[command(flatten)]
    pub common: CommonOptions,
}

impl Options {
    /// Refuses what cannot be had.
    ///
    /// # Errors
    /// What to do instead.
    pub fn check(&self) -> Result<(), ExitError> {
        match &self.container {
            Some(_) => Err(ExitError::usage(
                "-D: leave it out and start the copier with --nat: answers are then known by the \
                 copied connection's own side, whatever the target's address is on the way",
            )),
            None => Ok(()),
        }
    }

    /// The mode that was asked for, or that -i implies.
    pub fn mode(&self) -> Mode {
        self.mode.unwrap_or(if self.devices.is_empty() {
            Mode::Sink
        } else {
            Mode::Link
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn tcpcopys_letters_are_understood() {
        let line =
            "millrace-interceptor -i eth0,eth1 -F tcp -b 198.18.2.30 -p 4000 -l log -P pid -d";
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(options.devices, ["eth0", "eth1"]);
        assert_eq!(options.port, 4000);
        let old = "millrace-interceptor -i eth0 -s 65536 -D 198.18.3.2-198.18.2.20";
        let old = Options::try_parse_from(old.split_whitespace()).unwrap();
        assert!(old.check().unwrap_err().to_string().contains("--nat"));
        assert!(options.common.daemon);
        assert_eq!(options.mode(), Mode::Link);
        let bare = Options::try_parse_from(["millrace-interceptor"]).unwrap();
        assert_eq!(bare.mode(), Mode::Sink);
    }
}
