//! The command line of the router-agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use millrace_daemon::check::CheckOptions;
use millrace_daemon::exit::ExitError;
use millrace_daemon::options::CommonOptions;
use millrace_daemon::status::StatusOptions;
use millrace_fleet::options::RegisterOptions;
use millrace_notation::address::parse_socket_address;

use crate::host::{Allowed, HostConfig, Mode};
use crate::need::Need;
use millrace_notation::address::cidr::{Cidr, parse_list};

/// The port on which agents listen.
pub const PORT: u16 = 36_526;
/// Default of `--admin`.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 36_532);
/// Interceptors' port.
const INTERCEPTOR_PORT: u16 = 36_524;
/// ssh's port.
const SSH_PORT: u16 = 22;
/// Longest name of a device, one less than the kernel's: a letter is added for the other end.
const DEVICE_NAME: usize = 14;

/// Keeps a target's responses from the real clients: by routes that copiers lease, or that are
/// applied by hand.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "millrace-router-agent", version, max_term_width = 100)]
pub struct Options {
    /// What to do instead of running as a daemon.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// How responses are diverted.
    #[command(flatten)]
    pub host: HostOptions,

    /// Address to listen on for copiers; by default all, IPv4 and IPv6, and with --insecure only
    /// 127.0.0.1.
    #[arg(short = 'b', long, value_name = "ADDR")]
    pub bind: Option<IpAddr>,

    /// Port to listen on for copiers.
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT, global = true,
          value_parser = RangedU64ValueParser::<u16>::new().range(1..=65_535))]
    pub port: u16,

    /// Name of this agent towards copiers; by default the host's name.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,

    /// How copiers find it.
    #[command(flatten)]
    pub register: RegisterOptions,

    /// Options of every daemon.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// What to do once.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    /// Say whether the agent of this host diverts, and if not, why and what to do.
    Status(StatusOptions),
    /// Divert responses until `remove`, without a lease.
    Apply(Wanted),
    /// Remove all that was installed here, once no copied connection can speak any more.
    Remove,
    /// Show what is installed here, as the kernel has it.
    Show(Shown),
    /// Show what `apply` would do, and whether it would be refused, without doing it.
    Plan(Wanted),
    /// Say what would keep responses from being diverted here, or hurt others. Without -s and -c for all that
    /// --allow names.
    Check(Checked),
}

/// What to divert.
#[derive(Debug, Clone, clap::Args)]
pub struct Wanted {
    /// Tested services as this host has them: IP:PORT,..., IPv6 in brackets.
    #[arg(short = 's', long, value_name = "LIST", value_delimiter = ',',
          value_parser = parse_socket_address)]
    pub services: Vec<SocketAddr>,

    /// Client pool: addresses, FIRST-LAST, CIDR, separated by commas. With services: only their
    /// responses to it; alone: all TCP to it.
    #[arg(short = 'c', long, value_name = "LIST", value_parser = parse_pool)]
    pub pool: Option<Pool>,
}

/// What is checked, and how it is shown.
#[derive(Debug, Clone, clap::Args)]
pub struct Checked {
    /// What is to be diverted.
    #[command(flatten)]
    pub wanted: Wanted,

    /// Which checks, and how they are shown.
    #[command(flatten)]
    pub check: CheckOptions,
}

/// How to show.
#[derive(Debug, Clone, clap::Args)]
pub struct Shown {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Options that say how this host diverts; before or after the subcommand.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Diverting")]
pub struct HostOptions {
    /// How responses are kept from their clients.
    #[arg(long, value_enum, default_value_t = Mode::Sink, global = true)]
    pub mode: Mode,

    /// The assistant's addresses, at most one of IPv4 and one of IPv6.
    #[arg(long, value_name = "IP[,IP6]", value_delimiter = ',', global = true)]
    pub assistant: Vec<IpAddr>,

    /// Name of the sink device.
    #[arg(long, value_name = "DEV", default_value = "millrace0", global = true)]
    pub sink_device: String,

    /// Routing table for our routes; of nobody else.
    #[arg(long, value_name = "N", default_value_t = 36_524, global = true)]
    pub table: u32,

    /// Preference of the pass-list's policy rules; the diverting ones have the next.
    #[arg(long, value_name = "N", default_value_t = 10_000, global = true,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=32_764))]
    pub priority: u32,

    /// Number by which our rules and routes are known (`ip rule` shows it as proto).
    #[arg(long, value_name = "N", default_value_t = 152, global = true,
          value_parser = RangedU64ValueParser::<u8>::new().range(5..=255))]
    pub protocol: u8,

    /// Netfilter queue, with --mode nfqueue.
    #[arg(long, value_name = "N", default_value_t = 36_524, global = true)]
    pub queue: u16,

    /// To whom packets are never diverted: directors, health checks, testers. Addresses and CIDR.
    #[arg(short = 'x', long, value_name = "LIST", value_parser = parse_pool, global = true)]
    pub pass_list: Option<Pool>,

    /// What may be diverted here, whoever asks: services as IP:PORT (IPv6 in brackets), and client
    /// pools as addresses, FIRST-LAST and CIDR, separated by commas. By default whatever hurts nobody.
    #[arg(long, value_name = "LIST", value_parser = parse_allowed, global = true)]
    pub allow: Option<Allowed>,

    /// Services that are diverted though connections that are no copies are established to them,
    /// which then get no answers any more: IP:PORT,..., IPv6 in brackets.
    #[arg(long, value_name = "LIST", value_delimiter = ',', global = true,
          value_parser = parse_socket_address)]
    pub force: Vec<SocketAddr>,

    /// How long a lease lives after its holder is gone.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true,
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=86_400))]
    pub grace: u64,

    /// Set rp_filter, arp_ignore and arp_announce where they are wrong, and restore them.
    #[arg(long, global = true)]
    pub manage_sysctl: bool,

    /// Ports of this host that no plan may touch, besides the agent's own.
    #[arg(long, value_name = "LIST", value_delimiter = ',', global = true,
          default_values_t = [SSH_PORT, INTERCEPTOR_PORT])]
    pub keep_ports: Vec<u16>,

    /// Directory for what must outlive the process.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/run/millrace",
        global = true
    )]
    pub state_dir: PathBuf,
}

