//! The CA: a key, and the certificate that follows from it.

use std::path::Path;

use millrace_channel::tls::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use time::{Duration, OffsetDateTime};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::{Error, Host, Result};

/// How long a CA is valid. Days.
const DAYS: i64 = 3650;

/// Certificates are valid from this long ago, for clocks that differ.
const BEFORE: Duration = Duration::hours(1);

/// Signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its name, as certificates bear it.
    name: String,
    /// When it ends: so does what it has signed.
    ends: OffsetDateTime,
}

impl Authority {
    /// With a key of its own.
    pub(crate) fn new() -> Result<Self> {
        Self::with(KeyPair::generate().map_err(|error| failed("making a key", &error))?)
    }

    /// With the key that is in a file.
    pub(crate) fn of_key(pem: &str) -> Result<Self> {
        Self::with(KeyPair::from_pem(pem).map_err(|error| failed("reading the CA's key", &error))?)
    }

    /// Its name comes from the key, so that the key alone is enough to sign again.
    fn with(key: KeyPair) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = validity(DAYS);
        let id: String = params
            .key_identifier(&key)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = format!("Millrace test CA {id}");
        params.distinguished_name = called(&name);
        let ends = params.not_after;
        let issuer = CertifiedIssuer::self_signed(params, key)
            .map_err(|error| failed("making a CA", &error))?;
        Ok(Self { issuer, name, ends })
    }

    /// The same, where `trusted` of the file `ca` has its certificate: else daemons would not believe what it signs.
    pub(crate) fn checked(mut self, ca: &Path, trusted: &str) -> Result<Self> {
        let ours = CertificateDer::pem_slice_iter(trusted.as_bytes()).find_map(|der| {
            let of = Certificate::from_der(&der.ok()?).ok()?.tbs_certificate;
            let key = of.subject_public_key_info.subject_public_key;
            let is_ours = key.raw_bytes() == self.issuer.key().public_key_raw()
                && of.subject.to_string() == format!("CN={}", self.name);
            is_ours.then(|| of.validity.not_after.to_unix_duration())
        });
        let ends = ours.ok_or_else(|| Error::Foreign(ca.to_owned()))?;
        // One that was made here ends while a date has four digits.
        let ends = i64::try_from(ends.as_secs()).map(OffsetDateTime::from_unix_timestamp);
        self.ends = ends.map_or(self.ends, |ends| ends.unwrap_or(self.ends));
        Ok(self)
    }

    /// Whether it is valid for so many more days.
    pub(crate) fn may_last(&self, days: i64) -> Result<()> {
        let left = self.ends - OffsetDateTime::now_utc();
        // A day that has begun counts.
        let left = left.whole_days() + i64::from(left > Duration::days(left.whole_days()));
        match left {
            ..=0 => Err(Error::Ended),
            left if days <= left => Ok(()),
            left => Err(Error::OutlivesCa { days, left }),
        }
    }

    /// As if it had been made that much earlier.
    #[cfg(test)]
    pub(crate) fn end_in(&mut self, days: i64) {
        self.ends = OffsetDateTime::now_utc() + Duration::days(days);
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Its key.
    pub(crate) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate that is valid for `days` and names `hosts`, and its key.
    pub(crate) fn sign(
        &self,
        whose: &Identity,
        days: i64,
        hosts: &[Host],
    ) -> Result<(String, String)> {
        self.may_last(days)?;
        let uri = whose.to_string();
        let cannot = |error: rcgen::Error| failed(&format!("a certificate for {uri}"), &error);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(cannot)?)];
        for host in hosts {
            let name = host.alternative_name().map_err(cannot)?;
            params.subject_alt_names.push(name);
        }
        let name = whose.name.as_ref().map(|name| format!("/{name}"));
        params.distinguished_name = called(&format!(
            "Millrace {}{}",
            whose.role,
            name.unwrap_or_default()
        ));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (not_before, not_after) = validity(days);
        (params.not_before, params.not_after) = (not_before, not_after.min(self.ends));
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(cannot)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(cannot)?;
        Ok((cert.pem(), key.serialize_pem()))
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut made = DistinguishedName::new();
    made.push(DnType::CommonName, name);
    made
}

fn validity(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BEFORE, now + Duration::days(days))
}

fn failed(what: &str, error: &rcgen::Error) -> Error {
    Error::Cryptography {
        what: what.to_owned(),
        detail: error.to_string(),
    }
}
