//! The part of address and port space that is this copier's own (`-f`).
//!
//! Copiers of one target must not give out the same source. Interceptors sort that out for those
//! that share one, at the price of refused claims and moved replicas; a share each avoids it.
//! Share K of N of a pool is every N-th part of its addresses, with all their ports. A pool with
//! fewer addresses than shares is divided by ports too: each address is divided among the shares
//! that fall on it. Without a pool, where the clients' own addresses are kept, every address is
//! divided by ports among all shares. There an *instance*, TCPCopy's number alone, prefers its share
//! and goes on outside when that is used up, since one of 1024 shares is 63 ports of each client.

use std::net::IpAddr;

use super::pool::{self, SourcePool};

/// Ports that may stand in for a client's own, first and last. Privileged ports stay out: a
/// service may treat them in another way.
const SUBSTITUTE_PORTS: (u16, u16) = (1024, 65_535);
/// The most shares: TCPCopy's instances.
pub(super) const MAX_SHARES: u16 = 1024;

/// One of several equal, disjoint parts of the space of sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    index: u16,
    of: u16,
    /// Whether ports outside may be used when those inside are in use, if no claim says whose they are.
    prefers: bool,
}

impl Share {
    /// Share number `index` (from 0) of `of`; `None` unless `index < of <= 1024`.
    pub fn new(index: u16, of: u16) -> Option<Self> {
        (index < of && of <= MAX_SHARES).then_some(Self {
            index,
            of,
            prefers: false,
        })
    }

    /// Share number `index` of 1024, of which only a pool is divided strictly: where clients keep their own addresses,
    /// its ports are preferred. `None` unless `index < 1024`.
    pub fn instance(index: u16) -> Option<Self> {
        let share = Self::new(index, MAX_SHARES)?;
        Some(Self {
            prefers: true,
            ..share
        })
    }

    /// Its number, from 0.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// How many shares there are.
    pub const fn of(self) -> u16 {
        self.of
    }
}

/// A block of ports, first and last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Block {
    /// How many ports.
    pub fn len(self) -> u32 {
        (u32::from(self.last) + 1).saturating_sub(u32::from(self.first))
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether this is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// Part number `index` of `of` equal parts; what does not divide is nobody's.
    fn part(self, index: u16, of: u16) -> Self {
        let size = self.len() / u32::from(of.max(1));
        let first = u32::from(self.first) + size * u32::from(index);
        // Inside the block, so below 65,536.
        Self {
            first: first as u16,
            last: (first + size.max(1) - 1) as u16,
        }
    }
}

/// Every port of the block at every address from the first to the last.
pub type Sources = (IpAddr, IpAddr, Block);

/// What a share can hold towards one target at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Addresses of the share; `None`: the clients' own.
    pub addresses: Option<u128>,
    /// Replicas from each address.
    pub per_address: u32,
}

/// The sources of one address family that a copier may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    /// Addresses; `None`: the clients' own.
    addresses: Option<Vec<(IpAddr, IpAddr)>>,
    count: u128,
    /// Ports that may stand in for a client's own.
    block: Block,
    /// Whether ports outside the block belong to others.
    confined: bool,
    /// Ports that may be used when those of the block are in use.
    beyond: Option<Block>,
    /// Parts of it that are yielded: ports of some addresses.
    yielded: Vec<Sources>,
}

impl Space {
    /// What of `pool` belongs to `share` (to one copier alone without one), for targets of the
    /// family of `like`.
    pub fn new(pool: &SourcePool, share: Option<Share>, like: &IpAddr) -> Self {
        let (first, last) = SUBSTITUTE_PORTS;
        let all = Block { first, last };
        let share = share.filter(|share| share.of > 1);
        let (index, of) = share.map_or((0, 1), |share| (share.index, share.of));
        if matches!(pool, SourcePool::Clients) {
            return Self {
                addresses: None,
                count: 0,
                block: all.part(index, of),
                confined: share.is_some(),
                beyond: share.filter(|share| share.prefers).map(|_| all),
                yielded: Vec::new(),
            };
        }
        let count = pool.len(like);
        let starts = |index: u16| part_start(count, index, of);
        let (from, to) = (starts(index), starts(index + 1));
        if count >= u128::from(of) {
            return Self {
                addresses: Some(pool.slice(like, from, to - from)),
                count: to - from,
                block: all,
                confined: false,
                beyond: None,
                yielded: Vec::new(),
            };
        }
        // Fewer addresses than shares: those that begin on this address divide its ports.
        let sharers = |other: &u16| starts(*other) == from;
        let first = (0..of).find(sharers).unwrap_or(index);
        let among = (0..of).filter(sharers).count() as u16;
        let addresses = pool.slice(like, from, 1);
        Self {
            count: addresses.len() as u128,
            addresses: Some(addresses),
            block: all.part(index - first, among),
            confined: true,
            beyond: None,
            yielded: Vec::new(),
        }
    }

    /// What it can hold towards one target.
    pub fn capacity(&self) -> Capacity {
        Capacity {
            addresses: self.addresses.is_some().then_some(self.count),
            per_address: self.beyond.unwrap_or(self.block).len(),
        }
    }

