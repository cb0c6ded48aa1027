//! The server's limits. Every one bounds what a peer can make this process hold.

use std::time::Duration;

use millrace_proto::MAX_MESSAGE_BYTES;

use crate::transport::Security;
use millrace_daemon::incarnation::Incarnation;

/// What a server needs to know.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// How the channel is protected.
    pub security: Security,
    /// Name of this interceptor, for the copiers' logs.
    pub interceptor_id: String,
    /// This run of this interceptor.
    pub incarnation: Incarnation,
    /// Events that may wait for the worker, each of `max_message_bytes` at most.
    pub event_capacity: usize,
    /// Response headers that may wait for one copier, in bytes.
    pub queue_bytes: usize,
    /// Largest message from a copier. Bytes.
    pub max_message_bytes: usize,
    /// What one stream may send per second; more is read more slowly. Bytes.
    pub max_bytes_per_second: u64,
    /// Open streams.
    pub max_streams: usize,
    /// Open TCP connections; further ones wait in the kernel.
    pub max_connections: usize,
    /// A stream without a Hello ends after this.
    pub hello_timeout: Duration,
    /// HTTP/2 ping interval.
    pub keepalive_interval: Duration,
    /// An unanswered ping ends the connection after this.
    pub keepalive_timeout: Duration,
}

impl ServerConfig {
    /// The defaults.
    pub fn new(security: Security, interceptor_id: impl Into<String>) -> Self {
        ServerConfig {
            security,
            interceptor_id: interceptor_id.into(),
            incarnation: Incarnation::of_this_process(),
            event_capacity: 256,
            queue_bytes: 8 << 20,
            max_message_bytes: MAX_MESSAGE_BYTES,
            max_bytes_per_second: 64 << 20,
            max_streams: 256,
            max_connections: 512,
            hello_timeout: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(3),
        }
    }
}
