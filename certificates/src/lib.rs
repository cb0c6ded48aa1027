//! A CA of one's own, and certificates that say who a daemon is (`spiffe://TRUST_DOMAIN/millrace/ROLE[/NAME]`).
//!
//! The CA's key lies beside the certificates, unencrypted: it is as safe as the directory. Keys are readable by their
//! owner alone, and nothing that is there is written over unless it is asked for.
//!
//! - [`Certificates`]: a directory with a CA and what it has signed.
//! - [`Terms`], [`Host`]: how long a certificate is valid, and what hosts it names.
//! - [`Error`]: what stood in the way.

mod authority;
mod error;
mod files;
mod host;

use std::path::PathBuf;

use millrace_channel::tls::{Identity, IdentityError, Role};

use crate::authority::Authority;
pub use crate::error::{Error, Result};
pub use crate::host::{Host, NoHost};

const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
/// What the name of a key's file has and that of its certificate has not.
const KEY_ENDING: &str = "-key";

/// Certificates of one trust domain, in a directory: `ca.pem`, and `ROLE[-NAME].pem` with
/// `ROLE[-NAME]-key.pem` for each role and name.
pub struct Certificates {
    dir: PathBuf,
    trust_domain: String,
    authority: Authority,
}

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key, readable by its owner alone.
    pub key: PathBuf,
}

/// What a certificate is to say besides whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it is valid. Days; below 1 it has expired already.
    pub days: i64,
    /// The hosts that it names. With none, it names those of the certificate that it replaces.
    pub hosts: Vec<Host>,
}

impl From<i64> for Terms {
    /// So many days, and no hosts but those of before.
    fn from(days: i64) -> Self {
        let hosts = Vec::new();
        Self { days, hosts }
    }
}

impl Certificates {
    /// Uses the CA that is in `dir`, or makes one.
    ///
    /// # Errors
    /// When `dir` cannot be read or written, or holds a CA that something else has made.
    pub fn open(dir: impl Into<PathBuf>, trust_domain: &str) -> Result<Self> {
        let dir = dir.into();
        // What daemons would refuse is refused before anything is made.
        identity(trust_domain, Role::Copier.name())?;
        files::make_directory(&dir)?;
        let _lock = files::lock(&dir)?;
        let (ca, key) = (dir.join(CA), dir.join(CA_KEY));
        let authority = match (files::read(&key)?, files::read(&ca)?) {
            (Some(key), Some(trusted)) => Authority::of_key(&key)?.checked(&ca, &trusted)?,
            (None, None) => Authority::new()?,
            // The certificate follows from the key: an earlier run was interrupted between the two.
            (Some(key), None) => Authority::of_key(&key)?,
            (None, Some(_)) => return Err(Error::half(&ca, &key)),
        };
        let made = Self {
            dir,
            trust_domain: trust_domain.to_owned(),
            authority,
        };
        if !ca.exists() {
            made.write_authority("")?;
        }
        Ok(made)
    }

    /// Makes another CA, which signs from now on. The CAs before it stay in `ca.pem`, so that
    /// certificates of both are trusted until [`Certificates::forget_old_cas`].
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn renew_ca(&mut self) -> Result<()> {
        let _lock = files::lock(&self.dir)?;
        let old = files::read(&self.ca())?.unwrap_or_default();
        self.authority = Authority::new()?;
        self.write_authority(&old)
    }

