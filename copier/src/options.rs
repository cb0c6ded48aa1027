//! The command line of the copier. TCPCopy's letters keep their meaning.

mod intensity;
mod kubernetes;
mod offline;
mod otlp;
mod protocol;
mod tcpcopy;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::RangedU64ValueParser;
use millrace_capture::RingConfig;
use millrace_daemon::exit::ExitError;
use millrace_daemon::options::CommonOptions;
use millrace_fleet::options::ConsulOptions;
use millrace_fleet::peers::{Cluster, PeerList};
use millrace_notation::address::{AddressError, ClientPool, DefaultPort, Mappings};

use crate::tunnels::TunnelOptions;
pub(crate) use intensity::guard_window;
pub use intensity::{IntensityOptions, Percent, ShareOption};
pub use kubernetes::KubernetesOptions;
pub use offline::{DEFAULT_MAX_OPEN, OfflineOptions};
pub use otlp::OtlpOptions;
pub use protocol::ProtocolOptions;
pub use tcpcopy::TcpcopyOptions;

/// Default of `--admin`.
pub(crate) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 36_530);
/// Admin ports of further copiers on one host, where none is named.
pub(crate) const MORE_ADMIN: std::ops::Range<u16> = 36_540..36_604;

/// The port on which interceptors listen, as TCPCopy's did.
pub const INTERCEPTOR_PORT: u16 = 36_524;

/// Copies live TCP sessions to a target.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "millrace-copier", version, max_term_width = 100,
          after_help = crate::command::listed())]
pub struct Options {
    /// What to copy: `[LIVE_IP:]LIVE_PORT-TARGET_IP:TARGET_PORT`, several separated by commas. With
    /// -o, MAC addresses may follow either port: `PORT@SOURCE_MAC-IP:PORT@DESTINATION_MAC`. Pods of Kubernetes on this
    /// node: `service/NAMESPACE/NAME:PORT-...` or `pods/NAMESPACE/KEY=VALUE+KEY=VALUE:PORT-...`, with the pods' own port.
    #[arg(short = 'x', long = "services", value_name = "LIST")]
    pub services: Mappings,

