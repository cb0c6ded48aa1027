//! Addresses and ports to match, by address family.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::ServiceFilter;

/// An address as the 32-bit words that a program compares: 1 for IPv4, 4 for IPv6.
pub(super) type Words<const N: usize> = [u32; N];

/// How addresses of a family become words.
pub(super) trait Family<const N: usize> {
    /// The words of an address; `None` for one of the other family.
    fn words(address: IpAddr) -> Option<Words<N>>;
}

/// IPv4.
pub(super) struct Ipv4;
/// IPv6.
pub(super) struct Ipv6;

impl Family<1> for Ipv4 {
    fn words(address: IpAddr) -> Option<Words<1>> {
        match address.to_canonical() {
            IpAddr::V4(a) => Some([a.to_bits()]),
            IpAddr::V6(_) => None,
        }
    }
}

impl Family<4> for Ipv6 {
    fn words(address: IpAddr) -> Option<Words<4>> {
        match address.to_canonical() {
            IpAddr::V4(_) => None,
            IpAddr::V6(a) => {
                let bits = a.to_bits();
                Some([96, 64, 32, 0].map(|shift| (bits >> shift) as u32))
            }
        }
    }
}

/// A set of addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Addresses<const N: usize> {
    /// All there are.
    Any,
    /// These.
    Only(BTreeSet<Words<N>>),
}

impl<const N: usize> Addresses<N> {
    fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    fn is_none(&self) -> bool {
        matches!(self, Self::Only(set) if set.is_empty())
    }

    fn insert(&mut self, address: Words<N>) {
        match self {
            Self::Any => {}
            Self::Only(set) => {
                set.insert(address);
            }
        }
    }

    fn union(mut self, other: &Self) -> Self {
        match other {
            Self::Any => Self::Any,
            Self::Only(set) => {
                set.iter().for_each(|address| self.insert(*address));
                self
            }
        }
    }
}

/// Pairs of address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoints<const N: usize> {
    /// Any address, any port.
    Everything,
    /// For each port, its addresses; never an empty set.
    Ports(BTreeMap<u16, Addresses<N>>),
}

impl<const N: usize> Endpoints<N> {
    /// What services listen on. A service without an address is on all of `local`, or, when that
    /// is empty, on any address.
    pub(super) fn of_services<F: Family<N>>(services: &[ServiceFilter], local: &[IpAddr]) -> Self {
        let mut ports = BTreeMap::new();
        for service in services {
            let addresses = ports.entry(service.port).or_insert_with(Addresses::none);
            match service.address.filter(|address| !address.is_unspecified()) {
                Some(address) => F::words(address)
                    .into_iter()
                    .for_each(|words| addresses.insert(words)),
                None if local.is_empty() => *addresses = Addresses::Any,
                None => local
                    .iter()
                    .filter_map(|address| F::words(*address))
                    .for_each(|words| addresses.insert(words)),
            }
        }
        ports.retain(|_, addresses| !addresses.is_none());
        Self::Ports(ports)
    }

    /// Exactly these.
    pub(super) fn of_sockets<F: Family<N>>(sockets: &[SocketAddr]) -> Self {
        let mut ports = BTreeMap::new();
        for socket in sockets {
            if let Some(words) = F::words(socket.ip()) {
                ports
                    .entry(socket.port())
                    .or_insert_with(Addresses::none)
                    .insert(words);
            }
        }
        Self::Ports(ports)
    }

    /// The addresses, whatever the port.
    pub(super) fn hosts(&self) -> Addresses<N> {
        match self {
            Self::Everything => Addresses::Any,
            Self::Ports(ports) => ports.values().fold(Addresses::none(), Addresses::union),
        }
    }

    /// These ports of any address; port 0 stands for all.
    pub(super) fn of_ports(ports: &[u16]) -> Self {
        match ports.contains(&0) {
            true => Self::Everything,
            false => Self::Ports(ports.iter().map(|port| (*port, Addresses::Any)).collect()),
        }
    }

    /// Nothing matches.
    pub(super) fn nothing() -> Self {
        Self::Ports(BTreeMap::new())
    }

    /// Whether nothing matches.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Ports(ports) if ports.is_empty())
    }
}
