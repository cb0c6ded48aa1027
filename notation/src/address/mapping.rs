//! `-x`: which live service is copied to which target.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use super::live::{Live, Pods, parse_live};
use super::{AddressError, Family, Mac, check_single, parse_port, split_port};

/// `[live ip:]live port[@MAC]-target ip:target port[@MAC]`; in place of the live ip also pods of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Where the live service is.
    pub live: Live,
    /// The live server's port.
    pub live_port: u16,
    /// The source MAC of copied frames, when sent at the link layer.
    pub live_mac: Option<Mac>,
    /// Where copied traffic is sent.
    pub target: SocketAddr,
    /// The destination MAC of copied frames, when sent at the link layer.
    pub target_mac: Option<Mac>,
}

impl FromStr for Mapping {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        // Names in Kubernetes may hold dashes, targets do not.
        let halves = match Pods::are_named_by(text) {
            true => text.rsplit_once('-'),
            false => text.split_once('-'),
        };
        let (live, target) = halves.ok_or_else(|| {
            AddressError::new(format!(
                "'{text}' is not a mapping: write [live-ip:]live-port-target-ip:target-port, as \
                 in 80-198.18.0.9:8080"
            ))
        })?;
        let (live, live_mac) = split_mac(live)?;
        let (target, target_mac) = split_mac(target)?;
        let (live, live_port) = parse_live(live)?;
        let target = parse_target(text, target, live_port)?;
        if live.ip() == Some(target.ip()) && live_port == target.port() {
            return Err(AddressError::new(format!(
                "'{text}': the target is the live service itself"
            )));
        }
        Ok(Mapping {
            live,
            live_port,
            live_mac,
            target,
            target_mac,
        })
    }
}

fn split_mac(text: &str) -> Result<(&str, Option<Mac>), AddressError> {
    match text.split_once('@') {
        None => Ok((text, None)),
        Some((address, mac)) => Ok((address, Some(mac.parse()?))),
    }
}

fn parse_target(whole: &str, text: &str, live_port: u16) -> Result<SocketAddr, AddressError> {
    let (host, port) = split_port(text)?;
    let Ok(ip) = host.ip() else {
        // `80-8080`: TCPCopy reads that as something else.
        if parse_port(text).is_ok() {
            return Err(AddressError::new(format!(
                "'{whole}': the target's address is missing: write ip:{text}"
            )));
        }
        return Err(host.ip().err().unwrap_or_else(|| AddressError::new(text)));
    };
    let Some(port) = port else {
        return Err(AddressError::new(format!(
            "'{whole}': the target's port is missing: write {}",
            SocketAddr::new(ip, live_port)
        )));
    };
    if ip.is_unspecified() {
        return Err(AddressError::new(format!(
            "'{whole}': {ip} is not a target"
        )));
    }
    check_single(ip)?;
    Ok(SocketAddr::new(ip, parse_port(port)?))
}

impl Mapping {
    /// The family of the live service; one without an address is of the target's family.
    fn live_family(&self) -> Family {
        Family::of(self.live.ip().unwrap_or(self.target.ip()))
    }

    /// The live service, as it is written.
    pub fn live_text(&self) -> String {
        struct Text<'a>(&'a Mapping);
        impl fmt::Display for Text<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.live.fmt_with_port(self.0.live_port, f)
            }
        }
        Text(self).to_string()
    }

    /// Whether both copy the same live service, as far as their texts say.
    fn overlaps(&self, other: &Self) -> bool {
        let same_place = match (&self.live, &other.live) {
            // Pods have addresses of their own; where one has the node's, the pods' mapping holds.
            (Live::Pods(one), Live::Pods(other)) => one == other,
            (Live::Pods(_), _) | (_, Live::Pods(_)) => false,
            (Live::At(one), Live::At(other)) => one == other,
            (Live::Host, _) | (_, Live::Host) => true,
        };
        same_place && self.live_port == other.live_port && self.live_family() == other.live_family()
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.live.fmt_with_port(self.live_port, f)?;
        if let Some(mac) = self.live_mac {
            write!(f, "@{mac}")?;
        }
        write!(f, "-{}", self.target)?;
        if let Some(mac) = self.target_mac {
            write!(f, "@{mac}")?;
        }
        Ok(())
    }
}

/// The whole `-x` list, separated by commas: no live service twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mappings(Vec<Mapping>);

impl Mappings {
    /// In the order given; at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.0.iter()
    }

    /// In the order given; at least one.
    pub fn as_slice(&self) -> &[Mapping] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Mappings {
    type Item = &'a Mapping;
    type IntoIter = std::slice::Iter<'a, Mapping>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromStr for Mappings {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut mappings: Vec<Mapping> = Vec::new();
        for item in text.split(',') {
            let mapping: Mapping = item.parse()?;
            if let Some(other) = mappings.iter().find(|it| it.overlaps(&mapping)) {
                return Err(AddressError::new(format!(
                    "'{other}' and '{mapping}' copy the same live service: give each live service \
                     one target"
                )));
            }
            mappings.push(mapping);
        }
        Ok(Mappings(mappings))
    }
}

