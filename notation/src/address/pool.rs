//! `-c`: the client pool, kept as ranges, so that a whole IPv6 prefix costs as much as one address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::{AddressError, parse_ip};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `ip`.
    pub fn of(ip: IpAddr) -> Family {
        match ip {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// All addresses from the first to the last, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The range from `first` to `last`.
    ///
    /// # Errors
    /// When the families differ, or `last` comes before `first`.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<AddressRange, AddressError> {
        if Family::of(first) != Family::of(last) {
            return Err(AddressError::new(format!(
                "{first}-{last} goes from one address family to the other"
            )));
        }
        if first > last {
            return Err(AddressError::new(format!(
                "{first}-{last} is backwards: write {last}-{first}"
            )));
        }
        Ok(AddressRange { first, last })
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.last
    }

    /// The family of both.
    pub fn family(&self) -> Family {
        Family::of(self.first)
    }

    /// How many addresses; `u128::MAX` for all of IPv6, which is one less than there are.
    pub fn count(&self) -> u128 {
        (number(self.last) - number(self.first)).saturating_add(1)
    }

    /// Whether `ip` is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        Family::of(ip) == self.family() && self.first <= ip && ip <= self.last
    }

    /// The address `index` places after the first.
    pub fn nth(&self, index: u128) -> Option<IpAddr> {
        let value = number(self.first).checked_add(index)?;
        if value > number(self.last) {
            return None;
        }
        match self.family() {
            Family::V4 => u32::try_from(value)
                .ok()
                .map(|it| Ipv4Addr::from(it).into()),
            Family::V6 => Some(Ipv6Addr::from(value).into()),
        }
    }

    fn overlaps(&self, other: &AddressRange) -> bool {
        self.family() == other.family() && self.first <= other.last && other.first <= self.last
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Source addresses given to replicas in place of the clients' own.
///
/// Written as a list of: an address; `a.b.c.x` (all of 1 to 254 in the place of x, as TCPCopy has
/// it); a prefix `a.b.c.0/24` or `2001:db8::/64` (without the network and broadcast addresses of
/// IPv4 and the router anycast address of IPv6, which are no sources); a range `first-last`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPool {
    ranges: Vec<AddressRange>,
}

impl ClientPool {
    /// The ranges in the order given; at least one, none overlapping.
    pub fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// How many addresses of one family the pool holds (saturating).
    pub fn count(&self, family: Family) -> u128 {
        let of_family = self.ranges.iter().filter(|range| range.family() == family);
        of_family.fold(0, |sum: u128, range| sum.saturating_add(range.count()))
    }

    /// The address with number `index` among those of one family, in the order given.
    pub fn nth(&self, family: Family, mut index: u128) -> Option<IpAddr> {
        for range in self.ranges.iter().filter(|range| range.family() == family) {
            match index.checked_sub(range.count()) {
                None => return range.nth(index),
                Some(rest) => index = rest,
            }
        }
        None
    }

    /// Whether `ip` is in the pool.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }
}

impl FromStr for ClientPool {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut ranges: Vec<AddressRange> = Vec::new();
        for item in text.split(',') {
            let range = parse_item(item.trim())?;
            check_sources(&range)?;
            if let Some(other) = ranges.iter().find(|other| other.overlaps(&range)) {
                return Err(AddressError::new(format!(
                    "{other} and {range} overlap: give each address once"
                )));
            }
            ranges.push(range);
        }
        Ok(ClientPool { ranges })
    }
}

impl fmt::Display for ClientPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

fn parse_item(text: &str) -> Result<AddressRange, AddressError> {
    if let Some(prefix) = text.strip_suffix(".x") {
        let first = parse_ip(&format!("{prefix}.1"))?;
        let last = parse_ip(&format!("{prefix}.254"))?;
        return AddressRange::new(first, last);
    }
    if let Some((network, length)) = text.split_once('/') {
        return parse_prefix(text, parse_ip(network)?, length);
    }
    if let Some((first, last)) = text.split_once('-') {
        return AddressRange::new(parse_ip(first.trim())?, parse_ip(last.trim())?);
    }
    let ip = parse_ip(text)?;
    AddressRange::new(ip, ip)
}

fn parse_prefix(text: &str, network: IpAddr, length: &str) -> Result<AddressRange, AddressError> {
    let bits: u32 = match Family::of(network) {
        Family::V4 => 32,
        Family::V6 => 128,
    };
    let digits = length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length
        .parse()
        .ok()
        .filter(|it: &u32| digits && (1..=bits).contains(it));
    let length = length.ok_or_else(|| {
        AddressError::new(format!(
            "'{text}': a prefix length is a number from 1 to {bits}"
        ))
    })?;
    let host_bits = bits - length;
    // Shifting all 128 bits away is not a shift; length 0 is refused above.
    let mask = (1u128 << host_bits).wrapping_sub(1);
    let value = number(network);
    let address = |value: u128| match Family::of(network) {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(value).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(value)),
    };
    if value & mask != 0 {
        return Err(AddressError::new(format!(
            "'{text}' has bits set behind its prefix: write {}/{length}",
            address(value & !mask)
        )));
    }
    let (mut first, mut last) = (value, value | mask);
    if host_bits >= 2 {
        // Network address (RFC 1122, 3.2.1.3) or subnet-router anycast address (RFC 4291, 2.6.1).
        first += 1;
        if bits == 32 {
            last -= 1;
        }
    }
    AddressRange::new(address(first), address(last))
}