    /// Interceptors: `HOST[:PORT]`, or `consul:NAME` for those of a cluster in Consul; several separated by commas.
    #[arg(
        short = 's',
        long,
        value_name = "LIST",
        required_unless_present = "local"
    )]
    pub interceptors: Option<Interceptors>,

    /// Port of interceptors that are named without one.
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = INTERCEPTOR_PORT,
          value_parser = RangedU64ValueParser::<u16>::new().range(1..=65_535))]
    pub port: u16,

    /// Router-agents on the targets' hosts: `HOST[:PORT]`, or `consul:NAME` for those of a cluster in Consul;
    /// several separated by commas. Nothing is sent before all of them keep the targets' responses from the
    /// real clients.
    #[arg(long = "router-agent", value_name = "LIST")]
    pub router_agents: Option<String>,

    /// Connections to each interceptor.
    #[arg(short = 'C', long, value_name = "N", default_value_t = 1,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=64))]
    pub connections: u32,

    /// Source addresses of copied connections in place of the clients' own: addresses, a.b.c.x,
    /// ranges FIRST-LAST and CIDR, separated by commas.
    #[arg(short = 'c', long, value_name = "LIST")]
    pub client_pool: Option<ClientPool>,

    /// Address that stands in for clients on the live host's loopback address (one for IPv4, one
    /// for IPv6).
    #[arg(
        short = 'H',
        long = "loopback-client",
        value_name = "IP",
        value_delimiter = ',',
        value_parser = loopback_client
    )]
    pub loopback_clients: Vec<IpAddr>,

    /// The target's address or port changes on the way (destination NAT): know answers by the copied
    /// connection's own side alone.
    #[arg(long)]
    pub nat: bool,

    /// Replay at once, without waiting until a probe's answer has come back from each target.
    #[arg(long)]
    pub no_probe: bool,

    /// Do not wait for the target's answer to one turn before sending the next.
    #[arg(short = 'W', long)]
    pub no_wait: bool,

    /// Keep the pauses of clients between an answer and the next request also where the copy is behind. By
    /// default it pauses less until it has caught up.
    #[arg(long)]
    pub keep_pauses: bool,

    /// Copy only sessions whose beginning was captured.
    #[arg(short = 'O', long)]
    pub only_from_syn: bool,

    /// How much is copied.
    #[command(flatten)]
    pub intensity: IntensityOptions,

    /// Capture.
    #[command(flatten)]
    pub capture: CaptureOptions,

    /// Recordings.
    #[command(flatten)]
    pub offline: OfflineOptions,

    /// Protocol modules.
    #[command(flatten)]
    pub protocol: ProtocolOptions,

    /// Sending.
    #[command(flatten)]
    pub sending: SendOptions,

    /// Limits.
    #[command(flatten)]
    pub limits: LimitOptions,

    /// Traces of sampled sessions.
    #[command(flatten)]
    pub otlp: OtlpOptions,

    /// Options of TCPCopy that mean nothing here.
    #[command(flatten)]
    pub tcpcopy: TcpcopyOptions,

    /// Take commands (`millrace-copier ctl`) at this Unix socket, in place of one under /run/millrace.
    #[arg(long, value_name = "FILE")]
    pub control: Option<PathBuf>,

    /// Write the report as JSON to FILE at the end.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,

    /// Say in the log how things stand, so many seconds apart; 0: only when something changes.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = RangedU64ValueParser::<u64>::new().range(0..=86_400))]
    pub summary: u64,

    /// Name of this copier towards interceptors; by default the host's name, one of its addresses and the
    /// live ports.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,

    /// Where Consul is.
    #[command(flatten)]
    pub consul: ConsulOptions,

    /// The cluster whose shares (-f auto) and plan (--follow-plan) this copier has a part in, and where it is
    /// registered; by default the first that -s names as consul:NAME.
    #[arg(long, value_name = "NAME", help_heading = "Consul")]
    pub cluster: Option<Cluster>,

    /// Copy as much as the cluster's plan in Consul says (`ctl --consul URL --cluster NAME`), and never more than -n, -r
    /// or --intensity; send nothing while the plan is not known.
    #[arg(long, help_heading = "Consul")]
    pub follow_plan: bool,

    /// Keep the last known peers here, for a start while Consul is away.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/millrace/copier",
        help_heading = "Consul"
    )]
    pub state_dir: PathBuf,

    /// Where the Kubernetes API is.
    #[command(flatten)]
    pub kubernetes: KubernetesOptions,

    /// What every daemon has.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// Most of -m that the capture buffer takes without -B, in bytes.
const LARGEST_BUFFER: u64 = 128 << 20;
/// Default of -m, in MB.
const DEFAULT_MEMORY: u64 = 512;

/// What is captured, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Capture")]
pub struct CaptureOptions {
    /// Devices to capture on, separated by commas, or any; by default those that carry the live services.
    /// Or recordings to replay: pcap and pcapng files, gzip, zstd and xz too, and - for standard input.
    #[arg(short = 'i', long, value_name = "DEV|FILE", value_delimiter = ',')]
    pub devices: Vec<String>,

    /// A pcap-filter(7) expression in place of the filter made from -x.
    #[arg(short = 'F', long, value_name = "EXPRESSION")]
    pub filter: Option<String>,

    /// Memory for captured packets that were not read yet, in MB: a part of -m, by default a quarter of
    /// it and at most 128. All devices share it; 16 MB of it at most are taken at once, the rest as it
    /// is needed.
    #[arg(short = 'B', long = "buffer", value_name = "MB",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=1024))]
    pub buffer_mb: Option<u32>,

    /// Scheduling priority of the thread that empties the capture ring, from -20 (first) to 0, that of
    /// everything else. It needs so little time that 0 is enough beside other programs.
    #[arg(long, value_name = "NICE", default_value_t = 0, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-20..=0))]
    pub capture_nice: i32,

    /// Bytes captured of each packet; the default, 65599, holds any packet but BIG TCP.
    #[arg(short = 'S', long = "snap-length", value_name = "BYTES",
          value_parser = RangedU64ValueParser::<u32>::new().range(128..=524_288))]
    pub snap_length: Option<u32>,

    /// Tunnels.
    #[command(flatten)]
    pub tunnels: TunnelOptions,
}

