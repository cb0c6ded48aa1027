//! The addresses that replicas may bear.

use std::net::IpAddr;

/// The addresses that replicas may bear.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
            .map(|(first, last)| size(first, last))
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

    /// The addresses from number `from` on, `count` of them, of the family of `like`, as ranges.
    pub(super) fn slice(&self, like: &IpAddr, from: u128, count: u128) -> Vec<(IpAddr, IpAddr)> {
        let (mut skip, mut left) = (from, count);
        let mut slice = Vec::new();
        for (first, last) in self.ranges(like) {
            let size = size(first, last);
            if skip >= size {
                skip -= size;
                continue;
            }
            let take = left.min(size - skip);
            if take == 0 {
                break;
            }
            let start = first + skip;
            slice.push((address(start, like), address(start + (take - 1), like)));
            left -= take;
            skip = 0;
        }
        slice
    }
}

/// How many addresses these ranges hold.
pub(super) fn count(ranges: &[(IpAddr, IpAddr)]) -> u128 {
    let sizes = ranges
        .iter()
        .map(|(first, last)| size(number(*first), number(*last)));
    sizes.fold(0, u128::saturating_add)
}

/// What remains of these ranges, all of one family, without the addresses from the first to the last of `cut`.
pub(super) fn without(ranges: &[(IpAddr, IpAddr)], cut: (IpAddr, IpAddr)) -> Vec<(IpAddr, IpAddr)> {
    let mut rest = Vec::new();
    for (first, last) in ranges {
        let same = first.is_ipv4() == cut.0.is_ipv4();
        if !same || cut.1 < *first || cut.0 > *last {
            rest.push((*first, *last));
            continue;
        }
        if cut.0 > *first {
            rest.push((*first, address(number(cut.0) - 1, first)));
        }
        if cut.1 < *last {
            rest.push((address(number(cut.1) + 1, first), *last));
        }
    }
    rest
}

/// The address with number `n` in these ranges, all of one family.
pub(super) fn nth(ranges: &[(IpAddr, IpAddr)], mut n: u128) -> Option<IpAddr> {
    for (first, last) in ranges {
        let size = size(number(*first), number(*last));
        if n < size {
            return Some(address(number(*first) + n, first));
        }
        n -= size;
    }
    None
}

/// How many addresses there are from the first to the last, as numbers.
const fn size(first: u128, last: u128) -> u128 {
    (last - first).saturating_add(1)
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
