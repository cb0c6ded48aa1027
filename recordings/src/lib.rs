//! Recordings as files: how they are read, written and inspected, and how one takes the place of live traffic.
//!
//! ```text
//!   files ──▶ reader (a thread) ──▶ batches ──▶ feed (in whoever owns the engine) ──▶ engine
//! ```
//!
//! - [`inputs`]: whether `-i` names devices or files.
//! - `reader`: reads and decompresses, on a thread of its own.
//! - [`timeline`]: when a packet of a recording is due.
//! - [`feed`]: hands packets to the engine when they are due and as fast as it can take them.
//! - `progress`: how far that is, for the operator to see.
//! - [`recording`]: what a report says of a recording that is replayed.
//! - [`rehearsal`]: a replay without a network.
//! - [`inspect`]: what recordings hold.
//! - [`record`]: live traffic into files.

pub mod feed;
pub mod inputs;
pub mod inspect;
#[cfg(test)]
mod made_recording;
mod progress;
mod reader;
pub mod record;
pub mod recording;
pub mod rehearsal;
pub mod timeline;
