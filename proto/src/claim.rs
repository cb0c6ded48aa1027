//! Claims as checked types: what a `Claim` message says once it is parsed.

use std::net::{IpAddr, SocketAddr};

use crate::v1;

/// The most ranges, ranges left to others, or targets in one claim: a copier's pool is a handful of lines, and there are
/// at most so many instances.
pub const MAX_CLAIM_ENTRIES: usize = 1024;

/// A block of client ends, as the target sees them: every address with every port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientRange {
    first_ip: IpAddr,
    last_ip: IpAddr,
    first_port: u16,
    last_port: u16,
}

/// Why a claim makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// An address that is neither 4 nor 16 bytes long.
    #[error("an address of {0} bytes is neither IPv4 nor IPv6")]
    AddressLength(usize),
    /// A range from one family to the other.
    #[error("a range from {0} to {1} crosses address families")]
    MixedFamilies(IpAddr, IpAddr),
    /// A range whose end comes before its start.
    #[error("a range from {0} to {1} is backwards")]
    Backwards(IpAddr, IpAddr),
    /// A port that is out of range, or a backwards port range.
    #[error("ports {0} to {1} are not a port range")]
    Ports(u32, u32),
    /// More than [`MAX_CLAIM_ENTRIES`].
    #[error("{0} ranges or targets are too many")]
    TooMany(usize),
}

impl ClientRange {
    /// A range that holds at least one client end.
    ///
    /// # Errors
    /// When the families differ or the range is backwards.
    pub fn new(
        first_ip: IpAddr,
        last_ip: IpAddr,
        first_port: u16,
        last_port: u16,
    ) -> Result<ClientRange, ClaimError> {
        if first_ip.is_ipv4() != last_ip.is_ipv4() {
            return Err(ClaimError::MixedFamilies(first_ip, last_ip));
        }
        if first_ip > last_ip {
            return Err(ClaimError::Backwards(first_ip, last_ip));
        }
        if first_port > last_port {
            return Err(ClaimError::Ports(first_port.into(), last_port.into()));
        }
        Ok(ClientRange {
            first_ip,
            last_ip,
            first_port,
            last_port,
        })
    }

    /// First and last address.
    pub fn ips(&self) -> (IpAddr, IpAddr) {
        (self.first_ip, self.last_ip)
    }

    /// First and last port.
    pub fn ports(&self) -> (u16, u16) {
        (self.first_port, self.last_port)
    }

    /// Whether the range holds this client end.
    pub fn contains(&self, client: SocketAddr) -> bool {
        client.is_ipv4() == self.first_ip.is_ipv4()
            && (self.first_ip..=self.last_ip).contains(&client.ip())
            && (self.first_port..=self.last_port).contains(&client.port())
    }

    /// Whether some client end lies in both.
    pub fn overlaps(&self, other: &ClientRange) -> bool {
        self.first_ip.is_ipv4() == other.first_ip.is_ipv4()
            && self.first_ip <= other.last_ip
            && other.first_ip <= self.last_ip
            && self.first_port <= other.last_port
            && other.first_port <= self.last_port
    }

    /// The ranges of a message.
    ///
    /// # Errors
    /// More than [`MAX_CLAIM_ENTRIES`], or one that makes no sense.
    pub fn read_all(ranges: &[v1::ClientRange]) -> Result<Vec<Self>, ClaimError> {
        if ranges.len() > MAX_CLAIM_ENTRIES {
            return Err(ClaimError::TooMany(ranges.len()));
        }
        ranges.iter().map(Self::try_from).collect()
    }
}

impl From<&ClientRange> for v1::ClientRange {
    fn from(range: &ClientRange) -> Self {
        v1::ClientRange {
            first_ip: put_ip(range.first_ip),
            last_ip: put_ip(range.last_ip),
            first_port: range.first_port.into(),
            last_port: range.last_port.into(),
        }
    }
}

impl TryFrom<&v1::ClientRange> for ClientRange {
    type Error = ClaimError;

    fn try_from(range: &v1::ClientRange) -> Result<Self, ClaimError> {
        let not_ports = |_| ClaimError::Ports(range.first_port, range.last_port);
        ClientRange::new(
            get_ip(&range.first_ip)?,
            get_ip(&range.last_ip)?,
            u16::try_from(range.first_port).map_err(not_ports)?,
            u16::try_from(range.last_port).map_err(not_ports)?,
        )
    }
}

/// Everything that one copier claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClaimSet {
    /// The client ends.
    pub ranges: Vec<ClientRange>,
    /// The tested services; empty means any.
    pub targets: Vec<SocketAddr>,
    /// Whether only what no other copier claims is meant.
    pub yields: bool,
    /// Of a claim that yields: the ranges that are left to others.
    pub without: Vec<ClientRange>,
}

impl ClaimSet {
    /// Whether the flow between `target` and `client` is claimed, and not left to others.
    pub fn contains(&self, target: SocketAddr, client: SocketAddr) -> bool {
        let among = |ranges: &[ClientRange]| ranges.iter().any(|range| range.contains(client));
        (self.targets.is_empty() || self.targets.contains(&target))
            && among(&self.ranges)
            && !among(&self.without)
    }

    /// Whether some flow is claimed by both.
    pub fn overlaps(&self, other: &ClaimSet) -> bool {
        let targets = self.targets.is_empty()
            || other.targets.is_empty()
            || self.targets.iter().any(|it| other.targets.contains(it));
        targets
            && self
                .ranges
                .iter()
                .any(|mine| other.ranges.iter().any(|theirs| mine.overlaps(theirs)))
    }
}

impl From<&ClaimSet> for v1::Claim {
    fn from(claim: &ClaimSet) -> Self {
        v1::Claim {
            ranges: claim.ranges.iter().map(Into::into).collect(),
            targets: claim
                .targets
                .iter()
                .map(|target| v1::Target {
                    ip: put_ip(target.ip()),
                    port: target.port().into(),
                })
                .collect(),
            yields: claim.yields,
            without: claim.without.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<&v1::Claim> for ClaimSet {
    type Error = ClaimError;

    fn try_from(claim: &v1::Claim) -> Result<Self, ClaimError> {
        let entries = claim.ranges.len().max(claim.targets.len());
        if entries > MAX_CLAIM_ENTRIES {
            return Err(ClaimError::TooMany(entries));
        }
        let target = |target: &v1::Target| {
            let port = u16::try_from(target.port).ok().filter(|port| *port != 0);
            let port = port.ok_or(ClaimError::Ports(target.port, target.port))?;
            Ok(SocketAddr::new(get_ip(&target.ip)?, port))
        };
        Ok(ClaimSet {
            ranges: ClientRange::read_all(&claim.ranges)?,
            targets: claim.targets.iter().map(target).collect::<Result<_, _>>()?,
            yields: claim.yields,
            without: ClientRange::read_all(&claim.without)?,
        })
    }
}

fn put_ip(ip: IpAddr) -> prost::bytes::Bytes {
    match ip {
        IpAddr::V4(ip) => prost::bytes::Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => prost::bytes::Bytes::copy_from_slice(&ip.octets()),
    }
}

fn get_ip(bytes: &[u8]) -> Result<IpAddr, ClaimError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        Ok(IpAddr::from(octets))
    } else if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
        Ok(IpAddr::from(octets))
    } else {
        Err(ClaimError::AddressLength(bytes.len()))
    }
}
