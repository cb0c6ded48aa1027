//! A CA to try mutual TLS with, and certificates for Millrace's roles.
//!
//! It is a test CA: its key lies beside the certificates, unencrypted.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use crate::error::{Doing as _, Error, Result};

/// How long a CA is valid. Days.
const CA_DAYS: i64 = 3650;

/// Certificates are valid from this long ago, for clocks that differ.
const BEFORE: Duration = Duration::hours(1);

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";

/// Certificates of one trust domain, in a directory: `ca.pem`, and `ROLE[-NAME].pem` with
/// `ROLE[-NAME]-key.pem` for each role and name.
pub struct Certificates {
    dir: PathBuf,
    trust_domain: String,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key, readable by its owner alone.
    pub key: PathBuf,
}

impl Certificates {
    /// Uses the CA that is in `dir`, or makes one.
    ///
    /// # Errors
    /// When `dir` cannot be written, or holds another kind of CA.
    pub fn open(dir: impl Into<PathBuf>, trust_domain: &str) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).doing(|| format!("making the directory {}", dir.display()))?;
        let path = dir.join(CA_KEY);
        let key = match fs::read_to_string(&path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|error| Error::Malformed {
                what: path.display().to_string(),
                detail: error.to_string(),
            })?,
            Err(_) => return Self::with_new_ca(dir, trust_domain, ""),
        };
        Ok(Self {
            issuer: issuer(key)?,
            dir,
            trust_domain: trust_domain.to_owned(),
        })
    }

    /// Makes another CA, which signs from now on. The CAs before it stay in `ca.pem`, so that
    /// certificates of both are trusted until [`Certificates::forget_old_cas`].
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn renew_ca(&mut self) -> Result<()> {
        let path = self.ca();
        let old = fs::read_to_string(&path).doing(|| format!("reading {}", path.display()))?;
        *self = Self::with_new_ca(self.dir.clone(), &self.trust_domain, &old)?;
        Ok(())
    }

    /// Leaves only the newest CA in `ca.pem`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_old_cas(&self) -> Result<()> {
        replace(&self.ca(), &self.issuer.pem(), 0o644)
    }

    fn with_new_ca(dir: PathBuf, trust_domain: &str, others: &str) -> Result<Self> {
        let key = KeyPair::generate().map_err(|error| refused("a CA", &error))?;
        let pem = key.serialize_pem();
        let made = Self {
            issuer: issuer(key)?,
            dir,
            trust_domain: trust_domain.to_owned(),
        };
        replace(&made.ca(), &(made.issuer.pem() + others), 0o644)?;
        replace(&made.dir.join(CA_KEY), &pem, 0o600)?;
        Ok(made)
    }

    /// The CAs to trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join(CA)
    }

    /// Makes (or makes again) a certificate for `path`, `ROLE` or `ROLE/NAME`, valid for `days`.
    /// Files are replaced at once, so that a running daemon never reads a half.
    ///
    /// # Errors
    /// When `path` or the trust domain cannot stand in a URI, or the files cannot be written.
    pub fn issue(&self, path: &str, days: i64) -> Result<CertificateFiles> {
        let uri = format!("spiffe://{}/millrace/{path}", self.trust_domain);
        let cannot = |error: rcgen::Error| refused(&uri, &error);
        let name = uri.as_str().try_into().map_err(cannot)?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name)];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Millrace {path}"));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = validity(days);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(cannot)?;
        let cert = params.signed_by(&key, &self.issuer).map_err(cannot)?;
        let files = self.files(path);
        replace(&files.cert, &cert.pem(), 0o644)?;
        replace(&files.key, &key.serialize_pem(), 0o600)?;
        Ok(files)
    }

    /// Where the certificate for `path` is, or will be.
    #[must_use]
    pub fn files(&self, path: &str) -> CertificateFiles {
        let name = path.replace('/', "-");
        CertificateFiles {
            cert: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}-key.pem")),
        }
    }
}

/// The CA of a key. Its name comes from the key, so that the key alone is enough to sign again.
fn issuer(key: KeyPair) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = validity(CA_DAYS);
    let id: String = params
        .key_identifier(&key)
        .iter()
        .take(4)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("Millrace test CA {id}"));
    CertifiedIssuer::self_signed(params, key).map_err(|error| refused("a CA", &error))
}

fn validity(days: i64) -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - BEFORE, now + Duration::days(days))
}

fn refused(what: &str, error: &rcgen::Error) -> Error {
    Error::Unsupported(format!("cannot make a certificate for {what}: {error}"))
}

/// Puts a file in the place of another at once.
fn replace(path: &Path, content: &str, mode: u32) -> Result<()> {
    let fresh = path.with_extension("fresh");
    let write = || {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(content.as_bytes())?;
        fs::rename(&fresh, path)
    };
    write().doing(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_directory_keeps_its_ca_until_it_is_renewed() {
        let dir = std::env::temp_dir().join(format!("millrace-certs-{}", std::process::id()));
        let mut certificates = Certificates::open(&dir, "example.test").unwrap();
        let first = fs::read_to_string(certificates.ca()).unwrap();
        let files = certificates.issue("copier/live1", 30).unwrap();
        assert_eq!(files.cert, dir.join("copier-live1.pem"));
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Certificates::open(&dir, "example.test").unwrap();
        assert_eq!(fs::read_to_string(again.ca()).unwrap(), first);
        certificates.renew_ca().unwrap();
        let both = fs::read_to_string(certificates.ca()).unwrap();
        assert!(both.ends_with(&first) && both.len() > first.len());
        certificates.forget_old_cas().unwrap();
        let last = fs::read_to_string(certificates.ca()).unwrap();
        assert!(!last.contains(&first) && both.starts_with(&last));
        assert!(certificates.issue("copier/lïve", 30).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
