//! Protocol modules: each plays the sessions of one protocol, on the engine's seam ([`millrace_engine::protocol`]).
//!
//! A module is sans-IO: it hears bytes and writes a script. It knows no sequence numbers, no time and no sockets.
//!
//! - [`kind`]: the modules by name (`--protocol PORT=NAME`).
//! - [`accounts`]: names and passwords at the target.
//! - [`http`]: HTTP/1.0 and 1.1.
//! - [`mysql`]: MySQL and MariaDB.
//! - [`redis`]: Redis and what speaks its protocol.
//! - `stage`: what players write on.
//! - [`writes`]: which requests may reach a target.

pub mod accounts;
pub mod http;
pub mod kind;
pub mod mysql;
pub mod redis;
mod stage;
pub mod writes;

pub use accounts::Accounts;
pub use kind::{Kind, Midway, Settings};
