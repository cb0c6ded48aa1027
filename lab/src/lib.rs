//! A network lab on namespaces: hosts, switches, bad cables, real and recording servers, and load.
//!
//! The demo, the whole-system tests and the benchmarks of Millrace stand on it. Every packet stays inside
//! namespaces that the lab made itself; everything it made goes with it.
//!
//! - [`Lab`], [`Host`], [`Switch`], [`Link`] and [`Process`] are the parts; [`Stage`] is the standard layout.
//! - [`cluster`] is the layout with a director and real servers in place of the one target.
//! - [`Mirror`] is a switch's mirror port: what passes one device leaves another one too.
//! - [`fault`] makes cables lose, duplicate, reorder and delay.
//! - [`recorder`] is a server that hashes what it receives; [`records`] compares what two of them received.
//! - [`load`] is client traffic of several kinds in which every answer is checked.
//! - [`plot`] draws what was measured.
//! - [`apps`] starts real servers; [`enter`] gets the rights that all this needs.

mod admin;
pub mod apps;
pub mod cluster;
mod command;
mod error;
pub mod fault;
mod frames;
mod host;
mod lab;
mod link;
pub mod load;
mod mirror;
mod pattern;
pub mod plot;
mod privilege;
mod process;
mod program;
pub mod recorder;
pub mod records;
mod sockets;
mod stage;
mod wait;

pub use command::find as find_program;
pub use error::{Error, Result};
pub use host::Host;
pub use lab::Lab;
pub use link::{Link, Switch, connect};
pub use mirror::Mirror;
pub use privilege::{enter, missing};
pub use process::{CpuTime, Process};
pub use program::binary;
pub use stage::{Addresses, DEVICE, Network, Place, Stage, StageOptions};
pub use wait::{wait_for, wait_some};