    /// How many ports of each address are used before others; `None`: those are all.
    pub fn preferred(&self) -> Option<u32> {
        self.beyond.map(|_| self.block.len())
    }

    /// The blocks of sources that no other share has: addresses, first and last, and the ports of
    /// each. Empty for the clients' own addresses.
    pub fn blocks(&self) -> impl Iterator<Item = Sources> {
        let ports = self.ports();
        self.addresses
            .iter()
            .flatten()
            .map(move |(first, last)| (*first, *last, ports))
    }

    /// Every port that may be used.
    fn ports(&self) -> Block {
        if self.confined {
            self.block
        } else {
            // A client's own port is kept where it is free, whichever that is.
            Block {
                first: 1,
                last: u16::MAX,
            }
        }
    }

    /// What remains where these sources are yielded. The clients' own addresses are never yielded.
    pub(super) fn without(&self, others: &[Sources]) -> Self {
        let mut rest = self.clone();
        let Some(addresses) = &mut rest.addresses else {
            return rest;
        };
        let ports = self.ports();
        for (first, last, block) in others {
            if block.contains(ports.first) && block.contains(ports.last) {
                *addresses = pool::without(addresses, (*first, *last));
            } else {
                rest.yielded.push((*first, *last, *block));
            }
        }
        // An address of which every port is yielded, piece by piece, is yielded as a whole.
        let singles: Vec<IpAddr> = rest
            .yielded
            .iter()
            .filter(|(a, b, _)| a == b)
            .map(|it| it.0)
            .collect();
        for ip in singles {
            let mut blocks: Vec<Block> = rest.yielded_of(&ip).collect();
            blocks.sort_unstable_by_key(|block| block.first);
            let open =
                blocks
                    .iter()
                    .try_fold(ports.first, |next, block| match block.first <= next {
                        true => Some(next.max(block.last.checked_add(1)?)),
                        false => Some(next),
                    });
            if open.is_none_or(|next| next > ports.last)
                && let Some(addresses) = &mut rest.addresses
            {
                *addresses = pool::without(addresses, (ip, ip));
            }
        }
        rest.count = rest.addresses.as_deref().map_or(0, pool::count);
        rest
    }

    /// The blocks of this address that are yielded.
    fn yielded_of(&self, ip: &IpAddr) -> impl Iterator<Item = Block> {
        let holds = move |(first, last, _): &&Sources| {
            first.is_ipv4() == ip.is_ipv4() && (first..=last).contains(&ip)
        };
        self.yielded
            .iter()
            .filter(holds)
            .map(|(_, _, block)| *block)
    }

    /// Whether this source is yielded.
    pub(super) fn is_yielded(&self, ip: &IpAddr, port: u16) -> bool {
        !self.yielded.is_empty() && self.yielded_of(ip).any(|block| block.contains(port))
    }

    /// Whether replicas bear their clients' addresses.
    pub(super) const fn keeps_clients(&self) -> bool {
        self.addresses.is_none()
    }

    /// How many addresses there are; 0 for the clients' own.
    pub(super) const fn count(&self) -> u128 {
        self.count
    }

    /// The address with this number.
    pub(super) fn nth(&self, n: u128) -> Option<IpAddr> {
        pool::nth(self.addresses.as_deref()?, n)
    }

    /// Ports that may stand in for a client's own.
    pub(super) const fn block(&self) -> Block {
        self.block
    }

    /// Ports that may be used when those of the block are in use.
    pub(super) const fn beyond(&self) -> Option<Block> {
        self.beyond
    }

    /// Whether a client's own port may be kept.
    pub(super) const fn allows(&self, port: u16) -> bool {
        !self.confined || self.block.contains(port)
    }
}

