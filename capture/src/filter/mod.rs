//! Which packets the kernel puts into a capture ring.
//!
//! A [`Filter`] says what is wanted; compiled for the link type of a device it is a [`Program`]
//! of classic BPF, which runs in the kernel on every packet of the device. The kernel's choice is
//! a first, coarse one: where a packet does not show its ports (fragments, IPv6 extension
//! headers), it is let through by its address, and the reader has to look again.

mod assembler;
mod compile;
mod endpoints;
#[cfg(test)]
mod interpreter;
mod libpcap;
mod prelude;
mod program;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use millrace_wire::{LinkType, Tunnels};

pub use libpcap::Expression;
pub(crate) use prelude::prelude;
pub use program::{Instruction, Program};

/// A snap length that keeps the headers of any TCP packet, with options and tags, and no more
/// than a few bytes of payload: Ethernet with QinQ 22, IPv4 60 or IPv6 40, TCP 60, and room for
/// extension headers.
pub const HEADERS_ONLY: u32 = 192;

/// What is to be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Both directions of live services.
    Services(FilterSpec),
    /// What targets answer.
    Responses(ResponseFilter),
    /// What an expression of the operator says (`-F`).
    Expression(Expression),
    /// Of what goes to live services, connections that begin: SYNs. See [`crate::Census`].
    Connects(FilterSpec),
}

impl Filter {
    /// The program for devices whose frames begin in this way; `snap_len` bounds what is kept of
    /// any packet, in bytes.
    ///
    /// # Errors
    /// Too many services for one program; or what libpcap says of an expression.
    pub fn compile(&self, link: LinkType, snap_len: u32) -> Result<Program, FilterError> {
        match self {
            Self::Services(spec) => compile::services(spec, link, snap_len),
            Self::Responses(spec) => compile::responses(spec, link, snap_len),
            Self::Expression(expression) => expression.compile(link, snap_len),
            Self::Connects(spec) => compile::connects(spec, link, snap_len),
        }
    }
}

impl Filter {
    /// Whether it keeps frames that are longer than their headers.
    pub fn keeps_long_frames(&self) -> bool {
        match self {
            Self::Services(spec) => {
                spec.client_snap_len.max(spec.server_snap_len) > HEADERS_ONLY
                    || !spec.whole_services.is_empty()
            }
            Self::Responses(spec) => spec.snap_len > HEADERS_ONLY || !spec.whole_ports.is_empty(),
            Self::Expression(expression) => expression.snap_len > HEADERS_ONLY,
            Self::Connects(_) => false,
        }
    }
}

/// A TCP service whose packets are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServiceFilter {
    /// Its address; `None`, or an unspecified address, for every address of this host.
    pub address: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

/// The traffic of live services: from clients whole, to clients perhaps only headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSpec {
    /// The services.
    pub services: Vec<ServiceFilter>,
    /// What "every address of this host" means; empty: any address at all.
    pub local_addresses: Vec<IpAddr>,
    /// Packets to these are not captured, though they match: our own copies on their way to the
    /// target.
    pub exclude: Vec<SocketAddr>,
    /// Bytes kept of a packet to a service; 0 leaves them out.
    pub client_snap_len: u32,
    /// Bytes kept of a packet from a service; 0 leaves them out. See [`HEADERS_ONLY`].
    pub server_snap_len: u32,
    /// Packets from these services are kept as far as the ring keeps any.
    pub whole_services: Vec<ServiceFilter>,
    /// Packets that may bear one of these tunnels are captured whole, whatever is inside: the reader has to look.
    pub tunnels: Tunnels,
}

impl FilterSpec {
    /// The same ports at any address: a shorter program, which lets more through.
    #[must_use]
    pub fn of_any_address(mut self) -> Self {
        for services in [&mut self.services, &mut self.whole_services] {
            services
                .iter_mut()
                .for_each(|service| service.address = None);
        }
        self.local_addresses.clear();
        self
    }
}

/// TCP packets that come from targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseFilter {
    /// The targets; empty: whatever is TCP.
    pub sources: Vec<ServiceFilter>,
    /// Bytes kept of each packet, but of those from `whole_ports`.
    pub snap_len: u32,
    /// Packets from these ports are kept as far as the ring keeps any; port 0 stands for all ports.
    pub whole_ports: Vec<u16>,
    /// Packets to and from these are not captured: what is said about responses is none.
    pub exclude: Vec<SocketAddr>,
}

impl Default for ResponseFilter {
    /// The headers of whatever is TCP.
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            snap_len: HEADERS_ONLY,
            whole_ports: Vec::new(),
            exclude: Vec::new(),
        }
    }
}

/// Why a filter cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The kernel takes no program of this length.
    #[error(
        "{services} services need a kernel filter of {instructions} instructions, the kernel takes \
         {max}: copy fewer services at once, or give their port without an address",
        max = Program::MAX_INSTRUCTIONS
    )]
    TooLong {
        /// How many services were to be matched.
        services: usize,
        /// How long the program became.
        instructions: usize,
    },
    /// libpcap is not installed.
    #[error(
        "-F needs libpcap, which was not found: install it (Debian, Ubuntu: libpcap0.8; \
         Fedora, RHEL: libpcap) or leave -F out: {reason}"
    )]
    LibraryMissing {
        /// What the dynamic linker said.
        reason: String,
    },
    /// libpcap does not accept the expression.
    #[error("the filter expression {expression:?} (-F) is wrong: {message}")]
    Expression {
        /// The expression.
        expression: String,
        /// libpcap's message, as it is.
        message: String,
    },
}
