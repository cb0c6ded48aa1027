//! What is asked to be diverted, and the selectors that come of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use millrace_proto::v1;
use serde::{Deserialize, Serialize};

use crate::host::Mode;
use millrace_notation::address::cidr::{Cidr, cover};

/// Most services of one holder.
pub const MAX_SERVICES: usize = 64;
/// Most prefixes of one holder's pool.
pub const MAX_PREFIXES: usize = 256;
/// Most selectors on a host, and so most policy rules that divert: the kernel tries them one by one
/// for every packet that it routes.
pub const MAX_SELECTORS: usize = 256;

/// What somebody needs diverted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// TCP services, by addresses of this host.
    pub services: Vec<SocketAddr>,
    /// Addresses that replicas bear.
    pub pool: Vec<Cidr>,
    /// Refuse unless the host diverts like this.
    #[serde(default)]
    pub mode: Option<Mode>,
}

/// Why a need cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NeedError(pub String);

/// Which packets are diverted: those of a service, those to a prefix, or both at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Selector {
    /// Source address and port.
    pub service: Option<SocketAddr>,
    /// Destination.
    pub to: Option<Cidr>,
}

/// A set of them, in a fixed order.
pub type Selectors = BTreeSet<Selector>;

impl Selector {
    /// Whether it is for IPv4.
    pub fn is_ipv4(&self) -> bool {
        match (self.service, self.to) {
            (Some(service), _) => service.is_ipv4(),
            (None, Some(to)) => to.is_ipv4(),
            (None, None) => true,
        }
    }

    /// Whether a TCP packet from `local` to `remote` is selected.
    pub fn matches(&self, local: SocketAddr, remote: IpAddr) -> bool {
        self.service.is_none_or(|service| service == local)
            && self.to.is_none_or(|to| to.contains(remote))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.service, self.to) {
            (Some(service), Some(to)) => write!(f, "responses of {service} to {to}"),
            (Some(service), None) => write!(f, "responses of {service}"),
            (None, Some(to)) => write!(f, "TCP packets to {to}"),
            (None, None) => write!(f, "nothing"),
        }
    }
}

impl Need {
    /// The selectors, and which service or prefix has no partner of its family.
    ///
    /// # Errors
    /// When nothing is asked for, too much, or a service and the pool do not fit together.
    pub fn selectors(&self) -> Result<Selectors, NeedError> {
        let refuse = |text: String| Err(NeedError(text));
        if self.services.is_empty() && self.pool.is_empty() {
            return refuse(
                "nothing is asked for: name services, a client pool, or both".to_owned(),
            );
        }
        if self.services.len() > MAX_SERVICES || self.pool.len() > MAX_PREFIXES {
            return refuse(format!(
                "{} services and {} prefixes are too many: at most {MAX_SERVICES} and \
                 {MAX_PREFIXES}",
                self.services.len(),
                self.pool.len()
            ));
        }
        let mut selectors = Selectors::new();
        for service in &self.services {
            if service.port() == 0 {
                return refuse(format!("{service}: a service has a port from 1 to 65535"));
            }
            // Flow and scope do not matter.
            let service = Some(SocketAddr::new(service.ip(), service.port()));
            if self.pool.is_empty() {
                selectors.insert(Selector { service, to: None });
                continue;
            }
            let ipv4 = service.is_some_and(|it| it.is_ipv4());
            let mut fitting = self
                .pool
                .iter()
                .filter(|to| to.is_ipv4() == ipv4)
                .peekable();
            if fitting.peek().is_none() {
                return refuse(format!(
                    "the client pool has no {} address for the service {}",
                    if ipv4 { "IPv4" } else { "IPv6" },
                    service.map(|it| it.to_string()).unwrap_or_default()
                ));
            }
            selectors.extend(fitting.map(|to| Selector {
                service,
                to: Some(*to),
            }));
        }
        if self.services.is_empty() {
            selectors.extend(self.pool.iter().map(|to| Selector {
                service: None,
                to: Some(*to),
            }));
        }
        if selectors.len() > MAX_SELECTORS {
            return refuse(format!(
                "{} rules would be needed, more than {MAX_SELECTORS}: give a pool of fewer, larger \
                 prefixes",
                selectors.len()
            ));
        }
        Ok(selectors)
    }
}