/// Refuses what no stack accepts as a source address: RFC 1122, 3.2.1.3; RFC 4291, 2.5.2 and 2.7.
fn check_sources(range: &AddressRange) -> Result<(), AddressError> {
    let blocks: &[(IpAddr, IpAddr)] = match range.family() {
        Family::V4 => &[
            (
                IpAddr::V4(Ipv4Addr::new(0, 0, 0, 0)),
                IpAddr::V4(Ipv4Addr::new(0, 255, 255, 255)),
            ),
            (
                IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)),
                IpAddr::V4(Ipv4Addr::BROADCAST),
            ),
        ],
        Family::V6 => &[
            (
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ),
            (
                IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)),
                IpAddr::V6(Ipv6Addr::from(u128::MAX)),
            ),
        ],
    };
    for (first, last) in blocks {
        let block = AddressRange::new(*first, *last)?;
        if block.overlaps(range) {
            return Err(AddressError::new(format!(
                "{range} holds addresses that cannot be a client ({block})"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pool(text: &str) -> ClientPool {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_gives_its_addresses() {
        for (text, shown, v4, v6) in [
            ("198.18.1.7", "198.18.1.7", 1, 0),
            ("198.18.1.x", "198.18.1.1-198.18.1.254", 254, 0),
            ("198.18.1.0/24", "198.18.1.1-198.18.1.254", 254, 0),
            ("198.18.1.4/31", "198.18.1.4-198.18.1.5", 2, 0),
            ("198.18.1.4/32", "198.18.1.4", 1, 0),
            ("198.18.1.4-198.18.1.9", "198.18.1.4-198.18.1.9", 6, 0),
            ("198.18.1.1, 198.18.1.3", "198.18.1.1,198.18.1.3", 2, 0),
            ("2001:db8::1", "2001:db8::1", 0, 1),
            (
                "2001:db8::/64",
                "2001:db8::1-2001:db8::ffff:ffff:ffff:ffff",
                0,
                (1 << 64) - 1,
            ),
            (
                "198.18.1.1,2001:db8::1-2001:db8::a",
                "198.18.1.1,2001:db8::1-2001:db8::a",
                1,
                10,
            ),
        ] {
            let pool = pool(text);
            assert_eq!(pool.to_string(), shown);
            assert_eq!(
                (pool.count(Family::V4), pool.count(Family::V6)),
                (v4, v6),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_are_counted_through_the_ranges_of_one_family() {
        let pool = pool("198.18.1.1-198.18.1.2,2001:db8::5,198.18.1.9");
        let v4: Vec<_> = (0..4)
            .map(|n| pool.nth(Family::V4, n).map(|ip| ip.to_string()))
            .collect();
        let expected = [
            Some("198.18.1.1"),
            Some("198.18.1.2"),
            Some("198.18.1.9"),
            None,
        ];
        assert_eq!(
            v4.iter().map(Option::as_deref).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(
            pool.nth(Family::V6, 0),
            Some("2001:db8::5".parse().unwrap())
        );
        assert_eq!(pool.nth(Family::V6, 1), None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("", "is missing"),
            ("198.18.1.1,", "is missing"),
            ("198.18.x.x", "host names are not accepted"),
            ("198.18.1.5/24", "write 198.18.1.0/24"),
            ("198.18.1.0/33", "from 1 to 32"),
            ("198.18.1.0/0", "from 1 to 32"),
            ("2001:db8::/+64", "from 1 to 128"),
            ("198.18.1.9-198.18.1.1", "write 198.18.1.1-198.18.1.9"),
            ("198.18.1.1-2001:db8::1", "one address family to the other"),
            ("198.18.1.0/24,198.18.1.7", "overlap"),
            ("198.18.1.1-9", "not an IPv4 address"),
            ("0.0.0.0", "cannot be a client"),
            ("224.0.0.0/8", "cannot be a client"),
            ("255.255.255.255", "cannot be a client"),
            ("ff02::1", "cannot be a client"),
            ("::", "cannot be a client"),
            ("pool.example", "host names are not accepted"),
        ] {
            let error = text
                .parse::<ClientPool>()
                .map_err(|error| error.to_string());
            assert!(
                error.clone().is_err_and(|it| it.contains(message)),
                "{text}: {error:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails(text in "[-0-9a-f.:,/ x]{0,50}") {
            if let Ok(pool) = text.parse::<ClientPool>() {
                prop_assert_eq!(pool.to_string().parse::<ClientPool>().unwrap(), pool);
            }
        }

        #[test]
        fn a_prefix_holds_its_addresses_and_no_other(value in any::<u32>(), length in 1u32..=32, probe in any::<u32>()) {
            let mask = u32::MAX << (32 - length);
            let network = Ipv4Addr::from(value & mask);
            prop_assume!(!(network.octets()[0] == 0 || network.octets()[0] >= 128));
            let text = format!("{network}/{length}");
            let parsed = text.parse::<ClientPool>();
            prop_assume!(parsed.is_ok());
            let pool = parsed.unwrap();
            let edge = length <= 30 && (probe & !mask == 0 || probe & !mask == !mask);
            let inside = probe & mask == u32::from(network) && !edge;
            prop_assert_eq!(pool.contains(Ipv4Addr::from(probe).into()), inside);
        }

        #[test]
        fn every_number_up_to_the_count_is_an_address_of_the_pool(
            first in 0x0100_0000u32..0xdf00_0000,
            length in 0u32..1000,
            index in 0u128..2000,
        ) {
            let (first, last) = (Ipv4Addr::from(first), Ipv4Addr::from(first + length));
            let pool = pool(&format!("{first}-{last}"));
            let found = pool.nth(Family::V4, index);
            prop_assert_eq!(found.is_some(), index < pool.count(Family::V4));
            prop_assert!(found.is_none_or(|ip| pool.contains(ip)));
        }
    }
}
