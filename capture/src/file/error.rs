//! What can be wrong with a packet file.

use std::io;

use super::stranger::Stranger;

/// A file that could not be opened, or not be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {problem}")]
pub struct FileError {
    /// The file.
    pub name: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl FileError {
    pub(super) fn new(name: &str, problem: Problem) -> Self {
        Self {
            name: name.to_owned(),
            problem,
        }
    }

    /// Whether the file ends in the middle of a packet, as one does whose writer was killed.
    pub const fn is_truncated(&self) -> bool {
        matches!(self.problem, Problem::Truncated { .. })
    }
}

/// What is wrong with a file. Offsets are in bytes from its beginning, after decompression.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// It cannot be opened.
    #[error("cannot open it: {0}")]
    Open(#[source] io::Error),
    /// It cannot be read on, or not be decompressed.
    #[error("cannot read it beyond byte {offset}: {source}")]
    Read {
        /// How far it was read.
        offset: u64,
        /// What the system or the decompressor says.
        source: io::Error,
    },
    /// Nothing is in it.
    #[error("the file is empty: record again, or check the command that wrote it")]
    Empty,
    /// It is no recording.
    #[error("{0}")]
    NoRecording(Stranger),
    /// It ends in the middle of a packet or block.
    #[error("cut short in the middle of a packet at byte {offset}; what stands before it was used")]
    Truncated {
        /// Where that packet or block begins.
        offset: u64,
    },
    /// Its structure makes no sense.
    #[error("corrupt at byte {offset}: {what}; what stands before it was used")]
    Corrupt {
        /// Where the block or packet begins.
        offset: u64,
        /// What makes no sense.
        what: &'static str,
    },
}