impl fmt::Display for Mappings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mapping) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{mapping}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::parse_ip;
    use super::*;

    #[test]
    fn every_form_parses_and_is_shown_the_same() {
        for text in [
            "80-198.18.0.9:8080",
            "198.18.0.1:80-198.18.0.9:8080",
            "[2001:db8::1]:80-[2001:db8::9]:8080",
            "80@02:00:5e:00:00:01-198.18.0.9:8080@02:00:5e:00:00:02",
            "80-198.18.0.9:8080,[2001:db8::1]:443@02:00:5e:00:00:01-[2001:db8::9]:443",
            "service/shop/web-front:8080-198.18.0.9:80",
            "pods/shop/app.kubernetes.io/name=web-front+tier=a_b:8080@02:00:5e:00:00:01-[2001:db8::9]:80",
            "80-198.18.0.9:80,service/shop/web:80-198.18.0.8:80,pods/shop/app=:80-198.18.0.7:80",
        ] {
            assert_eq!(text.parse::<Mappings>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, message) in [
            ("", "is not a mapping"),
            ("80", "is not a mapping"),
            ("80-198.18.0.9", "port is missing: write 198.18.0.9:80"),
            (
                "80-[2001:db8::9]",
                "port is missing: write [2001:db8::9]:80",
            ),
            ("80-8080", "address is missing: write ip:8080"),
            ("-198.18.0.9:80", "'' is not a port"),
            ("80-target.example:80", "host names are not accepted"),
            (
                "live.example:80-198.18.0.9:80",
                "host names are not accepted",
            ),
            ("198.18.0.1-198.18.0.9:80", "live port is missing"),
            ("0.0.0.0:80-198.18.0.9:80", "write only the port, 80"),
            ("80-0.0.0.0:80", "is not a target"),
            ("80-224.0.0.1:80", "not the address of one host"),
            ("80-2001:db8::9:80", "in brackets"),
            ("80@02-00-5e-00-00-01-198.18.0.9:80", "not a MAC address"),
            ("80-198.18.0.9:80@x", "not a MAC address"),
            ("80-198.18.0.9:0", "'0' is not a port"),
            ("80-198.18.0.9:80-81", "is not a port"),
            ("198.18.0.9:80-198.18.0.9:80", "the live service itself"),
            (
                "80-198.18.0.9:80,198.18.0.1:80-198.18.0.8:80",
                "the same live service",
            ),
            ("80-198.18.0.9:80,", "is not a mapping"),
            ("service/web:80-198.18.0.9:80", "the namespace is missing"),
            ("service/Shop/web:80-198.18.0.9:80", "is not a namespace"),
            (
                "service/shop/a.b:80-198.18.0.9:80",
                "not the name of a Service",
            ),
            (
                "service/shop/web-198.18.0.9:80",
                "write service/shop/web:80",
            ),
            (
                "service/shop/web:http-198.18.0.9:80",
                "'http' is not a port",
            ),
            ("pods/shop/web:80-198.18.0.9:80", "'web' are not labels"),
            ("pods/shop/app=web front:80-198.18.0.9:80", "are not labels"),
            ("pods/shop/app=web+:80-198.18.0.9:80", "are not labels"),
            (
                "service/shop/web:80-198.18.0.9:80,service/shop/web:80-198.18.0.8:80",
                "the same live service",
            ),
        ] {
            let error = text.parse::<Mappings>().map_err(|error| error.to_string());
            assert!(
                error.clone().is_err_and(|it| it.contains(message)),
                "{text}: {error:?}"
            );
        }
    }

    #[test]
    fn two_addresses_with_the_same_port_are_two_services() {
        let text = "198.18.0.1:80-198.18.0.9:80,198.18.0.2:80-198.18.0.9:80";
        assert_eq!(text.parse::<Mappings>().unwrap().as_slice().len(), 2);
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails(text in "((service|pods)/[a-c]?/[a-c=+]{0,5})?[-0-9a-f.:@,\\[\\] x]{0,60}") {
            if let Ok(mappings) = text.parse::<Mappings>() {
                prop_assert_eq!(mappings.to_string().parse::<Mappings>().unwrap(), mappings);
            }
        }

        #[test]
        fn any_pair_of_addresses_comes_back(
            live in any::<Option<IpAddr>>(),
            live_port in 1u16..,
            target in any::<SocketAddr>(),
        ) {
            let single = |ip: IpAddr| !ip.is_unspecified() && check_single(ip).is_ok();
            prop_assume!(live.is_none_or(single) && single(target.ip()) && target.port() != 0);
            // Flow labels and zones of an IPv6 socket address have no place in a mapping.
            let target = SocketAddr::new(target.ip(), target.port());
            prop_assume!(live != Some(target.ip()));
            let live = live.map_or(Live::Host, Live::At);
            let mapping = Mapping { live, live_port, live_mac: None, target, target_mac: None };
            prop_assert_eq!(mapping.to_string().parse::<Mapping>().unwrap(), mapping);
        }
    }

    #[test]
    fn parse_ip_names_what_it_was_given() {
        assert!(
            parse_ip("fe80::1%eth0")
                .unwrap_err()
                .to_string()
                .contains("zone")
        );
        assert!(
            parse_ip("fe80::g")
                .unwrap_err()
                .to_string()
                .contains("IPv6")
        );
    }
}
