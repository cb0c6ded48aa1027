//! What stands in the way of a certificate, told so that the reader knows what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written; the text says which.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// The system's own error.
        source: io::Error,
    },
    /// It would be written over.
    #[error(
        "{} is there already, and a daemon may use it: give --renew to replace it, or another --dir",
        .0.display()
    )]
    Exists(PathBuf),
    /// Two certificates were asked for at once that are the same.
    #[error("{0} is asked for twice")]
    Twice(String),
    /// Of a CA only one file is there.
    #[error(
        "{} is there without {}: bring the two together, or give another --dir",
        there.display(),
        missing.display()
    )]
    Half {
        /// The one that is there.
        there: PathBuf,
        /// The other one.
        missing: PathBuf,
    },
    /// The CA was made by something else, which must sign with it, too.
    #[error(
        "the CA in {} is not one of this command: sign with what made it (docs/security.md shows how with openssl), or give \
         another --dir",
        .0.display()
    )]
    Foreign(PathBuf),
    /// No daemon would accept such a certificate.
    #[error("no certificate can be made for {uri}: {detail}")]
    Unfit {
        /// Whom it would be for.
        uri: String,
        /// What is wrong with it, as the end of a sentence.
        detail: String,
    },
    /// It would say that it is valid when its chain is not any more (RFC 5280, section 6.1.3).
    #[error(
        "{days} days are more than the CA has left, {left}: give fewer --days, or make another CA first (--new-ca)"
    )]
    OutlivesCa {
        /// How long it would be valid. Days.
        days: i64,
        /// How long the CA is. Days.
        left: i64,
    },
    /// The CA is not valid any more.
    #[error("the CA has ended: make another one (--new-ca)")]
    Ended,
    /// The hosts that the certificate to be replaced names cannot be read, and it may name some.
    #[error(
        "the hosts that {} names cannot be read: give them with --host, or remove the file for a certificate without any",
        .0.display()
    )]
    Unnamed(PathBuf),
    /// Key or certificate could not be made or read.
    #[error("{what}: {detail}")]
    Cryptography {
        /// What was being done, to what.
        what: String,
        /// What the library says.
        detail: String,
    },
}

/// What came of making a certificate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn half(there: &Path, missing: &Path) -> Self {
        Self::Half {
            there: there.to_owned(),
            missing: missing.to_owned(),
        }
    }
}
