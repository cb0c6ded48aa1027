//! How this host diverts: what its operator has set.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use millrace_proto::v1::DivertMode;
use serde::{Deserialize, Serialize};

use millrace_notation::address::Cidr;

/// The way in which responses are kept from their clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Into a local device, where they end.
    #[default]
    Sink,
    /// Over another host, which drops them.
    Assistant,
    /// To a netfilter queue, whose reader drops them.
    Nfqueue,
}

impl Mode {
    /// None if any will do.
    pub fn from_proto(mode: DivertMode) -> Option<Self> {
        match mode {
            DivertMode::Unspecified => None,
            DivertMode::Sink => Some(Mode::Sink),
            DivertMode::Assistant => Some(Mode::Assistant),
            DivertMode::Nfqueue => Some(Mode::Nfqueue),
        }
    }

    /// As it goes over the wire.
    pub fn to_proto(self) -> DivertMode {
        match self {
            Mode::Sink => DivertMode::Sink,
            Mode::Assistant => DivertMode::Assistant,
            Mode::Nfqueue => DivertMode::Nfqueue,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Sink => "sink",
            Mode::Assistant => "assistant",
            Mode::Nfqueue => "nfqueue",
        })
    }
}

/// Device group of our devices ("mr" in ASCII), by which they are known after a kill.
pub const GROUP: u32 = 0x6d72;
/// Metric of the route that diverts.
pub const METRIC: u32 = 1;
/// Metric of the blackhole behind it: the last of all.
pub const BLACKHOLE_METRIC: u32 = u32::MAX;
/// Next hop on the sink. All packets share its one neighbour entry; with a route to the device
/// alone each client would get one of its own, and a few thousand clients fill the kernel's
/// neighbour table. 192.0.0.8 is the IPv4 dummy address (RFC 7600).
pub const SINK_HOP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8));
/// As [`SINK_HOP_V4`]; link-local, so never a destination of anything else.
pub const SINK_HOP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 8));

/// What its operator lets be diverted on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Services, each with all of its responses.
    pub services: Vec<SocketAddr>,
    /// Client pools: all that goes to them.
    pub pool: Vec<Cidr>,
}

impl Allowed {
    /// Whether the responses of a service may be diverted; where it is known, those to `to`.
    pub fn service(&self, service: SocketAddr, to: &[Cidr]) -> bool {
        let same =
            |allowed: &SocketAddr| (allowed.ip(), allowed.port()) == (service.ip(), service.port());
        self.services.iter().any(same) || (!to.is_empty() && to.iter().all(|to| self.to(to)))
    }

    /// Whether all that goes to a prefix may be diverted.
    pub fn to(&self, to: &Cidr) -> bool {
        let holds = |pool: &Cidr| pool.contains(to.first()) && pool.length() <= to.length();
        self.pool.iter().any(holds)
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services.iter().map(ToString::to_string);
        let pool = self.pool.iter().map(ToString::to_string);
        let words: Vec<String> = services.chain(pool).collect();
        f.write_str(&words.join(","))
    }
}

/// How this host diverts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// The way.
    pub mode: Mode,
    /// The assistant's addresses, at most one of each family.
    pub assistants: Vec<IpAddr>,
    /// Name of the sink device.
    pub sink_device: String,
    /// Routing table of our routes.
    pub table: u32,
    /// Preference of the pass rules; the diverting rules have the next one.
    pub priority: u32,
    /// Number by which our rules and routes are known.
    pub protocol: u8,
    /// Netfilter queue.
    pub queue: u16,
    /// To whom packets are never diverted.
    pub pass_list: Vec<Cidr>,
    /// What may be diverted; none: whatever hurts nobody.
    pub allow: Option<Allowed>,
    /// Services that are diverted though somebody is connected to them.
    pub force: Vec<SocketAddr>,
    /// How long a lease lives without its holder.
    pub grace: Duration,
    /// Whether kernel settings are set and restored, not only checked.
    pub manage_sysctl: bool,
    /// Ports of this host that must stay reachable, and what is on each.
    pub own_ports: Vec<(u16, &'static str)>,
    /// Where the state file is.
    pub state_dir: PathBuf,
}

impl HostConfig {
    /// Name of the sink's other end, where it is a veth pair: device names have 15 characters.
    pub fn sink_peer(&self) -> String {
        let mut name: String = self.sink_device.chars().take(14).collect();
        name.push('p');
        name
    }

    /// Preference of the diverting rules.
    pub fn divert_priority(&self) -> u32 {
        self.priority.saturating_add(1)
    }

    /// The assistant of a family.
    pub fn assistant(&self, ipv4: bool) -> Option<IpAddr> {
        let mut fitting = self.assistants.iter().filter(|ip| ip.is_ipv4() == ipv4);
        fitting.next().copied()
    }

    /// Whether packets to `ip` are never diverted.
    pub fn passes(&self, ip: IpAddr) -> bool {
        self.pass_list.iter().any(|cidr| cidr.contains(ip))
    }

    /// Which port of this host must stay reachable, if `local` is one.
    pub fn own_port(&self, local: SocketAddr) -> Option<&'static str> {
        let mut found = self
            .own_ports
            .iter()
            .filter(|(port, _)| *port == local.port());
        found.next().map(|(_, what)| *what)
    }
}
