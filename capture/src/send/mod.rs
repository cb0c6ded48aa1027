//! Complete IP packets, with any source address, in batches.
//!
//! Either through the kernel's routing (raw sockets: rules, firewall and connection tracking of
//! this host apply), or at the link layer (packet socket: they do not, and the next
//! hop comes from [`NextHops`]). A packet that cannot be sent is reported and
//! counted; nothing here ends a process or waits for long.

mod batch;
mod failure;
mod lane;
mod link;
mod raw;

use std::net::IpAddr;

pub use failure::{SendCounters, SendErrorKind, SendFailure};
pub use link::LinkSocket;

use crate::error::CaptureError;
use crate::next_hop::NextHops;
use crate::sys::send_batch::MAX_BATCH;
use failure::Outcome;
use link::LinkRoute;
use raw::RawRoute;

/// How packets are to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderConfig {
    /// The longest packet, in bytes from the IP header on (at most 65,535).
    pub max_packet: usize,
    /// Packets that are sent with one system call, 1 to 64.
    pub batch: usize,
    /// The socket's send buffer, in bytes. Above the system's limit (`net.core.wmem_max`) it
    /// needs CAP_NET_ADMIN, and is that limit without.
    pub send_buffer: usize,
    /// A mark for policy rules and firewalls (`SO_MARK`; needs CAP_NET_ADMIN).
    pub mark: Option<u32>,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            max_packet: 1500,
            batch: MAX_BATCH,
            send_buffer: 4 << 20,
            mark: None,
        }
    }
}

/// Sends packets. Belongs to one thread.
#[derive(Debug)]
pub struct Sender {
    route: Route,
    outcome: Outcome,
}

#[derive(Debug)]
enum Route {
    Raw(RawRoute),
    Link(LinkRoute),
}

impl Sender {
    /// A sender through the kernel's routing.
    ///
    /// # Errors
    /// No privilege. A host without IPv6 is no error: only packets to IPv6 addresses are.
    pub fn raw(config: &SenderConfig) -> Result<Self, CaptureError> {
        Ok(Self {
            route: Route::Raw(RawRoute::open(config)?),
            outcome: Outcome::default(),
        })
    }

    /// A sender at the link layer, whose next hops these are.
    pub fn link(socket: LinkSocket, hops: &NextHops) -> Self {
        Self {
            route: Route::Link(LinkRoute::new(socket, hops)),
            outcome: Outcome::default(),
        }
    }

    /// What the kernel granted of [`SenderConfig::send_buffer`], in bytes.
    pub fn send_buffer(&self) -> usize {
        match &self.route {
            Route::Raw(route) => route.buffer(),
            Route::Link(route) => route.buffer(),
        }
    }

    /// Adds a packet to the batch: `write` puts it, from its IP header on and with its checksums,
    /// into the slice (as long as the longest packet) and returns its length; 0 adds nothing.
    ///
    /// A full batch is sent. What fails is told at the next [`flush`](Self::flush), with the
    /// packet's `cookie`.
    pub fn push(
        &mut self,
        cookie: u64,
        destination: IpAddr,
        write: impl FnOnce(&mut [u8]) -> usize,
    ) {
        match &mut self.route {
            Route::Raw(route) => route.push(cookie, destination, write, &mut self.outcome),
            Route::Link(route) => route.push(cookie, destination, write, &mut self.outcome),
        }
    }

    /// Sends what is in the batch, and tells of every packet since the last call that could not
    /// be sent. When the socket is full this waits, for some milliseconds at most.
    pub fn flush(&mut self, on_error: impl FnMut(SendFailure)) {
        match &mut self.route {
            Route::Raw(route) => route.flush(&mut self.outcome),
            Route::Link(route) => route.flush(&mut self.outcome),
        }
        self.outcome.failures.drain(..).for_each(on_error);
    }

    /// Throws away what is in the batch.
    pub fn discard(&mut self) {
        match &mut self.route {
            Route::Raw(route) => route.discard(),
            Route::Link(route) => route.discard(),
        }
    }

    /// What was sent and what was not.
    pub fn counters(&self) -> &SendCounters {
        &self.outcome.counters
    }
}