impl CaptureOptions {
    /// All memory and the part of it that is the capture buffer, in bytes.
    ///
    /// # Errors
    /// A capture buffer of more than half of the memory, with exit code 64.
    pub fn memory(&self, limits: &LimitOptions) -> Result<(u64, u64), ExitError> {
        let buffer = self.buffer_mb.map(u64::from);
        let least = buffer.map_or(0, |buffer| 2 * buffer);
        let memory = limits.memory_mb.unwrap_or(DEFAULT_MEMORY.max(least));
        match buffer {
            None => Ok((memory << 20, ((memory << 20) / 4).min(LARGEST_BUFFER))),
            Some(buffer) if least <= memory => Ok((memory << 20, buffer << 20)),
            Some(buffer) => Err(ExitError::usage(format!(
                "-B {buffer}: the capture buffer is a part of -m {memory}, and half of that at most: \
                 raise -m to {least} or more, or lower -B"
            ))),
        }
    }

    /// Bytes captured of each packet.
    pub fn snap_length(&self) -> u32 {
        self.snap_length.unwrap_or(RingConfig::DEFAULT_SNAP_LEN)
    }

    /// None of these options means anything with a file.
    ///
    /// # Errors
    /// The first of them that was given, and what to do instead.
    pub fn refuse(&self) -> Result<(), ExitError> {
        let given = [
            (
                self.filter.is_some(),
                "-F is for capturing on devices: take out of a file what you want with `tcpdump -r FILE \
                 -w NEW EXPRESSION`",
            ),
            (
                self.buffer_mb.is_some(),
                "-B is the buffer for capturing on devices: leave it out to replay a file",
            ),
            (
                self.snap_length.is_some(),
                "-S is for capturing on devices: leave it out to replay a file, in which packets have \
                 the length that they were recorded with",
            ),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, line)) => Err(ExitError::usage(line)),
            None => Ok(()),
        }
    }
}

/// Where packets leave (`-o`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// At the link layer, wherever the routes lead out of Ethernets.
    Auto,
    /// Through the host's routing.
    Routed,
    /// At the link layer of this device.
    Device(String),
}

impl std::str::FromStr for Output {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "auto" => Self::Auto,
            "routed" => Self::Routed,
            device => Self::Device(device.to_owned()),
        })
    }
}

/// How packets are sent.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Sending")]
pub struct SendOptions {
    /// Where packets leave. DEV: at the link layer from this device, past the host's firewall and connection
    /// tracking. auto: the same from whichever Ethernets the host's routes to the targets lead out of, and through its
    /// routing where one leads elsewhere. routed: through the host's routing.
    #[arg(
        short = 'o',
        long = "output-device",
        value_name = "DEV|auto|routed",
        default_value = "auto"
    )]
    pub output: Output,

    /// Send through the host's routing though it tracks connections: copies are exempt from that.
    #[arg(long)]
    pub allow_conntrack: bool,

    /// Largest packet sent, in bytes.
    #[arg(short = 'M', long, value_name = "BYTES", default_value_t = 1500,
          value_parser = RangedU64ValueParser::<u16>::new().range(576..=65_535))]
    pub mtu: u16,

    /// Maximum segment size offered to targets; by default what the MTU leaves.
    #[arg(short = 'D', long, value_name = "BYTES",
          value_parser = RangedU64ValueParser::<u16>::new().range(64..=65_495))]
    pub mss: Option<u16>,
}

/// When a session is given up, and what all of them may take.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitOptions {
    /// Memory for everything that is captured, in MB: the capture buffer (-B), and the sessions with
    /// their payload. Taken as it is needed. Near the limit new sessions are refused. 512 by default, or
    /// twice -B if that is more.
    #[arg(short = 'm', long = "memory", value_name = "MB",
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=1_048_576))]
    pub memory_mb: Option<u64>,

    /// Use at most this much CPU time, in percent of one core: above it new sessions are refused, and
    /// if that is not enough open ones are set aside.
    #[arg(long, value_name = "PERCENT",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=10_000))]
    pub max_cpu: Option<u32>,

    /// Give up a copied connection whose target does not answer for this long, in seconds.
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 120,
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=86_400))]
    pub answer_timeout: u64,

    /// Give up a session that is silent on the live side for this long, in seconds.
    #[arg(short = 'k', long, value_name = "SECONDS", default_value_t = 3600,
          value_parser = RangedU64ValueParser::<u64>::new().range(1..=604_800))]
    pub idle_timeout: u64,

    /// Copy connections that come from a target's address, too: behind a gateway or proxy that has it they
    /// are those of clients. By default they are taken for calls of the tested application.
    #[arg(long)]
    pub copy_targets: bool,

    /// Remember connections that are over for this long, in seconds: segments of them that are captured again,
    /// at a second tap or a slow mirror, begin nothing. Where some come later it grows by itself. 0: not at all.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = RangedU64ValueParser::<u64>::new().range(0..=600))]
    pub late: u64,

    /// Begin at most this many sessions a second; more are refused and counted (those of a recording wait).
    #[arg(long, value_name = "N",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    pub max_new_sessions: Option<u32>,

    /// Copy at most this many sessions at the same time; more are refused and counted (of a recording:
    /// so many that wait for the target, and more wait their turn).
    #[arg(long, value_name = "N",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    pub max_open: Option<u32>,

    /// Send at most this many bytes of payload a second, such as 100M; copied connections become
    /// slower, and while more than a second's worth waits new sessions are refused and counted
    /// (those of a recording wait).
    #[arg(long, value_name = "RATE", value_parser = millrace_notation::units::bytes_per_second)]
    pub max_bandwidth: Option<u64>,

    /// After SIGTERM, let open sessions finish for this long, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = RangedU64ValueParser::<u64>::new().range(0..=86_400))]
    pub grace: u64,
}

