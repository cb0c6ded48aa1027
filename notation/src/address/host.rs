//! `host:port` of another Millrace daemon: a name or an address, the port often left out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use super::{AddressError, Host, parse_port, split_port};

/// Where a daemon is reached. Resolved anew at each connection attempt, so a name may move.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Parser of addresses whose port may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultPort(pub u16);

impl DefaultPort {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`.
    ///
    /// # Errors
    /// One line that says what to write instead.
    pub fn parse(self, text: &str) -> Result<HostPort, AddressError> {
        let text = text.trim();
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(AddressError::new(format!(
                "'{text}' is a URL: write {rest}, without {scheme}://"
            )));
        }
        let (host, port) = split_port(text)?;
        let port = port.map_or(Ok(self.0), parse_port)?;
        let host = match host {
            Host::V6(ip) => ip.to_string(),
            Host::Other(name) => {
                check_name(name)?;
                name.to_owned()
            }
        };
        Ok(HostPort { host, port })
    }

    /// Parses a list separated by commas: not empty, no address twice.
    ///
    /// # Errors
    /// One line that says what to write instead.
    pub fn parse_list(self, text: &str) -> Result<Vec<HostPort>, AddressError> {
        let mut list: Vec<HostPort> = Vec::new();
        for item in text.split(',') {
            let address = self.parse(item)?;
            if list.contains(&address) {
                return Err(AddressError::new(format!("{address} is given twice")));
            }
            list.push(address);
        }
        Ok(list)
    }
}

impl HostPort {
    /// The name, or the address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl From<std::net::SocketAddr> for HostPort {
    fn from(address: std::net::SocketAddr) -> Self {
        HostPort {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// RFC 1123, section 2.1, and underscores, which are common in practice.
fn check_name(name: &str) -> Result<(), AddressError> {
    if name.is_empty() {
        return Err(AddressError::new("an address is missing: write host:port"));
    }
    let last = name.rsplit('.').find(|label| !label.is_empty());
    let numeric = last.is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    if numeric {
        // A top-level domain is never a number (RFC 3696, section 2): this is meant as IPv4.
        return match name.parse::<Ipv4Addr>() {
            Ok(ip) => check_reachable(ip.into()),
            Err(_) => Err(AddressError::new(format!(
                "'{name}' is not an IPv4 address: give four numbers from 0 to 255"
            ))),
        };
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let body = name.strip_suffix('.').unwrap_or(name);
    if name.len() <= 253 && body.split('.').all(label) {
        Ok(())
    } else {
        Err(AddressError::new(format!(
            "'{name}' is neither a host name nor an address"
        )))
    }
}

fn check_reachable(ip: IpAddr) -> Result<(), AddressError> {
    if ip.is_unspecified() || ip.is_multicast() {
        return Err(AddressError::new(format!(
            "{ip} is not the address of one host"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PORT: DefaultPort = DefaultPort(36524);

    #[test]
    fn names_and_addresses_with_and_without_a_port() {
        for (text, shown) in [
            ("rs1", "rs1:36524"),
            ("rs1.example:80", "rs1.example:80"),
            ("198.18.0.1", "198.18.0.1:36524"),
            ("198.18.0.1:80", "198.18.0.1:80"),
            ("[2001:db8::1]", "[2001:db8::1]:36524"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            (" rs_1.example. ", "rs_1.example.:36524"),
        ] {
            assert_eq!(PORT.parse(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("", "is missing"),
            (":80", "is missing"),
            ("rs1:", "'' is not a port"),
            ("rs1:0", "'0' is not a port"),
            ("rs1:+80", "'+80' is not a port"),
            ("rs1:65536", "is not a port"),
            ("2001:db8::1", "in brackets"),
            ("[2001:db8::1", "not closed"),
            ("[rs1]:80", "'rs1' is none"),
            ("[2001:db8::1]80", "only :port may follow"),
            ("198.18.0.300", "not an IPv4 address"),
            ("0.0.0.0", "not the address of one host"),
            ("rs 1", "neither a host name nor an address"),
            ("-rs", "neither"),
            ("http://rs1", "is a URL: write rs1"),
        ] {
            let error = PORT.parse(text).map_err(|error| error.to_string());
            assert!(
                error.clone().is_err_and(|it| it.contains(message)),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn a_list_has_no_address_twice() {
        assert_eq!(PORT.parse_list("rs1,rs2:80").unwrap().len(), 2);
        let error = PORT.parse_list("rs1,rs2,rs1:36524").unwrap_err();
        assert_eq!(error.to_string(), "rs1:36524 is given twice");
        assert!(PORT.parse_list("rs1,,rs2").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_parses_to_the_same(address in any::<std::net::SocketAddr>()) {
            prop_assume!(address.port() != 0);
            prop_assume!(!address.ip().is_unspecified() && !address.ip().is_multicast());
            let host = HostPort::from(address);
            prop_assert_eq!(PORT.parse(&host.to_string()).unwrap(), host);
        }

        #[test]
        fn any_text_parses_or_fails(text in "\\PC{0,40}") {
            if let Ok(address) = PORT.parse(&text) {
                prop_assert_eq!(PORT.parse(&address.to_string()).unwrap(), address);
            }
        }
    }
}
