//! MAC addresses.

use std::fmt;
use std::str::FromStr;

/// An EUI-48 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// From its six bytes.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Its six bytes.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text is not a MAC address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a MAC address: write six hexadecimal bytes, like 02:00:5e:10:00:01")]
pub struct ParseMacError {
    text: String,
}

impl FromStr for MacAddress {
    type Err = ParseMacError;

    /// Six bytes of one or two hexadecimal digits, between colons or hyphens.
    fn from_str(text: &str) -> Result<Self, ParseMacError> {
        let error = || ParseMacError {
            text: text.to_owned(),
        };
        let mut octets = [0; 6];
        let mut parts = text.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or_else(error)?;
            // from_str_radix takes a sign too.
            if part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_notations_are_read() {
        let mac = MacAddress::new([2, 0, 0x5e, 0x10, 0, 1]);
        assert_eq!("02:00:5e:10:00:01".parse(), Ok(mac));
        assert_eq!("02-00-5E-10-00-01".parse(), Ok(mac));
        assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:01:02",
            "02:00:5e:10:00:+1",
            "02:00:5e:10:00:g1",
            "02005e100001",
            "002:00:5e:10:00:01",
        ] {
            assert!(text.parse::<MacAddress>().is_err(), "{text}");
        }
    }
}
