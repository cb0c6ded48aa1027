//! What can go wrong in a lab, told so that the reader knows what to do next.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// An error of the lab.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation of the operating system failed; the text says which.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// The system's own error.
        source: io::Error,
    },
    /// A program that the lab needs is not installed.
    #[error(
        "the program '{program}' was not found: run lab/install-deps.sh, or install it by hand"
    )]
    NoProgram {
        /// The name that was looked for in `PATH`.
        program: String,
    },
    /// One of Millrace's own binaries is not where the lab looks for it.
    #[error("'{name}' is not beside {beside}: build it first (cargo build --workspace)")]
    NoBinary {
        /// File name of the binary.
        name: String,
        /// The executable beside which it was looked for.
        beside: PathBuf,
    },
    /// A program ended with a failure.
    #[error("'{command}' failed ({status}): {message}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status, in words.
        status: String,
        /// What it wrote to standard error.
        message: String,
    },
    /// A condition did not come true in time.
    #[error("waited {waited:?} in vain for {what}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// The caller asked for something that the lab cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// Text that should have been a record, a number or JSON was something else.
    #[error("{what} cannot be understood: {detail}")]
    Malformed {
        /// Where the text came from.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// A result of the lab.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    /// Names the operation; `what` is only evaluated when it failed.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}

impl<T> Doing<T> for rustix::io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Error::Io {
            what: what(),
            source: errno.into(),
        })
    }
}
