//! Offline: a recording takes the place of live traffic.
//!
//! ```text
//!   files ──▶ reader (a thread) ──▶ batches ──▶ feed (in the shard) ──▶ engine
//! ```
//!
//! - [`options`]: what is replayed, how fast, how often, and what counts as success.
//! - [`inputs`]: whether `-i` names devices or files.
//! - [`reader`]: reads and decompresses, off the shard's thread.
//! - [`timeline`]: when a packet of a recording is due.
//! - [`feed`]: hands packets to the engine when they are due and as fast as it can take them.
//! - [`outcome`]: what a replay amounts to, and whether that is enough.
//! - [`progress`]: how far it is, for the operator to see.

pub mod feed;
pub mod inputs;
pub mod options;
pub mod outcome;
pub mod progress;
pub mod reader;
pub mod timeline;
