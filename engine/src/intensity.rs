//! How much is copied: one number, and which sessions that means.
//!
//! Every session has a place from 0 to 1, a keyed hash of its client's address and port. At an
//! intensity of `i` it gets as many replicas as there are whole numbers `k` with
//! `k + place < i`: at 0.2 one session in five gets one, at 2.5 every session gets two and every
//! second one a third. So what is copied at a low intensity is copied at every higher one too,
//! and copiers with one key agree on it, today and after a restart. The hash is keyed because
//! clients choose their own ports: with a key that they do not know they cannot choose whether
//! they are copied.

use std::fmt;
use std::hash::Hasher;
use std::net::IpAddr;
use std::str::FromStr;

use millrace_wire::{Endpoint, FourTuple};
use siphasher::sip::SipHasher24;

/// Parts of one.
const UNIT: u32 = 1_000_000;
/// The highest intensity, as TCPCopy's `-n`.
const MAX: u32 = 1023;

/// Replicas per session, from 0 to 1023 in steps of a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Intensity(u32);

/// The key of the hash that chooses sessions.
pub type IntensityKey = [u8; 16];

impl Intensity {
    /// Replicas of one session at the highest intensity.
    pub const MOST_REPLICAS: u16 = MAX as u16;
    /// Nothing new is copied.
    pub const ZERO: Self = Self(0);
    /// Every session once.
    pub const ONE: Self = Self(UNIT);
    /// The highest: 1023 replicas of each session.
    pub const MAX: Self = Self(MAX * UNIT);

    /// So many replicas of each session; more than 1023 counts as 1023.
    pub fn replicas(count: u16) -> Self {
        Self(u32::from(count).min(MAX) * UNIT)
    }

    /// The nearest intensity to a number; what lies outside 0..=1023 counts as the nearest bound,
    /// and what is no number as 0.
    pub fn from_ratio(ratio: f64) -> Self {
        // A cast of a float saturates, and gives 0 for what is not a number.
        let millionths = (ratio * f64::from(UNIT)).round() as u32;
        Self(millionths.min(Self::MAX.0))
    }

    /// As a number.
    pub fn as_ratio(self) -> f64 {
        f64::from(self.0) / f64::from(UNIT)
    }

    /// How many replicas a session with this place gets.
    pub(crate) fn copies(self, place: Place) -> u16 {
        // At most 1023, and one more.
        (self.0 / UNIT) as u16 + u16::from(place.0 < self.0 % UNIT)
    }
}

impl Default for Intensity {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Intensity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_ratio())
    }
}

/// A text that is no intensity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is not an intensity: write a number from 0 to 1023 such as 0.2 or 2.5, or percent \
     such as 20% or 250%"
)]
pub struct NotAnIntensity(String);

impl FromStr for Intensity {
    type Err = NotAnIntensity;

    /// A decimal number, or one with `%` behind it.
    fn from_str(text: &str) -> Result<Self, NotAnIntensity> {
        let wrong = || NotAnIntensity(text.to_owned());
        let (digits, divisor) = match text.strip_suffix('%') {
            Some(percent) => (percent, 100.0),
            None => (text, 1.0),
        };
        // What f64 reads besides ("inf", "1e3", "+1") is not what people write here.
        let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
        if digits.is_empty() || !digits.bytes().all(plain) {
            return Err(wrong());
        }
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        let ratio = number / divisor;
        if ratio > f64::from(MAX) {
            return Err(wrong());
        }
        Ok(Self::from_ratio(ratio))
    }
}

/// The place of a session among all that there could be, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place(u32);

impl Place {
    /// The place of this client's session.
    pub(crate) fn of(key: &IntensityKey, client: Endpoint) -> Self {
        let mut hasher = SipHasher24::new_with_key(key);
        write(&mut hasher, client);
        Self::at(&hasher)
    }