impl LimitOptions {
    /// Some of these options mean nothing with a file.
    ///
    /// # Errors
    /// The first of them that was given, and what to do instead.
    pub fn refuse(&self) -> Result<(), ExitError> {
        match self.max_cpu {
            None => Ok(()),
            Some(_) => Err(ExitError::usage(
                "--max-cpu keeps a live server free: for a recording, leave it out and replay more \
                 slowly (-a), or start the copier with `nice`",
            )),
        }
    }
}

/// Interceptors as written: the default port is known only with all options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interceptors(String);

impl FromStr for Interceptors {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        PeerList::parse(text, DefaultPort(INTERCEPTOR_PORT))?;
        Ok(Self(text.to_owned()))
    }
}

impl Options {
    /// The interceptors; none with `--local`.
    ///
    /// # Errors
    /// Two that are the same.
    pub fn interceptors(&self) -> Result<PeerList, AddressError> {
        match &self.interceptors {
            Some(interceptors) => interceptors.with_port(self.port),
            None => Ok(PeerList::default()),
        }
    }

    /// The cluster that this copier takes part in; none is named.
    ///
    /// # Errors
    /// Interceptors that cannot be read.
    pub fn cluster_name(&self) -> Result<Option<Cluster>, ExitError> {
        if let Some(cluster) = &self.cluster {
            return Ok(Some(cluster.clone()));
        }
        let list = self.interceptors();
        let list = list.map_err(|error| ExitError::usage(error.to_string()))?;
        Ok(list.clusters.into_iter().next())
    }
}

impl Interceptors {
    /// The addresses, with `port` where none was given.
    ///
    /// # Errors
    /// Two that are the same with that port.
    pub fn with_port(&self, port: u16) -> Result<PeerList, AddressError> {
        PeerList::parse(&self.0, DefaultPort(port))
    }
}

fn loopback_client(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| {
        format!("'{text}' is not an IP address: give one that the target's network knows")
    })
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
        let line = "millrace-copier -x 80-198.18.2.20:8080 -s 198.18.2.30,rs2:1 -c 198.18.9.x \
                    -i eth0,eth1 -H 198.18.1.9 -o eth0 -F tcp -B 32 -S 2000 -C 2 -M 1400 -D 1300 \
                    -m 100 -t 20 -k 30 -p 4000 -O -W -L -l /dev/null -P pid -d";
        let options = Options::try_parse_from(line.split_whitespace()).unwrap();
        let interceptors = options.interceptors().unwrap();
        assert_eq!(interceptors.to_string(), "198.18.2.30:4000, rs2:1");
        assert_eq!(options.capture.devices, ["eth0", "eth1"]);
        assert!(options.no_wait && options.only_from_syn && options.common.daemon);
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in [
            "-n 0",
            "-m 0",
            "-M 100",
            "-C 0",
            "-t x",
            "-p 0",
            "-H nobody",
            "--wat",
        ] {
            let line = format!("millrace-copier -x 80-198.18.2.20:80 -s h {wrong}");
            assert!(
                Options::try_parse_from(line.split_whitespace()).is_err(),
                "{wrong}"
            );
        }
    }
}
