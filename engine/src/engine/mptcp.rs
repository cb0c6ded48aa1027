//! Multipath TCP (RFC 8684). A connection with one subflow is plain TCP with more options, and is copied as that. Once a
//! second subflow joins, its bytes go over both in an order that only the data sequence numbers tell: the copy of the first
//! ends there, and of the others nothing is copied.

use std::collections::HashMap;

use foldhash::fast::FixedState;
use millrace_wire::{Mptcp, TcpPacket};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use slotmap::SparseSecondaryMap;

use super::Engine;
use crate::key::SessionKey;
use crate::stats::{AbortReason, RefusalReason};
use crate::stream::EndKind;
use crate::time::Time;

/// Connections that others may join, by the token of the live server.
#[derive(Debug)]
pub(super) struct Joinable {
    by_token: HashMap<u32, SessionKey, FixedState>,
    tokens: SparseSecondaryMap<SessionKey, u32, FixedState>,
}

impl Joinable {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            by_token: HashMap::with_hasher(FixedState::with_seed(seed)),
            tokens: SparseSecondaryMap::with_hasher(FixedState::with_seed(seed)),
        }
    }

    pub(super) fn forget(&mut self, key: SessionKey) {
        if let Some(token) = self.tokens.remove(key) {
            self.by_token.remove(&token);
        }
    }
}

/// The token of the side with this key: the first 32 bits of its SHA-256 (RFC 8684 3.2), in version 0 of its SHA-1
/// (RFC 6824 3.2).
fn token(version: u8, key: u64) -> u32 {
    let algorithm = match version {
        0 => &SHA1_FOR_LEGACY_USE_ONLY,
        _ => &SHA256,
    };
    let hash = digest(algorithm, &key.to_be_bytes());
    let first = hash.as_ref().first_chunk().copied();
    u32::from_be_bytes(first.unwrap_or_default())
}

impl Engine {
    /// The live server has accepted a client's connection: whether others may join it.
    pub(super) fn note_joinable(&mut self, key: SessionKey, packet: &TcpPacket<'_>) {
        if let Some(Mptcp::Capable {
            version,
            key: Some(of_server),
        }) = packet.header.options.mptcp
        {
            let token = token(version, of_server);
            self.joinable.tokens.insert(key, token);
            self.joinable.by_token.insert(token, key);
        }
    }

    /// Whether a client's SYN joins another connection: then neither is copied from here on.
    pub(super) fn joins_another(&mut self, now: Time, packet: &TcpPacket<'_>) -> bool {
        let Some(Mptcp::Join(token)) = packet.header.options.mptcp else {
            return false;
        };
        self.stats.sessions_refused.add(RefusalReason::Mptcp);
        let first = token.and_then(|token| self.joinable.by_token.get(&token).copied());
        if let Some(key) = first {
            self.joinable.forget(key);
            self.end_here(now, key, EndKind::Uncopied(AbortReason::Mptcp));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_beginning_of_the_hash_of_the_key() {
        // What sha256sum and sha1sum say of eight zero bytes.
        assert_eq!(token(1, 0), 0xaf55_70f5);
        assert_eq!(token(0, 0), 0x05fe_4057);
    }
}
