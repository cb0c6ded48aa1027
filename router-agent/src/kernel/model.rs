//! What the agent knows of the kernel's state, as plain values: the planner works on these alone.

use std::net::{IpAddr, SocketAddr};

use millrace_notation::address::Cidr;

/// `RT_TABLE_MAIN`.
pub const TABLE_MAIN: u32 = 254;
/// `RT_TABLE_LOCAL`.
pub const TABLE_LOCAL: u32 = 255;
/// `RT_TABLE_DEFAULT`.
pub const TABLE_DEFAULT: u32 = 253;

/// A device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `dummy`, `veth` ...; empty for hardware.
    pub kind: String,
    /// Its device group (`ip link ... group N`), by which our own are known.
    pub group: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it asks nobody for MAC addresses.
    pub no_arp: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// Largest packet. Bytes.
    pub mtu: u32,
    /// Its alias, for people.
    pub alias: String,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// Number of the device that carries it.
    pub link: u32,
}

/// A policy rule (`ip rule`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// IPv4, else IPv6.
    pub ipv4: bool,
    /// Its preference: lower ones come first.
    pub priority: u32,
    /// `from`.
    pub from: Option<Cidr>,
    /// `to`.
    pub to: Option<Cidr>,
    /// `iif`; `lo` stands for packets of this host itself.
    pub iif: Option<String>,
    /// `ipproto`.
    pub ip_protocol: Option<u8>,
    /// `sport`: first and last.
    pub source_port: Option<(u16, u16)>,
    /// Where it leads.
    pub table: u32,
    /// `FR_ACT_*` of linux/fib_rules.h: 1 is a look-up in `table`.
    pub action: u8,
    /// Who made it.
    pub protocol: u8,
    /// Whether it has a selector that is not one of the above (fwmark, oif, dport, tos, uid ...).
    pub narrowed: bool,
}

/// Kind of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// To a device or gateway.
    Unicast,
    /// An address of this host.
    Local,
    /// Drops in silence.
    Blackhole,
    /// Any other: `RTN_*`.
    Other(u8),
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// Where to.
    pub to: Cidr,
    /// In which table.
    pub table: u32,
    /// Who made it.
    pub protocol: u8,
    /// Its kind.
    pub kind: RouteKind,
    /// Its metric: lower ones win.
    pub metric: u32,
    /// Number of the device.
    pub link: Option<u32>,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// Whether it is the network of one of this host's addresses (`scope link`).
    pub connected: bool,
}

/// A TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// `TCP_*` state of net/tcp_states.h.
    pub state: u8,
    /// This host's end.
    pub local: SocketAddr,
    /// The other end; port 0 for a listening one.
    pub remote: SocketAddr,
    /// Family and `struct inet_diag_sockid`, to end it by.
    pub id: Vec<u8>,
}

/// `TCP_ESTABLISHED`.
pub const ESTABLISHED: u8 = 1;
/// `TCP_TIME_WAIT`: silent unless spoken to.
pub const TIME_WAIT: u8 = 6;
/// `TCP_CLOSE`.
pub const CLOSE: u8 = 7;
/// `TCP_LISTEN`.
pub const LISTEN: u8 = 10;

impl Socket {
    /// Whether it may send something to its other end without being spoken to.
    pub fn may_speak(&self) -> bool {
        !matches!(self.state, TIME_WAIT | CLOSE | LISTEN)
    }
}

/// Our firewall chain, of one address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Whether it exists.
    pub exists: bool,
    /// Whether it is the first rule of OUTPUT, and the only one that leads there.
    pub hooked_first: bool,
    /// How many rules of OUTPUT lead to it.
    pub hooks: usize,
    /// Its rules in order, as iptables-save shows them, without the chain's name.
    pub rules: Vec<String>,
}

/// What stands of the floor (see [`crate::plan::floor`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FloorState {
    /// Whether its table exists.
    pub exists: bool,
    /// Names of the chains in it.
    pub chains: Vec<String>,
    /// Rules of all of them.
    pub rules: usize,
}

/// What the floor has dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stopped {
    /// TCP packets that would have reached a client.
    pub packets: u64,
    /// ICMP errors about copied packets.
    pub errors: u64,
}

/// The state of the kernel's routing at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Devices.
    pub links: Vec<Link>,
    /// Addresses of this host.
    pub addresses: Vec<Address>,
    /// Policy rules, by preference.
    pub rules: Vec<Rule>,
    /// Routes of all tables.
    pub routes: Vec<Route>,
    /// Our chain of IPv4.
    pub chain_v4: Chain,
    /// Our chain of IPv6.
    pub chain_v6: Chain,
    /// The floor.
    pub floor: FloorState,
}

impl Snapshot {
    /// A device by name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// A device by number.
    pub fn link_at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The chain of one family.
    pub fn chain(&self, ipv4: bool) -> &Chain {
        if ipv4 { &self.chain_v4 } else { &self.chain_v6 }
    }

    /// Whether this host has the address; all of 127.0.0.0/8 is its own.
    pub fn is_local(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.addresses.iter().any(|address| address.ip == ip)
    }

    /// Gateways of default routes outside of table `except`.
    pub fn default_gateways(&self, except: u32) -> Vec<IpAddr> {
        let defaults = self
            .routes
            .iter()
            .filter(|route| route.to.length() == 0 && route.table != except);
        let mut gateways: Vec<IpAddr> = defaults.filter_map(|route| route.gateway).collect();
        gateways.sort_unstable();
        gateways.dedup();
        gateways
    }
}