/// A list of addresses as the fewest prefixes.
#[derive(Debug, Clone, Default)]
pub struct Pool(pub Vec<Cidr>);

/// Services and pools, told apart by the port.
fn parse_allowed(text: &str) -> Result<Allowed, millrace_notation::address::AddressError> {
    let mut allowed = Allowed::default();
    let mut pool = Vec::new();
    for word in text.split(',').map(str::trim) {
        match parse_socket_address(word) {
            Ok(service) => allowed.services.push(service),
            Err(_) => pool.push(word),
        }
    }
    if !pool.is_empty() {
        allowed.pool = parse_list(&pool.join(","))?;
    }
    Ok(allowed)
}

fn parse_pool(text: &str) -> Result<Pool, millrace_notation::address::AddressError> {
    parse_list(text).map(Pool)
}

impl Wanted {
    /// As a need.
    pub fn need(&self) -> Need {
        Need {
            services: self.services.clone(),
            pool: self.pool.clone().unwrap_or_default().0,
            mode: None,
        }
    }
}

impl Options {
    /// How this host diverts.
    ///
    /// # Errors
    /// What does not fit together, with exit code 64.
    pub fn host_config(&self) -> Result<HostConfig, ExitError> {
        let host = &self.host;
        let name = &host.sink_device;
        let fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if name.is_empty() || name.len() > DEVICE_NAME || !name.chars().all(fit) {
            return Err(ExitError::usage(format!(
                "--sink-device '{name}': give 1 to {DEVICE_NAME} letters, digits, - or _"
            )));
        }
        if matches!(host.table, 0 | 253 | 254 | 255) {
            return Err(ExitError::usage(format!(
                "--table {}: that is one of the system's own tables; give any other number",
                host.table
            )));
        }
        if host.mode == Mode::Assistant && host.assistant.is_empty() {
            return Err(ExitError::usage(
                "--mode assistant: say which host it is with --assistant IP",
            ));
        }
        for ipv4 in [true, false] {
            let of_family = host.assistant.iter().filter(|ip| ip.is_ipv4() == ipv4);
            if of_family.count() > 1 {
                return Err(ExitError::usage(format!(
                    "--assistant: there are two addresses of {}; give at most one of each family",
                    if ipv4 { "IPv4" } else { "IPv6" }
                )));
            }
        }
        let mut own_ports = vec![(self.port, "the router-agent")];
        own_ports.extend(host.keep_ports.iter().map(|port| {
            let what = match *port {
                SSH_PORT => "ssh",
                INTERCEPTOR_PORT => "the interceptor",
                _ => "a service named in --keep-ports",
            };
            (*port, what)
        }));
        Ok(HostConfig {
            mode: host.mode,
            assistants: host.assistant.clone(),
            sink_device: name.clone(),
            table: host.table,
            priority: host.priority,
            protocol: host.protocol,
            queue: host.queue,
            pass_list: host.pass_list.clone().unwrap_or_default().0,
            allow: host.allow.clone(),
            force: host.force.clone(),
            grace: Duration::from_secs(host.grace),
            manage_sysctl: host.manage_sysctl,
            own_ports,
            state_dir: host.state_dir.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("millrace-router-agent").chain(line.split_whitespace());
        Options::try_parse_from(words)
    }

    #[test]
    fn the_command_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn host_options_stand_before_or_after_the_subcommand() {
        for line in [
            "--table 7 -x 198.18.2.1 apply -s 198.18.5.1:80",
            "apply -s 198.18.5.1:80 --table 7 -x 198.18.2.1",
        ] {
            let options = parse(line).unwrap();
            let host = options.host_config().unwrap();
            assert_eq!((host.table, host.pass_list.len()), (7, 1), "{line}");
        }
    }

    #[test]
    fn services_and_pools_may_be_allowed_in_one_list() {
        let options = parse("--allow 198.18.5.1:80,[2001:db8:5::1]:80,198.18.8.0/24").unwrap();
        let allowed = options.host_config().unwrap().allow.unwrap();
        assert_eq!((allowed.services.len(), allowed.pool.len()), (2, 1));
        assert!(parse("--allow rs1:80").is_err() && parse("--allow ,").is_err());
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        for (line, said) in [
            ("--mode assistant", "--assistant"),
            ("--table 254", "system's own"),
            ("--sink-device a-name-that-is-too-long", "1 to 14"),
            ("--assistant 198.18.2.1,198.18.2.2", "two addresses"),
        ] {
            let error = parse(line).unwrap().host_config().unwrap_err();
            assert_eq!(error.code(), 64);
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
        for line in [
            "--priority 0",
            "--protocol 4",
            "apply -s rs1:80",
            "apply -c 1.2.3.4/33",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
