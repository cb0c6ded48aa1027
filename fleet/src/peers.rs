//! Peers on a command line: `HOST[:PORT]` and `consul:CLUSTER`, separated by commas; and who is meant by that now.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use millrace_notation::address::{AddressError, DefaultPort, HostPort};

use crate::directory::{Directory, Fixed, Listing};

/// What stands before the name of a cluster.
const CONSUL: &str = "consul:";

/// Name of a cluster: what its daemons register as, and the copiers look for. 1 to 40 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cluster(String);

impl Cluster {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where something of it is kept in a store of keys.
    pub fn key(&self, what: &str) -> String {
        format!("millrace/{self}/{what}")
    }
}

impl FromStr for Cluster {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        // A part of a DNS label (RFC 1035, section 2.3.1), beside the name of a service.
        let fits = (1..=40).contains(&text.len())
            && text.bytes().all(letters)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if fits {
            return Ok(Self(text.to_owned()));
        }
        Err(AddressError::new(format!(
            "'{text}' is no name of a cluster: up to 40 lower-case letters, digits and hyphens"
        )))
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A list of peers as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerList {
    /// Named one by one.
    pub fixed: Vec<HostPort>,
    /// Those that Consul lists for these clusters.
    pub clusters: Vec<Cluster>,
}

impl PeerList {
    /// Parses a list separated by commas: not empty, nothing twice. `port` is that of addresses without one.
    ///
    /// # Errors
    /// One line that says what to write instead.
    pub fn parse(text: &str, port: DefaultPort) -> Result<Self, AddressError> {
        let mut list = Self::default();
        for item in text.split(',').map(str::trim) {
            if let Some(name) = item.strip_prefix(CONSUL) {
                let cluster = name.parse()?;
                if list.clusters.contains(&cluster) {
                    return Err(AddressError::new(format!("{item} is given twice")));
                }
                list.clusters.push(cluster);
            } else {
                let address = port.parse(item)?;
                if list.fixed.contains(&address) {
                    return Err(AddressError::new(format!("{address} is given twice")));
                }
                list.fixed.push(address);
            }
        }
        Ok(list)
    }

    /// Whether nobody is meant.
    pub fn is_empty(&self) -> bool {
        self.fixed.is_empty() && self.clusters.is_empty()
    }
}

impl fmt::Display for PeerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fixed = self.fixed.iter().map(ToString::to_string);
        let clusters = self.clusters.iter().map(|it| format!("{CONSUL}{it}"));
        let all: Vec<String> = fixed.chain(clusters).collect();
        f.write_str(&all.join(", "))
    }
}

/// Who is meant by a list of peers, now and later.
pub struct Peers {
    directories: Vec<Arc<dyn Directory>>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peers")
            .field(&self.directories.len())
            .finish()
    }
}

impl Peers {
    /// Those of a list. `find` gives the directory of a cluster, where there is one.
    pub fn new(list: &PeerList, find: impl FnMut(&Cluster) -> Option<Arc<dyn Directory>>) -> Self {
        let mut directories: Vec<Arc<dyn Directory>> = Vec::new();
        if !list.fixed.is_empty() {
            directories.push(Arc::new(Fixed::new(list.fixed.clone())));
        }
        directories.extend(list.clusters.iter().filter_map(find));
        Self { directories }
    }

    /// Who is meant now.
    pub fn now(&self) -> Listing {
        let mut all = Listing {
            complete: true,
            ..Listing::default()
        };
        for listing in self.directories.iter().map(|it| it.listing()) {
            all.complete &= listing.complete;
            for peer in listing.peers {
                if !all.peers.contains(&peer) {
                    all.peers.push(peer);
                }
            }
            all.doubt = all.doubt.or(listing.doubt);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: DefaultPort = DefaultPort(36_524);

    #[test]
    fn addresses_and_clusters_are_written_in_one_list() {
        let list = PeerList::parse("198.18.2.30, consul:web,rs2:1,consul:shop-2", PORT).unwrap();
        let fixed: Vec<String> = list.fixed.iter().map(ToString::to_string).collect();
        assert_eq!(fixed, ["198.18.2.30:36524", "rs2:1"]);
        let clusters: Vec<&str> = list.clusters.iter().map(Cluster::as_str).collect();
        assert_eq!(clusters, ["web", "shop-2"]);
        assert_eq!(
            list.to_string(),
            "198.18.2.30:36524, rs2:1, consul:web, consul:shop-2"
        );
    }

    #[test]
    fn what_is_wrong_in_a_list_is_named() {
        for (text, word) in [
            ("", "missing"),
            ("consul:", "no name of a cluster"),
            ("consul:Web", "lower-case"),
            ("consul:a/b", "no name of a cluster"),
            ("consul:-a", "no name of a cluster"),
            ("consul:a,consul:a", "twice"),
            ("h,h:36524", "twice"),
        ] {
            let error = PeerList::parse(text, PORT).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!(PeerList::parse(&format!("consul:{}", "a".repeat(41)), PORT).is_err());
    }
}
