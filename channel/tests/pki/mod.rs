//! CAs and certificates, good ones and all kinds of wrong ones.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::{Path, PathBuf};

use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

pub(crate) type Ca = CertifiedIssuer<'static, KeyPair>;

pub(crate) fn ca(name: &str) -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate with its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// Valid for both uses from 2020 to 2100, with these URIs.
pub(crate) fn params(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2100, 1, 1);
    params
}

pub(crate) fn sign(ca: &Ca, params: &CertificateParams) -> Pair {
    let key = KeyPair::generate().unwrap();
    Pair {
        cert: params.signed_by(&key, ca).unwrap().pem(),
        key: key.serialize_pem(),
    }
}

/// A good one of `example.test`.
pub(crate) fn good(ca: &Ca, path: &str) -> Pair {
    sign(
        ca,
        &params(&[&format!("spiffe://example.test/millrace/{path}")]),
    )
}

/// A directory with the three files, removed at the end.
pub(crate) struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Files {
    pub(crate) fn new(name: &str, cas: &[&Ca], pair: &Pair) -> Self {
        let dir = std::env::temp_dir().join(format!("millrace-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let files = Files(dir);
        files.write_cas(cas);
        files.write_pair(pair);
        files
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.0.join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("key.pem")
    }

    /// In place of the old file at once, as certificate tools do.
    fn replace(&self, path: &Path, content: &str) {
        let fresh = self.0.join("fresh");
        std::fs::write(&fresh, content).unwrap();
        std::fs::rename(&fresh, path).unwrap();
    }

    pub(crate) fn write_cas(&self, cas: &[&Ca]) {
        let all: String = cas.iter().map(|ca| ca.pem()).collect();
        self.replace(&self.ca(), &all);
    }

    pub(crate) fn write_cert(&self, pair: &Pair) {
        self.replace(&self.cert(), &pair.cert);
    }

    pub(crate) fn write_key(&self, pair: &Pair) {
        self.replace(&self.key(), &pair.key);
    }

    pub(crate) fn write_pair(&self, pair: &Pair) {
        self.write_cert(pair);
        self.write_key(pair);
    }

    pub(crate) fn security(&self, role: Role) -> Security {
        Security::from_files(&self.ca(), &self.cert(), &self.key(), role).unwrap()
    }
}