/// Where part number `index` of `of` begins: `count * index / of`, without overflow.
fn part_start(count: u128, index: u16, of: u16) -> u128 {
    let (index, of) = (u128::from(index), u128::from(of.max(1)));
    count / of * index + count % of * index / of
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from(0xc612_0000 + n).into()
    }

    fn pool(addresses: u32) -> SourcePool {
        SourcePool::Ranges(vec![(v4(1), v4(addresses))])
    }

    fn overlap(a: &Sources, b: &Sources) -> bool {
        a.0 <= b.1 && b.0 <= a.1 && a.2.first <= b.2.last && b.2.first <= a.2.last
    }

    #[test]
    fn without_a_share_everything_is_ones_own() {
        let space = Space::new(&pool(10), None, &v4(0));
        assert_eq!(
            space.capacity(),
            Capacity {
                addresses: Some(10),
                per_address: 64_512
            }
        );
        assert!(space.allows(80));
        let clients = Space::new(&SourcePool::Clients, None, &v4(0));
        assert_eq!(
            clients.capacity(),
            Capacity {
                addresses: None,
                per_address: 64_512
            }
        );
    }

    #[test]
    fn a_share_of_the_clients_own_addresses_is_a_block_of_ports() {
        let space = |k| Space::new(&SourcePool::Clients, Share::new(k, 1024), &v4(0));
        assert_eq!(
            space(0).block(),
            Block {
                first: 1024,
                last: 1086
            }
        );
        assert_eq!(
            space(1023).block(),
            Block {
                first: 65_473,
                last: 65_535
            }
        );
        assert!(!space(0).allows(80));
        assert!(space(0).allows(1030) && !space(1).allows(1030));
    }

    #[test]
    fn a_pool_with_fewer_addresses_than_shares_is_divided_by_ports_too() {
        let space = Space::new(&pool(2), Share::new(1, 4), &v4(0));
        let blocks: Vec<_> = space.blocks().collect();
        assert_eq!(
            blocks,
            [(
                v4(1),
                v4(1),
                Block {
                    first: 33_280,
                    last: 65_535
                }
            )]
        );
    }

    #[test]
    fn the_whole_of_ipv6_is_divided_too() {
        let all = (
            Ipv6Addr::UNSPECIFIED.into(),
            Ipv6Addr::from(u128::MAX).into(),
        );
        let like = Ipv6Addr::LOCALHOST.into();
        let space = Space::new(
            &SourcePool::Ranges(vec![all]),
            Share::new(1023, 1024),
            &like,
        );
        assert!(space.capacity().addresses > Some(1 << 117));
        assert!(space.nth(5).is_some());
    }

    #[test]
    fn an_instance_prefers_its_share_of_the_clients_ports_and_keeps_to_that_of_a_pool() {
        let clients = |share| Space::new(&SourcePool::Clients, share, &v4(0));
        let (strict, instance) = (clients(Share::new(1, 1024)), clients(Share::instance(1)));
        assert_eq!(strict.block(), instance.block());
        assert_eq!((strict.beyond(), strict.capacity().per_address), (None, 63));
        assert_eq!(instance.capacity().per_address, 64_512);
        assert!(!instance.allows(40_000), "a client's own port is another's");
        assert_eq!(
            Space::new(&pool(2), Share::instance(1), &v4(0)).beyond(),
            None
        );
        assert_eq!(Share::instance(1024), None);
    }

    #[test]
    fn what_is_yielded_is_whole_addresses_or_ports_of_some() {
        let space = Space::new(&pool(9), None, &v4(0));
        let all = Block {
            first: 1,
            last: u16::MAX,
        };
        let some = Block {
            first: 2000,
            last: 2999,
        };
        let rest = space.without(&[
            (v4(3), v4(4), all),
            (v4(9), v4(12), all),
            (v4(1), v4(1), some),
        ]);
        assert_eq!(rest.count(), 6);
        let addresses: Vec<_> = (0..7).map(|n| rest.nth(n)).collect();
        let expected = [1, 2, 5, 6, 7, 8].map(|n| Some(v4(n)));
        assert_eq!(addresses, [expected.as_slice(), &[None]].concat());
        assert!(rest.is_yielded(&v4(1), 2000) && rest.is_yielded(&v4(1), 2999));
        assert!(!rest.is_yielded(&v4(1), 3000) && !rest.is_yielded(&v4(2), 2000));
        let v6 = (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), all);
        assert_eq!(space.without(&[v6]).count(), 9);
        assert_eq!(space.without(&[(v4(0), v4(20), all)]).count(), 0);
        let (low, high) = (
            Block {
                first: 1,
                last: 33_279,
            },
            Block {
                first: 33_280,
                last: u16::MAX,
            },
        );
        let pieces = [
            (v4(5), v4(5), high),
            (v4(5), v4(5), low),
            (v4(6), v4(6), low),
        ];
        assert_eq!(space.without(&pieces).count(), 8);
        // A share of some ports of one address is gone when all of these are another's.
        let share = Space::new(&pool(1), Share::new(1, 4), &v4(0));
        let mine: Vec<_> = share.blocks().collect();
        assert_eq!(share.without(&mine).count(), 0);
    }

    proptest! {
        #[test]
        fn shares_are_disjoint_and_none_is_empty(
            addresses in 1..3000u32, of in 1..=1024u16, a in any::<u16>(), b in any::<u16>()
        ) {
            let pool = pool(addresses);
            let space = |k| Space::new(&pool, Share::new(k, of), &v4(0));
            let (a, b) = (a % of, b % of);
            let (mine, theirs): (Vec<_>, Vec<_>) = (space(a).blocks().collect(), space(b).blocks().collect());
            prop_assert!(!mine.is_empty() && mine.iter().all(|block| !block.2.is_empty()));
            if a != b {
                for one in &mine {
                    prop_assert!(theirs.iter().all(|other| !overlap(one, other)));
                }
            }
        }

        #[test]
        fn shares_by_ports_are_disjoint(of in 2..=1024u16, a in any::<u16>(), b in any::<u16>(), port in any::<u16>()) {
            let space = |k| Space::new(&SourcePool::Clients, Share::new(k, of), &v4(0));
            let (a, b) = (a % of, b % of);
            prop_assert!(space(a).block().len() >= 63);
            if a != b {
                prop_assert!(!(space(a).allows(port) && space(b).allows(port)));
            }
        }
    }
}
