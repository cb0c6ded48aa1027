//! The material in use, and its replacement when the files change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use x509_cert::der::DateTime;

use super::files::{Stamp, TlsFiles};
use super::material::Material;
use super::{Identity, Role};

/// Holds the certificates of this daemon. New handshakes use the newest; open connections stay.
#[derive(Debug)]
pub struct Store {
    files: TlsFiles,
    role: Role,
    current: Mutex<Arc<Material>>,
    attempts: Mutex<Attempts>,
    reloads: AtomicU64,
    failed: AtomicU64,
}

/// What was tried last.
#[derive(Debug, Default)]
struct Attempts {
    /// What the files were at the last look, used or not.
    seen: Stamp,
    /// What the files were when the material in use was read.
    used: Stamp,
    /// Why the files as they are now cannot be used, until they can.
    error: Option<String>,
    /// Whether that has been said.
    said: bool,
}

/// What came of a look at the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// As they were.
    Same,
    /// They are in use now.
    Reloaded,
    /// They cannot be used; the old ones stay. Said once for each content.
    Unusable(String),
}

/// This daemon's certificate, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CertificateStatus {
    /// Its URI.
    pub id: String,
    /// When it begins to be valid. RFC 3339, UTC.
    pub not_before: String,
    /// Seconds until then; 0 once it is valid.
    pub begins_in_seconds: u64,
    /// When it ends. RFC 3339, UTC.
    pub not_after: String,
    /// Seconds until then; negative afterwards.
    pub expires_in_seconds: i64,
    /// When it was read. RFC 3339, UTC.
    pub loaded_at: String,
    /// How often changed files were taken into use.
    pub reloads: u64,
    /// How often changed files could not be used.
    pub failed_reloads: u64,
    /// Why the files as they are now cannot be used; empty when they are in use.
    pub last_error: String,
}

impl Store {
    pub(crate) fn load(files: TlsFiles, role: Role) -> Result<Self, String> {
        // The stamp first: what changes while we read is seen as a change afterwards.
        let stamp = files.stamp();
        let material = Material::load(&files, role)?;
        Ok(Store {
            files,
            role,
            current: Mutex::new(Arc::new(material)),
            attempts: Mutex::new(Attempts {
                seen: stamp.clone(),
                used: stamp,
                error: None,
                said: false,
            }),
            reloads: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    pub(crate) fn current(&self) -> Arc<Material> {
        self.current.lock().clone()
    }

    /// Who this daemon is.
    pub fn identity(&self) -> Identity {
        self.current().identity().clone()
    }

    pub(crate) fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// Looks at the files and takes them into use if they have changed and fit together.
    ///
    /// Three files cannot be replaced at one instant: that they do not fit is only said when they
    /// have stayed the same since the look before.
    pub(super) fn look(&self) -> Look {
        let mut attempts = self.attempts.lock();
        let stamp = self.files.stamp();
        if stamp == attempts.used {
            attempts.error = None;
            attempts.said = false;
            attempts.seen = stamp;
            return Look::Same;
        }
        let settled = stamp == attempts.seen;
        if settled && attempts.said {
            return Look::Same;
        }
        if !settled {
            attempts.seen = stamp.clone();
            attempts.said = false;
        }
        match Material::load(&self.files, self.role) {
            // Changed while we read: the next look decides.
            Ok(_) if self.files.stamp() != stamp => Look::Same,
            Ok(material) => {
                *self.current.lock() = Arc::new(material);
                attempts.used = stamp;
                attempts.error = None;
                attempts.said = false;
                self.reloads.fetch_add(1, Ordering::Relaxed);
                Look::Reloaded
            }
            Err(error) => {
                attempts.error = Some(error.clone());
                if !settled {
                    return Look::Same;
                }
                attempts.said = true;
                self.failed.fetch_add(1, Ordering::Relaxed);
                Look::Unusable(error)
            }
        }
    }

    /// For /status and metrics.
    pub fn status(&self) -> CertificateStatus {
        let material = self.current();
        let loaded = DateTime::from_system_time(material.loaded_at());
        CertificateStatus {
            id: material.identity().to_string(),
            not_before: material.not_before_text(),
            begins_in_seconds: material.begins_in(),
            not_after: material.not_after_text(),
            expires_in_seconds: material.expires_in(),
            loaded_at: loaded.map(|it| it.to_string()).unwrap_or_default(),
            reloads: self.reloads.load(Ordering::Relaxed),
            failed_reloads: self.failed.load(Ordering::Relaxed),
            last_error: self.attempts.lock().error.clone().unwrap_or_default(),
        }
    }
}
