//! What became of packets.

use std::net::IpAddr;

/// Why a packet was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SendErrorKind {
    /// A firewall of this host refused it (EPERM), or the address may not be used (EACCES).
    NotPermitted,
    /// The socket's buffer or the device's queue is full (EAGAIN, ENOBUFS).
    NoBuffers,
    /// Longer than the device or the path takes (EMSGSIZE).
    MessageTooLong,
    /// No route, or no answer from the next hop (EHOSTUNREACH, ENETUNREACH).
    Unreachable,
    /// The device is down or gone (ENETDOWN, ENODEV, ENXIO).
    NetworkDown,
    /// The kernel does not take it for a packet, or there is no socket for it (EINVAL).
    InvalidArgument,
    /// Anything else; see [`SendFailure::errno`].
    Other,
}

impl SendErrorKind {
    /// All kinds, in the order of their counters.
    pub const ALL: [Self; 7] = [
        Self::NotPermitted,
        Self::NoBuffers,
        Self::MessageTooLong,
        Self::Unreachable,
        Self::NetworkDown,
        Self::InvalidArgument,
        Self::Other,
    ];

    /// A name for metrics and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotPermitted => "not_permitted",
            Self::NoBuffers => "no_buffers",
            Self::MessageTooLong => "message_too_long",
            Self::Unreachable => "unreachable",
            Self::NetworkDown => "network_down",
            Self::InvalidArgument => "invalid_argument",
            Self::Other => "other",
        }
    }

    fn of(errno: i32) -> Self {
        match errno {
            libc::EPERM | libc::EACCES => Self::NotPermitted,
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Self::NoBuffers,
            libc::EMSGSIZE => Self::MessageTooLong,
            libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EADDRNOTAVAIL => Self::Unreachable,
            libc::ENETDOWN | libc::ENODEV | libc::ENXIO => Self::NetworkDown,
            libc::EINVAL => Self::InvalidArgument,
            _ => Self::Other,
        }
    }
}

/// A packet that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendFailure {
    /// What the caller gave to `push` with the packet.
    pub cookie: u64,
    /// Where it was to go.
    pub destination: IpAddr,
    /// Its length in bytes, from the IP header on; 0 when it was never written, because there was
    /// no way for it.
    pub length: usize,
    /// Why.
    pub kind: SendErrorKind,
    /// The error number, as in `errno(3)`.
    pub errno: i32,
}

/// What a sender sent, and what it could not.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SendCounters {
    /// Packets that the kernel took.
    pub packets: u64,
    /// Their bytes, from the IP header on.
    pub bytes: u64,
    /// System calls that took at least one packet.
    pub batches: u64,
    /// How often a full socket was waited for.
    pub waits: u64,
    failures: [u64; SendErrorKind::ALL.len()],
}

impl SendCounters {
    /// Packets that were not sent for this reason.
    pub fn failures(&self, kind: SendErrorKind) -> u64 {
        self.failures.get(kind as usize).copied().unwrap_or(0)
    }
}

/// Where results are put while packets are sent.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) counters: SendCounters,
    pub(super) failures: Vec<SendFailure>,
}

impl Outcome {
    /// A caller that never flushes shall not fill the memory; the counters stay exact.
    const MAX_PENDING: usize = 4096;

    pub(super) fn fail(&mut self, cookie: u64, destination: IpAddr, length: usize, errno: i32) {
        let kind = SendErrorKind::of(errno);
        if let Some(count) = self.counters.failures.get_mut(kind as usize) {
            *count += 1;
        }
        if self.failures.len() < Self::MAX_PENDING {
            self.failures.push(SendFailure {
                cookie,
                destination,
                length,
                kind,
                errno,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_counter_of_its_own() {
        for (position, kind) in SendErrorKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, position, "{}", kind.name());
        }
    }

    #[test]
    fn failures_that_nobody_asks_for_stay_bounded_and_counted() {
        let mut outcome = Outcome::default();
        for cookie in 0..10_000 {
            outcome.fail(cookie, "198.18.0.1".parse().unwrap(), 40, libc::EPERM);
        }
        let counted = outcome.counters.failures(SendErrorKind::NotPermitted);
        assert_eq!(counted, 10_000);
        assert_eq!(outcome.failures.len(), Outcome::MAX_PENDING);
    }
}
