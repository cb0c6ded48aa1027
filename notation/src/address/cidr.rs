//! Address prefixes, and the fewest of them that cover given ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::AddressError;

/// An address prefix (RFC 4632); the bits behind it are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    address: IpAddr,
    length: u8,
}

/// Bits of an address of the same family.
fn bits(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip).into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The address with this number, of the family of `like`.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from(number).into(),
    }
}

/// The low `count` bits.
fn low_bits(count: u8) -> u128 {
    u128::MAX
        .checked_shr(128 - u32::from(count.min(128)))
        .unwrap_or(0)
}

impl Cidr {
    /// The prefix of `length` bits of `address`.
    ///
    /// # Errors
    /// When there are not so many bits, or bits behind the prefix are set.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, AddressError> {
        let all = bits(address);
        if length > all {
            return Err(AddressError::new(format!(
                "{address}/{length}: a prefix length is a number from 0 to {all}"
            )));
        }
        let truncated = Self::truncated(address, length);
        if truncated.address != address {
            return Err(AddressError::new(format!(
                "{address}/{length} has bits set behind its prefix: write {truncated}"
            )));
        }
        Ok(truncated)
    }

    /// The prefix of `length` bits that holds `ip`; longer ones than there are bits are cut.
    pub fn truncated(ip: IpAddr, length: u8) -> Self {
        let length = length.min(bits(ip));
        let mask = !low_bits(bits(ip) - length);
        Self {
            address: address(number(ip) & mask, ip),
            length,
        }
    }

    /// One address.
    pub fn host(ip: IpAddr) -> Self {
        Self::truncated(ip, bits(ip))
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.address
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        let rest = low_bits(bits(self.address) - self.length);
        address(number(self.address) | rest, self.address)
    }

    /// First and last of its addresses that hosts have: all but the network and broadcast addresses
    /// of IPv4 (RFC 1122, 3.2.1.3) and the router anycast address of IPv6 (RFC 4291, 2.6.1), as
    /// [`super::ClientPool`] reads a prefix. Prefixes of one or two addresses are taken whole.
    pub fn hosts(&self) -> (IpAddr, IpAddr) {
        if bits(self.address) - self.length < 2 {
            return (self.first(), self.last());
        }
        let first = address(number(self.first()).saturating_add(1), self.address);
        let last = match self.last() {
            IpAddr::V4(_) => address(number(self.last()).saturating_sub(1), self.address),
            IpAddr::V6(last) => last.into(),
        };
        (first, last)
    }

    /// Length of the prefix in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether it is of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }

    /// Whether it is a single address.
    pub fn is_host(&self) -> bool {
        self.length == bits(self.address)
    }

    /// Whether `ip` is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_ipv4() && self.first() <= ip && ip <= self.last()
    }

    /// Whether any address is in both.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.length)
        }
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> String {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl FromStr for Cidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let (ip, length) = match text.split_once('/') {
            None => (parse_ip(text)?, None),
            Some((ip, length)) => (parse_ip(ip)?, Some(length)),
        };
        let Some(length) = length else {
            return Ok(Self::host(ip));
        };
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or_else(|| {
            AddressError::new(format!(
                "'{text}': a prefix length is a number from 0 to {}",
                bits(ip)
            ))
        })?;
        Self::new(ip, length)
    }
}

fn parse_ip(text: &str) -> Result<IpAddr, AddressError> {
    text.trim().parse().map_err(|_| {
        AddressError::new(format!(
            "'{text}' is not an IP address; host names are not accepted here"
        ))
    })
}