    /// Leaves only the newest CA in `ca.pem`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget_old_cas(&self) -> Result<()> {
        let _lock = files::lock(&self.dir)?;
        files::replace(&self.ca(), &self.authority.pem(), files::PUBLIC)
    }

    fn write_authority(&self, others: &str) -> Result<()> {
        // With the CAs before it, so that a run which is interrupted here leaves what the old key has signed trusted. A first
        // key goes before its certificate, which follows from it.
        if others.is_empty() {
            self.write_key()?;
        }
        files::replace(&self.ca(), &(self.authority.pem() + others), files::PUBLIC)?;
        match others.is_empty() {
            true => Ok(()),
            false => self.write_key(),
        }
    }

    fn write_key(&self) -> Result<()> {
        let key = self.authority.key_pem();
        files::replace(&self.dir.join(CA_KEY), &key, files::SECRET)
    }

    /// The CAs to trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join(CA)
    }

    /// Whether a certificate can be made for `path`, `ROLE` or `ROLE/NAME`: nothing is made yet.
    ///
    /// # Errors
    /// When no daemon would accept the identity, or one of the files is there already.
    pub fn may_issue(&self, path: &str) -> Result<()> {
        identity(&self.trust_domain, path)?;
        let files = self.files(path);
        let there = [files.cert, files.key]
            .into_iter()
            .find(|it| it.symlink_metadata().is_ok());
        there.map_or(Ok(()), |file| Err(Error::Exists(file)))
    }

    /// Whether a certificate can be made for `path` in place of the one that may be there: nothing is made yet.
    ///
    /// # Errors
    /// When no daemon would accept the identity.
    pub fn may_renew(&self, path: &str) -> Result<()> {
        identity(&self.trust_domain, path).map(|_| ())
    }

    /// The hosts that the certificate for `path` names, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn hosts(&self, path: &str) -> Result<Vec<Host>> {
        let file = self.files(path).cert;
        let pem = files::read(&file)?;
        let hosts = pem.map(|pem| Host::named_by(&pem)).transpose();
        hosts
            .map(Option::unwrap_or_default)
            .map_err(|_| Error::Unnamed(file))
    }

    /// Whether the CA that signs is valid for so many more days.
    ///
    /// # Errors
    /// When it is not.
    pub fn may_last(&self, days: i64) -> Result<()> {
        self.authority.may_last(days)
    }

    /// Makes a certificate for `path`.
    ///
    /// # Errors
    /// As [`Certificates::may_issue`] and [`Certificates::may_last`], or when the files cannot be written.
    pub fn issue(&self, path: &str, terms: impl Into<Terms>) -> Result<CertificateFiles> {
        self.may_issue(path)?;
        self.renew(path, terms)
    }

    /// Makes a certificate for `path` in place of the one that may be there. Each file is
    /// replaced at once, so that a running daemon never reads a half.
    ///
    /// # Errors
    /// When no daemon would accept the identity, it would outlive the CA, or the files cannot be written.
    pub fn renew(&self, path: &str, terms: impl Into<Terms>) -> Result<CertificateFiles> {
        let whose = identity(&self.trust_domain, path)?;
        let files = self.files(path);
        let _lock = files::lock(&self.dir)?;
        let Terms { days, mut hosts } = terms.into();
        if hosts.is_empty() {
            // One that names no hosts is accepted at any: that is no change to be made in passing.
            hosts = self.hosts(path)?;
        }
        let (cert, key) = self.authority.sign(&whose, days, &hosts)?;
        files::replace(&files.cert, &cert, files::PUBLIC)?;
        files::replace(&files.key, &key, files::SECRET)?;
        Ok(files)
    }

    /// Where the certificate for `path` is, or will be.
    #[must_use]
    pub fn files(&self, path: &str) -> CertificateFiles {
        let name = path.replace('/', "-");
        CertificateFiles {
            cert: self.dir.join(format!("{name}.pem")),
            key: self.dir.join(format!("{name}{KEY_ENDING}.pem")),
        }
    }
}

/// Who a certificate for `path` makes its holder, as daemons will read it.
fn identity(trust_domain: &str, path: &str) -> Result<Identity> {
    let uri = format!("spiffe://{trust_domain}/millrace/{path}");
    let unfit = |detail: String| Error::Unfit {
        uri: uri.clone(),
        detail,
    };
    let whose: Identity = uri
        .parse()
        .map_err(|error: IdentityError| unfit(error.to_string()))?;
    // `copier/key` would have the file of the key of `copier`.
    let name = whose.name.as_deref().unwrap_or_default();
    if name == "key" || name.ends_with(KEY_ENDING) {
        return Err(unfit(
            "its name must not end with 'key', as the files of keys do".to_owned(),
        ));
    }
    Ok(whose)
}

#[cfg(test)]
mod tests;