    /// The place of one connection of a client: of its session as it is sampled.
    pub(crate) fn of_flow(key: &[u8; 16], flow: &FourTuple) -> Self {
        let mut hasher = SipHasher24::new_with_key(key);
        write(&mut hasher, flow.source);
        write(&mut hasher, flow.destination);
        Self::at(&hasher)
    }

    fn at(hasher: &SipHasher24) -> Self {
        let hash = u128::from(hasher.finish());
        // Less than a million: 64 bits of hash times a million, shifted by 64.
        Self(((hash * u128::from(UNIT)) >> 64) as u32)
    }

    /// The place among the sessions that an intensity chooses. A session that the intensity leaves out has the last
    /// place. An intensity of 1 or more, or of 0, changes no place.
    pub(crate) fn among(self, chosen: Intensity) -> Self {
        match chosen.0 {
            0 | UNIT.. => self,
            // Less than 2^40 divided by at least 1, and at most UNIT - 1.
            chosen => {
                let place = u64::from(self.0) * u64::from(UNIT) / u64::from(chosen);
                Self(u32::try_from(place).map_or(UNIT - 1, |place| place.min(UNIT - 1)))
            }
        }
    }
}

/// Takes an address and port into a hash.
fn write(hasher: &mut SipHasher24, end: Endpoint) {
    match end.ip.to_canonical() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.write(&end.port.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn copies(intensity: f64, port: u16) -> u16 {
        let client = Endpoint::new("198.18.0.1".parse().unwrap(), port);
        Intensity::from_ratio(intensity).copies(Place::of(&[7; 16], client))
    }

    #[test]
    fn a_place_is_the_same_everywhere_and_for_ever() {
        // Copiers of different versions, and the same one after an upgrade, must agree.
        let place = |text: &str| {
            let client: std::net::SocketAddr = text.parse().unwrap();
            Place::of(&[0; 16], client.into()).0
        };
        assert_eq!(
            place("198.18.0.1:40000"),
            place("[::ffff:198.18.0.1]:40000")
        );
        let places = [place("198.18.0.1:40000"), place("[2001:db8::1]:40000")];
        assert_eq!(places, [673_663, 506_160]);
    }

    #[test]
    fn whole_numbers_are_exact_and_fractions_are_shares() {
        let count = |intensity: f64| {
            (0..50_000u16)
                .map(|port| u64::from(copies(intensity, port)))
                .sum::<u64>()
        };
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 50_000);
        assert_eq!(count(3.0), 150_000);
        let fifth = count(0.2);
        assert!((9_500..=10_500).contains(&fifth), "{fifth}");
        let half = count(2.5) - 100_000;
        assert!((24_500..=25_500).contains(&half), "{half}");
    }

    #[test]
    fn what_people_write_is_read_and_nonsense_is_not() {
        for (text, ratio) in [
            ("0", 0.0),
            ("0.2", 0.2),
            ("20%", 0.2),
            ("250%", 2.5),
            ("1023", 1023.0),
            (".5", 0.5),
            ("0.000001", 0.000_001),
        ] {
            let read: Intensity = text.parse().unwrap();
            assert!((read.as_ratio() - ratio).abs() < 1e-9, "{text}");
        }
        for text in [
            "", "%", "-1", "abc", "1e2", "inf", "NaN", "1024", "1.2.3", "+1", "102301%",
        ] {
            assert!(text.parse::<Intensity>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_higher_intensity_never_copies_a_session_less_often(
            a in 0.0..1023.0f64, b in 0.0..1023.0f64, port in any::<u16>()
        ) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            prop_assert!(copies(low, port) <= copies(high, port));
            prop_assert!(f64::from(copies(low, port)) < low + 1.0 + 1e-6);
            prop_assert!(f64::from(copies(low, port)) > low - 1.0 - 1e-6);
        }

        #[test]
        fn what_is_shown_is_read_again(millionths in 0..=1_023_000_000u32) {
            let intensity = Intensity(millionths);
            prop_assert_eq!(intensity.to_string().parse::<Intensity>().unwrap(), intensity);
        }
    }
}
