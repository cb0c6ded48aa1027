//! Counting refused connections, and saying so without flooding the log.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;
use crate::tls::{Reason, Refusal};

/// One address and reason is logged once in this time.
const QUIET: Duration = Duration::from_secs(60);

/// Addresses and reasons that are remembered; beyond these, strangers are only counted.
const MAX_REMEMBERED: usize = 256;

/// Connections accepted and refused by one listener. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Handshakes {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    accepted: AtomicU64,
    refused: [AtomicU64; Reason::ALL.len()],
    said: Mutex<HashMap<(Option<IpAddr>, Reason), Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    /// Refused since, unsaid.
    more: u64,
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
        match self.to_say(peer, refusal.reason, Instant::now()) {
            None => {}
            Some(0) => tracing::warn!("{shown} refused: {refusal}"),
            Some(more) => tracing::warn!("{shown} refused: {refusal} (and {more} times before)"),
        }
    }

    /// How many were not said before this one; none if this one is not to be said either.
    fn to_say(&self, peer: Option<SocketAddr>, reason: Reason, now: Instant) -> Option<u64> {
        let mut said = lock(&self.shared.said);
        let key = (peer.map(|it| it.ip()), reason);
        if let Some(entry) = said.get_mut(&key) {
            if now.saturating_duration_since(entry.at) < QUIET {
                entry.more += 1;
                return None;
            }
            let more = std::mem::take(&mut entry.more);
            entry.at = now;
            return Some(more);
        }
        if said.len() >= MAX_REMEMBERED {
            said.retain(|_, entry| now.saturating_duration_since(entry.at) < QUIET);
            if said.len() >= MAX_REMEMBERED {
                return None;
            }
        }
        said.insert(key, Said { at: now, more: 0 });
        Some(0)
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
    fn a_peer_is_named_once_a_minute_for_each_reason() {
        let handshakes = Handshakes::new();
        let peer: SocketAddr = "198.18.0.1:1000".parse().unwrap();
        let start = Instant::now();
        let say = |peer, reason, after| handshakes.to_say(Some(peer), reason, start + after);
        assert_eq!(say(peer, Reason::Expired, Duration::ZERO), Some(0));
        // Another port is no other peer.
        let again = "198.18.0.1:1001".parse().unwrap();
        assert_eq!(say(again, Reason::Expired, Duration::from_secs(1)), None);
        assert_eq!(say(peer, Reason::OldTls, Duration::from_secs(1)), Some(0));
        assert_eq!(say(peer, Reason::Expired, QUIET), Some(1));
    }

    #[test]
    fn many_strangers_are_counted_and_not_remembered() {
        let handshakes = Handshakes::new();
        for n in 0..1000u32 {
            let peer = SocketAddr::from((std::net::Ipv4Addr::from(0xc612_0000 + n), 1));
            handshakes.refused(Some(peer), &Refusal::new(Reason::PlainText, "plain"));
        }
        assert_eq!(handshakes.status().refused["plain_text"], 1000);
        assert_eq!(lock(&handshakes.shared.said).len(), MAX_REMEMBERED);
    }
}