impl TryFrom<&v1::Need> for Need {
    type Error = NeedError;

    fn try_from(need: &v1::Need) -> Result<Self, NeedError> {
        if need.services.len() > MAX_SERVICES || need.pool.len() > MAX_PREFIXES {
            return Err(NeedError(format!(
                "{} services and {} prefixes are too many: at most {MAX_SERVICES} and \
                 {MAX_PREFIXES}",
                need.services.len(),
                need.pool.len()
            )));
        }
        let services = need
            .services
            .iter()
            .map(|service| {
                let port = u16::try_from(service.port).ok().filter(|port| *port != 0);
                let port = port.ok_or_else(|| {
                    NeedError(format!("{} is not a port from 1 to 65535", service.port))
                })?;
                Ok(SocketAddr::new(address(&service.ip)?, port))
            })
            .collect::<Result<_, NeedError>>()?;
        let ranges = need
            .pool
            .iter()
            .map(|prefix| {
                let length = u8::try_from(prefix.length).unwrap_or(u8::MAX);
                let cidr = Cidr::new(address(&prefix.ip)?, length)
                    .map_err(|error| NeedError(error.to_string()))?;
                Ok((cidr.first(), cidr.last()))
            })
            .collect::<Result<Vec<_>, NeedError>>()?;
        Ok(Need {
            services,
            pool: cover(&ranges),
            mode: Mode::from_proto(need.mode()),
        })
    }
}

fn address(octets: &[u8]) -> Result<IpAddr, NeedError> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(octets.into());
    }
    <[u8; 16]>::try_from(octets).map(IpAddr::from).map_err(|_| {
        NeedError(format!(
            "an address has 4 or 16 bytes, not {}",
            octets.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn need(services: &[&str], pool: &str) -> Need {
        Need {
            services: services.iter().map(|it| it.parse().unwrap()).collect(),
            pool: if pool.is_empty() {
                Vec::new()
            } else {
                millrace_notation::address::cidr::parse_list(pool).unwrap()
            },
            mode: None,
        }
    }

    #[test]
    fn services_and_pools_meet_in_their_own_family() {
        let both = need(
            &["198.18.0.1:80", "[2001:db8::1]:80"],
            "198.18.8.0/24,2001:db8:8::/64",
        );
        assert_eq!(both.selectors().unwrap().len(), 2);
        let alone = need(&["[2001:db8::1]:80"], "198.18.8.0/24");
        assert!(alone.selectors().unwrap_err().0.contains("no IPv6"));
        assert!(need(&[], "").selectors().is_err());
        assert!(need(&["198.18.0.1:0"], "").selectors().is_err());
        assert_eq!(need(&[], "198.18.8.x").selectors().unwrap().len(), 14);
    }

    #[test]
    fn a_selector_takes_what_both_of_its_parts_take() {
        let both = need(&["198.18.0.1:80"], "198.18.8.0/24");
        let selectors = both.selectors().unwrap();
        let selector = selectors.first().unwrap();
        let vip = "198.18.0.1:80".parse().unwrap();
        assert!(selector.matches(vip, [198, 18, 8, 9].into()));
        assert!(!selector.matches(vip, [198, 18, 9, 9].into()));
        assert!(!selector.matches("198.18.0.1:81".parse().unwrap(), [198, 18, 8, 9].into()));
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_refused(
            ip in prop::collection::vec(any::<u8>(), 0..18), length in any::<u32>(), port in any::<u32>(), mode in any::<i32>()
        ) {
            let message = v1::Need {
                services: vec![v1::ServiceAddress { ip: ip.clone().into(), port }],
                pool: vec![v1::Prefix { ip: ip.into(), length }],
                mode,
            };
            if let Ok(need) = Need::try_from(&message) {
                prop_assert!(need.selectors().is_ok());
            }
        }
    }
}
