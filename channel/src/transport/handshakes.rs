//! Counting refused connections, and saying so without flooding the log.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::tls::{Reason, Refusal};
use millrace_daemon::quiet::{Quiet, times_before};

/// Connections accepted and refused by one listener. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handshakes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    said: Quiet<(Option<IpAddr>, Reason)>,
}

/// The counts since the process started.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HandshakeStatus {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused, by reason ([`Reason::label`]); all reasons.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Handshakes {
    /// Nothing counted.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn accepted(&self) {
        self.shared.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts it, and logs it unless the same peer was refused for the same a moment ago.
    pub(super) fn refused(&self, peer: Option<SocketAddr>, refusal: &Refusal) {
        let counters = Reason::ALL.into_iter().zip(&self.shared.refused);
        for (_, counter) in counters.filter(|(reason, _)| *reason == refusal.reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let shown = peer.map_or_else(|| "a peer".to_owned(), |it| it.to_string());
        if refusal.reason == Reason::Aborted {
            tracing::debug!("{shown} refused: {refusal}");
            return;
        }
        // Another port is no other peer.
        let key = (peer.map(|it| it.ip()), refusal.reason);
        if let Some(more) = self.shared.said.say(key, Instant::now()) {
            tracing::warn!("{shown} refused: {refusal}{}", times_before(more));
        }
    }

    /// For /status and metrics.
    pub fn status(&self) -> HandshakeStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused = Reason::ALL.into_iter().zip(&self.shared.refused);
        HandshakeStatus {
            accepted: load(&self.shared.accepted),
            refused: refused
                .map(|(reason, counter)| (reason.label(), load(counter)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_strangers_are_all_counted() {
        let handshakes = Handshakes::new();
        for n in 0..1000u32 {
            let peer = SocketAddr::from((std::net::Ipv4Addr::from(0xc612_0000 + n), 1));
            handshakes.refused(Some(peer), &Refusal::new(Reason::PlainText, "plain"));
        }
        assert_eq!(handshakes.status().refused["plain_text"], 1000);
    }
}
