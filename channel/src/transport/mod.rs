//! How bytes get from one daemon to another: the only place that knows about sockets, TLS and the
//! settings of HTTP/2.
//!
//! A daemon that listens hands [`incoming()`] to the server of [`server_builder`]; one that connects
//! opens a [`channel`]. Both take a [`Security`], which says how the bytes are protected.

mod connect;
mod handshakes;
mod http2;
mod incoming;
mod security;
mod server_io;
mod shown;
mod write;

pub use connect::{Diagnosis, Opened, Timeouts, channel, reachable};
pub use handshakes::{HandshakeStatus, Handshakes};
pub use http2::server_builder;
pub use incoming::incoming;
pub use security::{Security, SecurityError};
pub use server_io::{Peer, ServerIo};
