//! Hosts that a certificate names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use millrace_channel::tls;
use rcgen::SanType;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

/// A DNS name or an IP address at which a daemon is reached. Of daemons that Consul lists, a certificate that names any is
/// accepted at these alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(ServerName<'static>);

/// Neither a DNS name nor an IP address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a DNS name or an IP address is wanted, such as rs1.example.com or 198.18.2.101")]
pub struct NoHost;

impl FromStr for Host {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        // Peers compare with these forms: an address of IPv4 as itself, a name without the dot of its root.
        let text = match text.parse::<IpAddr>() {
            Ok(address) => address.to_canonical().to_string(),
            Err(_) => text.strip_suffix('.').unwrap_or(text).to_owned(),
        };
        ServerName::try_from(text).map(Self).map_err(|_| NoHost)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_str())
    }
}

impl Host {
    /// As it stands in a certificate.
    pub(crate) fn alternative_name(&self) -> Result<SanType, rcgen::Error> {
        match self.0.to_str().parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => Ok(SanType::DnsName(self.0.to_str().as_ref().try_into()?)),
        }
    }

    /// Those that the certificate of a PEM file names.
    ///
    /// # Errors
    /// No certificate, or a name that no daemon can be reached at, such as one with a wildcard.
    pub(crate) fn named_by(pem: &str) -> Result<Vec<Self>, NoHost> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| NoHost)?;
        let hosts = tls::named_hosts(&der).ok_or(NoHost)?;
        hosts.iter().map(|host| host.parse()).collect()
    }
}
