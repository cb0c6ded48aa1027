//! Holding what diverts a target's responses: the copier's and the router-agent's side of the
//! `Hold` stream.
//!
//! - [`client`]: asks one agent for what is needed, and keeps the stream up for ever.
//! - [`server`]: takes such streams, and hands what they ask for to the agent's thread.
//! - [`standing`]: what that thread knows of its host, for the server's streams.
//! - [`status`]: the client's stream as an operator sees it, and whether it is in force.

pub mod client;
pub mod server;
pub mod standing;
pub mod status;

pub use client::{HoldConfig, HoldEvent, HoldHandle, spawn};
pub use standing::{HostLife, Standing};
pub use status::HoldStatus;