/// Parses a list of addresses, prefixes, `a.b.c.x` (1 to 254 in the place of x) and ranges
/// `FIRST-LAST`, separated by commas, into the fewest prefixes that cover it.
///
/// # Errors
/// One line that says what to write instead.
pub fn parse_list(text: &str) -> Result<Vec<Cidr>, AddressError> {
    let ranges = text
        .split(',')
        .map(|item| parse_range(item.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(cover(&ranges))
}

fn parse_range(text: &str) -> Result<(IpAddr, IpAddr), AddressError> {
    if let Some(prefix) = text.strip_suffix(".x") {
        let at = |last: &str| parse_ip(&format!("{prefix}.{last}"));
        return Ok((at("1")?, at("254")?));
    }
    let Some((first, last)) = text.split_once('-') else {
        let cidr: Cidr = text.parse()?;
        return Ok((cidr.first(), cidr.last()));
    };
    let (first, last) = (parse_ip(first)?, parse_ip(last)?);
    if first.is_ipv4() != last.is_ipv4() {
        return Err(AddressError::new(format!(
            "'{text}' goes from one address family to the other"
        )));
    }
    if first > last {
        return Err(AddressError::new(format!(
            "'{text}' is backwards: write {last}-{first}"
        )));
    }
    Ok((first, last))
}

/// The fewest prefixes that hold exactly the addresses of the ranges (first and last each, of one
/// family). Sorted, IPv4 first. A range that is backwards or mixed is left out.
pub fn cover(ranges: &[(IpAddr, IpAddr)]) -> Vec<Cidr> {
    let mut sorted: Vec<(IpAddr, IpAddr)> = ranges
        .iter()
        .copied()
        .filter(|(first, last)| first.is_ipv4() == last.is_ipv4() && first <= last)
        .collect();
    sorted.sort_unstable();
    let mut merged: Vec<(IpAddr, IpAddr)> = Vec::with_capacity(sorted.len());
    for (first, last) in sorted {
        match merged.last_mut() {
            Some((start, end))
                if start.is_ipv4() == first.is_ipv4()
                    && number(first) <= number(*end).saturating_add(1) =>
            {
                *end = (*end).max(last);
            }
            Some(_) | None => merged.push((first, last)),
        }
    }
    let mut cidrs = Vec::new();
    for (first, last) in merged {
        split(first, last, &mut cidrs);
    }
    cidrs
}

/// Cuts a range into prefixes, each as large as its start and the rest allow.
fn split(first: IpAddr, last: IpAddr, into: &mut Vec<Cidr>) {
    let all = bits(first);
    let end = number(last);
    let mut start = number(first);
    loop {
        let aligned = u8::try_from(start.trailing_zeros()).unwrap_or(all).min(all);
        let fits = |host_bits: u8| {
            start
                .checked_add(low_bits(host_bits))
                .is_some_and(|block_end| block_end <= end)
        };
        let host_bits = (0..=aligned).rev().find(|count| fits(*count)).unwrap_or(0);
        into.push(Cidr::truncated(address(start, first), all - host_bits));
        match (start | low_bits(host_bits)).checked_add(1) {
            Some(next) if next <= end => start = next,
            Some(_) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let cidrs = parse_list(text).unwrap();
        cidrs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ranges_become_the_fewest_prefixes() {
        assert_eq!(shown("198.18.0.0-198.18.0.255"), ["198.18.0.0/24"]);
        assert_eq!(shown("198.18.0.0/25,198.18.0.128/25"), ["198.18.0.0/24"]);
        assert_eq!(shown("198.18.0.1-198.18.0.2"), ["198.18.0.1", "198.18.0.2"]);
        assert_eq!(shown("198.18.0.x").len(), 14);
        assert_eq!(shown("0.0.0.0/1,128.0.0.0/1"), ["0.0.0.0/0"]);
        assert_eq!(shown("::/0,0.0.0.0/0"), ["0.0.0.0/0", "::/0"]);
        assert_eq!(
            shown("2001:db8::-2001:db8::ffff,198.18.0.7"),
            ["198.18.0.7", "2001:db8::/112"]
        );
        assert_eq!(shown("255.255.255.255"), ["255.255.255.255"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("198.18.0.1/24", "write 198.18.0.0/24"),
            ("198.18.0.0/33", "from 0 to 32"),
            ("198.18.0.0/+8", "from 0 to 32"),
            ("rs1", "not an IP address"),
            ("198.18.0.9-198.18.0.1", "backwards"),
            ("198.18.0.9-::1", "other"),
            ("", "not an IP address"),
        ] {
            let error = parse_list(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_cover_holds_what_the_ranges_hold_and_nothing_else(
            ranges in prop::collection::vec((any::<u8>(), any::<u8>()), 1..6),
            probe in any::<u8>(),
        ) {
            let at = |n: u8| IpAddr::from([198, 18, 0, n]);
            let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| (at(a.min(b)), at(a.max(b)))).collect();
            let cidrs = cover(&ranges);
            let ip = at(probe);
            let in_ranges = ranges.iter().any(|(first, last)| *first <= ip && ip <= *last);
            prop_assert_eq!(cidrs.iter().filter(|it| it.contains(ip)).count(), usize::from(in_ranges));
            // No two neighbours are halves of one larger prefix.
            for pair in cidrs.windows(2) {
                let [a, b] = pair else { continue };
                let merge = a.length() == b.length()
                    && Cidr::truncated(a.first(), a.length() - 1) == Cidr::truncated(b.first(), b.length() - 1);
                prop_assert!(!merge, "{} and {}", a, b);
            }
        }

        #[test]
        fn any_text_parses_or_fails(text in "\\PC{0,40}") {
            if let Ok(cidr) = text.parse::<Cidr>() {
                prop_assert_eq!(cidr.to_string().parse::<Cidr>().unwrap(), cidr);
            }
        }

        #[test]
        fn any_range_of_ipv6_is_covered_from_end_to_end(a in any::<u128>(), b in any::<u128>()) {
            let (first, last) = (Ipv6Addr::from(a.min(b)).into(), Ipv6Addr::from(a.max(b)).into());
            let cidrs = cover(&[(first, last)]);
            prop_assert_eq!(cidrs.first().unwrap().first(), first);
            prop_assert_eq!(cidrs.last().unwrap().last(), last);
            prop_assert!(cidrs.len() <= 254);
        }
    }
}
