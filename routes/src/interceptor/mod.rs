//! Who owns a flow, and what copiers are told.
//!
//! - `owners`: which stream announced a flow.
//! - `claims`: which copier has which part of the client pools.
//! - `pending`: headers that came before their route info.
//! - `wishes`: flows whose responses are to come with their payload.
//! - `registry`: all of them together.

mod claims;
mod owners;
mod pending;
mod registry;
mod wishes;

use std::time::Duration;

pub use registry::{Counts, Registry, Word};

/// How long flows and a claim outlive a stream that broke: longer than a copier takes to notice that (it pings every two seconds,
/// and waits three for the answer).
pub const LEASE: Duration = Duration::from_secs(6);

/// Number of a stream, unique in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct ConnId(pub u64);

/// Whose a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The copier's stable name.
    pub copier_id: String,
    /// Its run.
    pub run: u64,
    /// Number of the link, below `links`.
    pub link: u32,
    /// How many links it opens.
    pub links: u32,
}
