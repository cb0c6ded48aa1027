//! The three files: reading them within bounds, and noticing that one has changed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Much more than a bundle of CAs needs. Bytes.
const MAX_FILE: u64 = 1 << 20;

/// Longest chain that we send. Certificates.
const MAX_CHAIN: usize = 8;

/// Where the PEM files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// The CAs that peers' certificates must come from.
    pub(crate) ca: PathBuf,
    /// Our certificate, then its intermediate CAs.
    pub(crate) cert: PathBuf,
    /// The key of our certificate.
    pub(crate) key: PathBuf,
}

/// What the files were when they were looked at. Another stamp means another content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stamp([Option<FileStamp>; 3]);

/// Device, inode, length, and both times in nanoseconds.
type FileStamp = (u64, u64, u64, i128, i128);

/// What stands in the files.
pub(super) struct Contents {
    pub(super) roots: RootCertStore,
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl TlsFiles {
    /// Follows symbolic links, so that a swapped link is noticed.
    pub(super) fn stamp(&self) -> Stamp {
        let nanos =
            |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let of = |path: &Path| {
            let it = fs::metadata(path).ok()?;
            let modified = nanos(it.mtime(), it.mtime_nsec());
            let changed = nanos(it.ctime(), it.ctime_nsec());
            Some((it.dev(), it.ino(), it.size(), modified, changed))
        };
        Stamp([of(&self.ca), of(&self.cert), of(&self.key)])
    }

    /// # Errors
    /// The file, what is wrong with it, and what it should hold; in one line.
    pub(super) fn read(&self) -> Result<Contents, String> {
        let ca = read("--ca", &self.ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates("--ca", &self.ca, &ca)? {
            roots.add(certificate).map_err(|error| {
                format!(
                    "--ca {}: a certificate in it cannot be used as a CA ({error})",
                    self.ca.display()
                )
            })?;
        }
        let cert = read("--cert", &self.cert)?;
        let chain = certificates("--cert", &self.cert, &cert)?;
        if chain.len() > MAX_CHAIN {
            return Err(format!(
                "--cert {}: {} certificates are more than a chain needs ({MAX_CHAIN}): give this \
                 daemon's own and its intermediate CAs",
                self.cert.display(),
                chain.len()
            ));
        }
        let key = read("--key", &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
            format!(
                "--key {}: {}; it must hold an unencrypted private key in PEM (PKCS#8, SEC1 or \
                 PKCS#1)",
                self.key.display(),
                in_words(&error)
            )
        })?;
        Ok(Contents { roots, chain, key })
    }
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| {
        let who = rustix::process::geteuid().as_raw();
        let advice = match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                format!("; user {who}, as whom this daemon runs, must be able to read it")
            }
            // A foreign enum.
            _ => String::new(),
        };
        format!(
            "{option} {}: cannot read it: {error}{advice}",
            path.display()
        )
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!(
            "{option} {}: larger than {MAX_FILE} bytes",
            path.display()
        ));
    }
    Ok(bytes)
}

/// All certificates of a PEM file; at least one.
fn certificates(
    option: &str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let list = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{option} {shown}: {}", in_words(&error)))?;
    if list.is_empty() {
        return Err(format!("{option} {shown}: no certificate in PEM is in it"));
    }
    Ok(list)
}

/// Without the content: a part of a key must not get into a log.
fn in_words(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a PEM section in it has no end: is it cut off?",
        pem::Error::IllegalSectionStart { .. } => "a line in it is no proper begin of PEM",
        pem::Error::Base64Decode(_) => "a PEM section in it is not base64",
        pem::Error::NoItemsFound => "nothing of this kind is in it",
        // A foreign enum without an end.
        _ => "it is no PEM file that can be read",
    }
}
