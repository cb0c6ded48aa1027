//! The settings of HTTP/2 (RFC 9113), which bound what a peer can make this process hold and do.

use std::time::Duration;

use tonic::transport::{Endpoint, Server};

use super::Timeouts;

/// Streams open at a time on one connection: a daemon needs one or two.
const MAX_STREAMS: u32 = 8;

/// Names and values of one request's headers, uncompressed. Bytes. gRPC's own need a few hundred.
const MAX_HEADERS: u32 = 16 << 10;

/// A frame's payload. Bytes; the least that HTTP/2 allows to set (section 4.2).
const MAX_FRAME: u32 = 16 << 10;

/// Streams that a peer may open and reset before they are looked at ("rapid reset",
/// CVE-2023-44487); beyond it the connection ends.
const MAX_PENDING_RESETS: usize = 16;

/// Streams that we may have to reset because of a peer's faults; beyond it the connection ends.
const MAX_FAULTS: usize = 64;

/// What a server reads ahead of its service. Bytes: for one stream, for all of a connection.
const SERVER_WINDOW: (u32, u32) = (1 << 18, 1 << 19);

/// What a client reads ahead. Bytes: for one stream, for all of a connection.
const CLIENT_WINDOW: (u32, u32) = (1 << 20, 1 << 21);

/// A gRPC server with all limits set, to which services are added. It pings a silent peer every
/// `interval`, and ends its connection when no answer comes within `patience`.
pub fn server_builder(interval: Duration, patience: Duration) -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(interval))
        .http2_keepalive_timeout(Some(patience))
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
        .max_frame_size(MAX_FRAME)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(MAX_FAULTS))
        .initial_stream_window_size(SERVER_WINDOW.0)
        .initial_connection_window_size(SERVER_WINDOW.1)
}

pub(super) fn client(endpoint: Endpoint, timeouts: &Timeouts) -> Endpoint {
    endpoint
        .http2_keep_alive_interval(timeouts.keepalive_interval)
        .keep_alive_timeout(timeouts.keepalive_timeout)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(CLIENT_WINDOW.0)
        .initial_connection_window_size(CLIENT_WINDOW.1)
}
