//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

use super::AddressError;

/// The Ethernet address of one station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The six bytes, as on the wire.
    pub fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl FromStr for Mac {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || {
            AddressError::new(format!(
                "'{text}' is not a MAC address: write it like 02:00:5e:10:00:01"
            ))
        };
        let mut octets = [0u8; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(wrong)?;
            let hex =
                (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            *octet = u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| hex)
                .ok_or_else(wrong)?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        let group = octets.first().is_some_and(|first| first & 1 != 0);
        if group || octets == [0; 6] {
            return Err(AddressError::new(format!(
                "{text} is not the MAC address of one station (group, broadcast or zero)"
            )));
        }
        Ok(Mac(octets))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_single_stations() {
        assert_eq!(
            "2:0:5E:10:0:1".parse::<Mac>().unwrap().to_string(),
            "02:00:5e:10:00:01"
        );
        for bad in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "02-00-5e-10-00-01",
            "02:00:5e:10:00:+1",
            "ff:ff:ff:ff:ff:ff",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "002:0:0:0:0:1",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(mut octets in any::<[u8; 6]>()) {
            octets[0] &= 0xfe;
            prop_assume!(octets != [0; 6]);
            let mac = Mac(octets);
            prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac);
        }
    }
}
