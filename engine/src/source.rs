//! Source addresses of replicas: whose address and port a copied connection bears.

use std::net::IpAddr;

use millrace_wire::Endpoint;

/// Ports that may stand in for a client's own, first and last. Privileged ports stay out: a
/// service may treat them in another way.
const SUBSTITUTE_PORTS: (u16, u16) = (1024, 65_535);
/// Candidates that are tried before an address counts as used up. The probability that so many
/// random ports of a nine-tenths full address are all taken is about one in a million.
const CANDIDATES: u32 = 128;

/// The addresses that replicas may bear.
#[derive(Clone, Debug, Default)]
pub enum SourcePool {
    /// The clients' own.
    #[default]
    Clients,
    /// Ranges of addresses, first and last included, both of one family each.
    Ranges(Vec<(IpAddr, IpAddr)>),
}

impl SourcePool {
    /// How many addresses of the family of `like` there are; 0 for [`SourcePool::Clients`].
    pub fn len(&self, like: &IpAddr) -> u128 {
        self.ranges(like)
            .map(|(first, last)| last - first + 1)
            .fold(0, u128::saturating_add)
    }

    /// Whether there is no address of the family of `like`.
    pub fn is_empty(&self, like: &IpAddr) -> bool {
        self.len(like) == 0
    }

    fn ranges(&self, like: &IpAddr) -> impl Iterator<Item = (u128, u128)> {
        let ranges = match self {
            Self::Clients => &[][..],
            Self::Ranges(ranges) => ranges.as_slice(),
        };
        let v4 = like.is_ipv4();
        ranges
            .iter()
            .filter(move |(first, last)| first.is_ipv4() == v4 && last.is_ipv4() == v4)
            .map(|(first, last)| (number(*first), number(*last)))
            .filter(|(first, last)| first <= last)
    }

    /// The `n`-th address of the family of `like`.
    fn nth(&self, like: &IpAddr, mut n: u128) -> Option<IpAddr> {
        for (first, last) in self.ranges(like) {
            let size = last - first + 1;
            if n < size {
                return Some(address(first + n, like));
            }
            n -= size;
        }
        None
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn address(number: u128, like: &IpAddr) -> IpAddr {
    match like {
        // The number came from an IPv4 range, so it fits.
        IpAddr::V4(_) => IpAddr::V4((number as u32).into()),
        IpAddr::V6(_) => IpAddr::V6(number.into()),
    }
}

/// Chooses a source for a replica of `client` towards a target of the family of `target`.
///
/// The client's own port is kept where it is free, since that makes a replica easy to find in a
/// capture at the target. `hash` spreads clients over the pool and seeds the search for a free
/// port; `free` says whether a source is unused towards the target. `None` when the space is used
/// up, or when the client's address family is not the target's and there is no pool.
pub(crate) fn choose(
    pool: &SourcePool,
    client: Endpoint,
    target: &IpAddr,
    hash: u64,
    mut free: impl FnMut(Endpoint) -> bool,
) -> Option<Endpoint> {
    let count = pool.len(target);
    let own = matches!(pool, SourcePool::Clients);
    if (own && client.ip.is_ipv4() != target.is_ipv4()) || (!own && count == 0) {
        return None;
    }
    let (low, high) = SUBSTITUTE_PORTS;
    let ports = u64::from(high - low) + 1;
    let mut state = hash;
    for attempt in 0..CANDIDATES {
        let ip = if own {
            client.ip
        } else {
            pool.nth(target, u128::from(state) % count)?
        };
        let port = if attempt == 0 {
            client.port
        } else {
            // Less than 65,536 by the modulus.
            low + ((state >> 32) % ports) as u16
        };
        let candidate = Endpoint::new(ip, port);
        if free(candidate) {
            return Some(candidate);
        }
        state = split_mix(state);
    }
    None
}

/// One step of the SplitMix64 generator.
const fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    fn v4(n: u8) -> IpAddr {
        Ipv4Addr::new(198, 18, 0, n).into()
    }

    #[test]
    fn a_client_keeps_its_port_while_it_is_free() {
        let client = Endpoint::new(v4(1), 40_000);
        assert_eq!(
            choose(&SourcePool::Clients, client, &v4(9), 7, |_| true),
            Some(client)
        );
        let other = choose(&SourcePool::Clients, client, &v4(9), 7, |e| e != client).unwrap();
        assert_eq!(other.ip, client.ip);
        assert!(other.port != client.port && other.port >= 1024);
    }

    #[test]
    fn families_are_not_mixed() {
        let client = Endpoint::new("2001:db8::1".parse().unwrap(), 40_000);
        assert_eq!(
            choose(&SourcePool::Clients, client, &v4(9), 7, |_| true),
            None
        );
        let pool = SourcePool::Ranges(vec![(v4(10), v4(12))]);
        let source = choose(&pool, client, &v4(9), 7, |_| true).unwrap();
        assert!(source.ip >= v4(10) && source.ip <= v4(12));
    }

    #[test]
    fn a_pool_is_filled_without_a_collision_until_it_is_nearly_full() {
        let pool = SourcePool::Ranges(vec![(v4(10), v4(11))]);
        let mut used = HashSet::new();
        for i in 0..110_000u64 {
            let client = Endpoint::new(v4(1), 40_000);
            let hash = split_mix(i);
            let source = choose(&pool, client, &v4(9), hash, |e| !used.contains(&e)).unwrap();
            assert!(used.insert(source));
        }
    }
}
