//! Whom a stream is kept to.

use millrace_notation::address::HostPort;

use super::Backoff;
use crate::transport::{Security, Timeouts};

/// The daemon at the other end of a stream that is kept up, and how it is reached.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it is; its name is resolved anew at each attempt.
    pub address: HostPort,
    /// Its certificate must confirm the address: the operator has not named it.
    pub must_confirm: bool,
    /// How the channel is protected.
    pub security: Security,
    /// The waits between attempts.
    pub backoff: Backoff,
    /// How long it may be silent.
    pub timeouts: Timeouts,
}

impl Peer {
    /// One that the operator has named, with the defaults: a silent peer is noticed within 5 s, one that is back is found
    /// within 2 s.
    pub fn new(address: HostPort, security: Security) -> Self {
        Self {
            address,
            must_confirm: false,
            security,
            backoff: Backoff::default(),
            timeouts: Timeouts::default(),
        }
    }
}
