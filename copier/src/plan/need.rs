//! What router-agents are asked to divert.

use std::net::IpAddr;

use millrace_daemon::exit::ExitError;
use millrace_engine::{Service, SourcePool};
use millrace_notation::address::cidr::{Cidr, cover};
use millrace_proto::v1::{Need, Prefix, ServiceAddress};

/// What the agents of a copier's targets are asked for: the targets' services as their hosts have
/// them, and with a client pool only their responses to it.
///
/// # Errors
/// Behind address translation without a pool, where neither is known.
pub(super) fn need(
    services: &[Service],
    sources: &SourcePool,
    nat: bool,
) -> Result<Need, ExitError> {
    let pool = match sources {
        SourcePool::Clients => Vec::new(),
        SourcePool::Ranges(ranges) => {
            let ranges: Vec<_> = ranges.iter().map(|range| whole(*range)).collect();
            cover(&ranges)
        }
    };
    if nat && pool.is_empty() {
        return Err(ExitError::usage(
            "--router-agent with --nat needs -c: the targets' addresses on their own hosts are not \
             known here, so the agents can only divert what goes to a client pool",
        ));
    }
    let mut targets: Vec<(IpAddr, u16)> = services
        .iter()
        .filter(|_| !nat)
        .map(|service| (service.target.ip, service.target.port))
        .collect();
    targets.sort_unstable();
    targets.dedup();
    Ok(Need {
        services: targets
            .into_iter()
            .map(|(ip, port)| ServiceAddress {
                ip: octets(ip).into(),
                port: port.into(),
            })
            .collect(),
        pool: pool
            .iter()
            .map(|cidr| Prefix {
                ip: octets(cidr.first()).into(),
                length: cidr.length().into(),
            })
            .collect(),
        ..Need::default()
    })
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A pool written as a prefix lacks its network and broadcast addresses, which are no sources. As
/// no host has them either, the whole prefix is asked for: one rule in place of a dozen.
fn whole(range: (IpAddr, IpAddr)) -> (IpAddr, IpAddr) {
    let lengths = 0..=if range.0.is_ipv4() { 30 } else { 126 };
    let mut prefixes = lengths.map(|length| Cidr::truncated(range.0, length));
    let found = prefixes.find(|prefix| prefix.hosts() == range);
    found.map_or(range, |prefix| (prefix.first(), prefix.last()))
}

#[cfg(test)]
mod tests {
    use millrace_notation::address::ClientPool;

    use super::*;

    fn prefixes(pool: &str) -> Vec<String> {
        let pool: ClientPool = pool.parse().unwrap();
        let ranges = pool.ranges().iter().map(|it| (it.first(), it.last()));
        let need = need(&[], &SourcePool::Ranges(ranges.collect()), false).unwrap();
        let shown = need.pool.iter().map(|prefix| {
            let ip: IpAddr = match <[u8; 4]>::try_from(&prefix.ip[..]) {
                Ok(octets) => octets.into(),
                Err(_) => <[u8; 16]>::try_from(&prefix.ip[..]).unwrap().into(),
            };
            format!("{ip}/{}", prefix.length)
        });
        shown.collect()
    }

    #[test]
    fn a_pool_written_as_a_prefix_is_one_prefix_again() {
        assert_eq!(prefixes("198.18.8.0/24"), ["198.18.8.0/24"]);
        assert_eq!(prefixes("198.18.8.8/30"), ["198.18.8.8/30"]);
        assert_eq!(prefixes("2001:db8:8::/64"), ["2001:db8:8::/64"]);
        assert_eq!(prefixes("198.18.8.7"), ["198.18.8.7/32"]);
        assert_eq!(
            prefixes("198.18.8.2-198.18.8.5"),
            ["198.18.8.2/31", "198.18.8.4/31"]
        );
    }

    #[test]
    fn behind_address_translation_only_a_pool_can_be_asked_for() {
        assert!(need(&[], &SourcePool::Clients, true).is_err());
    }
}
