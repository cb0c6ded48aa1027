//! The server as an operator sees it: at /status and in metrics.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_proto::v1::refused::Code;

use super::QueueStatus;
use super::registry::Registry;
use crate::transport::{HandshakeStatus, Handshakes};
use millrace_routes::interceptor::ConnId;

/// One open stream.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConnectionStatus {
    /// Its number.
    pub conn: ConnId,
    /// The copier's name.
    pub copier_id: String,
    /// Number of the link.
    pub link: u32,
    /// How many links the copier opens.
    pub links: u32,
    /// Whether the copier claims ranges.
    pub claims: bool,
    /// Where it comes from.
    pub address: Option<SocketAddr>,
    /// Its response headers.
    pub queue: QueueStatus,
}

/// The streams, and counts since the process started.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ServerStatus {
    /// The open streams, oldest first.
    pub connections: Vec<ConnectionStatus>,
    /// Streams that attached.
    pub attached: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Bytes of packed records and ids received.
    pub bytes_in: u64,
    /// Flows announced.
    pub announced: u64,
    /// Flows forgotten.
    pub forgotten: u64,
    /// Streams refused because they broke the contract.
    pub malformed: u64,
    /// Streams refused or ended because a newer one of the same copier exists.
    pub replaced: u64,
    /// Streams refused for any other reason.
    pub refused: u64,
    /// Connections let in and refused before any stream.
    pub handshakes: HandshakeStatus,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    attached: AtomicU64,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    announced: AtomicU64,
    forgotten: AtomicU64,
    malformed: AtomicU64,
    replaced: AtomicU64,
    refused: AtomicU64,
}

fn add(counter: &AtomicU64, n: usize) {
    counter.fetch_add(n as u64, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn attached(&self) {
        add(&self.attached, 1);
    }

    pub(super) fn message(&self) {
        add(&self.messages_in, 1);
    }

    pub(super) fn announced(&self, bytes: usize, count: usize) {
        add(&self.bytes_in, bytes);
        add(&self.announced, count);
    }

    pub(super) fn forgotten(&self, bytes: usize, count: usize) {
        add(&self.bytes_in, bytes);
        add(&self.forgotten, count);
    }

    pub(super) fn refused(&self, code: Code) {
        let counter = match code {
            Code::Malformed => &self.malformed,
            Code::Replaced => &self.replaced,
            Code::Unspecified
            | Code::Version
            | Code::ClaimConflict
            | Code::Overloaded
            | Code::Unsafe
            | Code::ShuttingDown => &self.refused,
        };
        add(counter, 1);
    }

    pub(super) fn status(&self, registry: &Registry, handshakes: &Handshakes) -> ServerStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerStatus {
            connections: registry.connections(),
            attached: load(&self.attached),
            messages_in: load(&self.messages_in),
            bytes_in: load(&self.bytes_in),
            announced: load(&self.announced),
            forgotten: load(&self.forgotten),
            malformed: load(&self.malformed),
            replaced: load(&self.replaced),
            refused: load(&self.refused),
            handshakes: handshakes.status(),
        }
    }
}
