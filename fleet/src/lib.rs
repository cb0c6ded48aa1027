//! How the daemons of a cluster find each other: lists that the operator wrote, or Consul.
//!
//! - [`peers`]: how peers are named on a command line, and [`peers::Peers`], which says who is meant now;
//! - [`directory`]: what each kind of list gives, one trait with two implementations: [`directory::Fixed`], and
//!   [`consul::Service`];
//! - [`consul`]: the client of Consul's HTTP API, what is followed there and what is registered;
//! - [`memory`]: the last known peers on disk, for a start without Consul.
//!
//! What Consul says is data to be checked: addresses are parsed, an empty list never means that all have left, and who
//! a peer is its certificate says, not Consul.

pub mod consul;
pub mod directory;
pub mod memory;
pub mod options;
pub mod peers;
