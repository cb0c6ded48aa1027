//! The streams between daemons: what they say, over which connection, and who may say it.
//!
//! - [`transport`]: bytes between two daemons, by HTTP/2 over TCP, and in which security.
//! - [`tls`]: certificates, the roles in them, and why a handshake was refused.
//! - [`upkeep`]: how a stream is kept up, and let in, whatever is said on it.
//! - [`link`] and [`server`]: the copier's and the interceptor's end of the stream that carries route info one way and
//!   response headers the other.
//! - [`hold`]: both ends of the stream on which a copier holds what a router-agent installs for it.
//!
//! - [`check`]: what can be known of all that before it is used.
//!
//! Each client keeps its stream up for ever; each server bounds what a peer may cost.

pub mod check;
pub mod hold;
pub mod link;
pub mod server;
pub mod tls;
pub mod transport;
pub mod upkeep;
