//! A stream to another daemon that is kept up for ever, whatever the two say to each other on it.
//!
//! What is common to all: connect, say a first message, judge the answer, take in what comes, ping,
//! and after any end wait and begin again.
//!
//! - `contract`: what one kind of stream adds to that.
//! - `machine`: when what is done; no clock, no I/O.
//! - `peer`: whom a stream is kept to.
//! - `task`: the machine on tokio, over the connection of `line`.
//! - `serving`: the other end: what servers of all contracts ask of a peer.

mod backoff;
mod contract;
mod line;
mod machine;
mod peer;
mod serving;
mod task;
mod words;

pub use backoff::Backoff;
pub use peer::Peer;

pub(crate) use contract::{Contract, End, Refusal, Taken, Terms, Wire};
pub(crate) use line::{Dial, call};
pub(crate) use serving::{Bounds, First, Serving, check_name, first, shown, unreadable};
pub(crate) use task::spawn;
pub(crate) use words::{check_version, printable};
