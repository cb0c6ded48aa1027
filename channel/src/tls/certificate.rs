//! What we read of a certificate besides its chain (RFC 5280): the URI and the validity.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

use super::Identity;

/// A certificate of a peer, or our own.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    not_before: Time,
    not_after: Time,
    /// Its URIs, as they stand there.
    uris: Vec<String>,
    /// Hosts and addresses that it names, in words.
    hosts: Vec<String>,
}

/// Not a certificate, or one whose names cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no X.509 certificate that can be read")]
pub(super) struct Unreadable;

impl Leaf {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let certificate = Certificate::from_der(certificate).map_err(|_| Unreadable)?;
        let names = certificate
            .tbs_certificate
            .get::<SubjectAltName>()
            .map_err(|_| Unreadable)?;
        let (mut uris, mut hosts) = (Vec::new(), Vec::new());
        for name in names.into_iter().flat_map(|(_, names)| names.0) {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().to_owned()),
                GeneralName::DnsName(name) => hosts.push(printable(name.as_str())),
                GeneralName::IpAddress(octets) => hosts.push(shown_address(octets.as_bytes())),
                GeneralName::OtherName(_)
                | GeneralName::Rfc822Name(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EdiPartyName(_)
                | GeneralName::RegisteredId(_) => {}
            }
        }
        let validity = certificate.tbs_certificate.validity;
        Ok(Leaf {
            not_before: validity.not_before,
            not_after: validity.not_after,
            uris,
            hosts,
        })
    }

    /// Hosts and addresses that it names, in words.
    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Who it is for: its one URI.
    ///
    /// # Errors
    /// What is wrong with its URIs, as the end of a sentence.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        match self.uris.as_slice() {
            [] => Err("it bears no URI (subjectAltName)".to_owned()),
            [uri] => uri
                .parse()
                .map_err(|error| format!("its URI '{}' is unfit: {error}", printable(uri))),
            // X.509-SVID, section 2: more than one is refused.
            [_, _, ..] => Err(format!(
                "it bears {} URIs (subjectAltName) where there must be one",
                self.uris.len()
            )),
        }
    }

    /// Seconds since 1970.
    pub(super) fn not_before(&self) -> u64 {
        self.not_before.to_unix_duration().as_secs()
    }

    /// Seconds since 1970.
    pub(super) fn not_after(&self) -> u64 {
        self.not_after.to_unix_duration().as_secs()
    }

    /// `2026-11-21T08:00:00Z`
    pub(super) fn not_before_text(&self) -> String {
        self.not_before.to_date_time().to_string()
    }

    /// `2026-11-21T08:00:00Z`
    pub(super) fn not_after_text(&self) -> String {
        self.not_after.to_date_time().to_string()
    }
}

/// Hosts and addresses that a certificate names, in words: a name with a wildcard as it stands there. `None`: it is no
/// X.509 certificate that can be read.
pub fn named_hosts(certificate: &CertificateDer<'_>) -> Option<Vec<String>> {
    Leaf::read(certificate).ok().map(|leaf| leaf.hosts)
}

/// An address as RFC 5280, section 4.2.1.6, writes it: 4 or 16 octets.
fn shown_address(octets: &[u8]) -> String {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(octets).map(IpAddr::from);
    v4.or(v6).map_or("?".to_owned(), |ip| ip.to_string())
}

/// A stranger's text, for one line of a log.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_ascii_graphic() { c } else { '?' };
    text.chars().take(100).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    const URI: &str = "spiffe://example.test/millrace/copier/live1";

    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["live1.example.test".to_owned()]).unwrap();
        let uri = SanType::URI(URI.try_into().unwrap());
        params.subject_alt_names.push(uri);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_uri_is_found_among_other_names() {
        let leaf = Leaf::read(&certificate().into()).unwrap();
        assert_eq!(leaf.identity().unwrap().to_string(), URI);
        assert!(leaf.not_after_text().ends_with('Z'));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Leaf::read(&bytes.into());
        }

        #[test]
        fn a_certificate_that_was_changed_is_read_without_a_fault(
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(certificate);
            let mut bytes = GOOD.clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(leaf) = Leaf::read(&bytes.clone().into()) {
                let _ = leaf.identity();
                let _ = leaf.not_after_text();
            }
            bytes.truncate(cut.index(bytes.len()));
            let _ = Leaf::read(&bytes.into());
        }
    }
}
