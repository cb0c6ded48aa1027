//! What live servers send, for protocol modules that want to hear it: put in order, and let go of at once.

use std::collections::BTreeMap;

use foldhash::fast::FixedState;
use slotmap::SparseSecondaryMap;

use crate::key::SessionKey;

/// So much of one session is held behind a hole, in bytes. What lies beyond counts as missing.
const MOST_AHEAD: usize = 256 << 10;
/// Memory that one session takes besides what is held, in bytes, with its place in a table.
const EAR_COST: usize = 2 * size_of::<Ear>();
/// The same for each piece that is held.
const PIECE_COST: usize = 64;

/// One session's live server.
#[derive(Debug, Default)]
struct Ear {
    /// What was told, as an offset of the server's stream.
    next: u64,
    /// What came ahead of it.
    ahead: BTreeMap<u64, Vec<u8>>,
    held: usize,
}

/// The next piece of a live server's stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// So many were not captured.
    Missing(u64),
}

/// What the live servers of some sessions sent, as far as it is not told yet.
#[derive(Debug)]
pub(crate) struct Overheard {
    ears: SparseSecondaryMap<SessionKey, Ear, FixedState>,
    memory: usize,
}

impl Overheard {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            ears: SparseSecondaryMap::with_hasher(FixedState::with_seed(seed)),
            memory: 0,
        }
    }

    /// Memory in use, in bytes.
    pub(crate) const fn memory(&self) -> usize {
        self.memory
    }

    /// Takes bytes that begin at an offset of the server's stream. Of what came before, the first copy counts.
    pub(crate) fn take(&mut self, key: SessionKey, offset: u64, bytes: &[u8]) {
        if !self.ears.contains_key(key) {
            self.ears.insert(key, Ear::default());
            self.memory += EAR_COST;
        }
        let Some(ear) = self.ears.get_mut(key) else {
            return;
        };
        let behind = usize::try_from(ear.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let start = offset.max(ear.next);
        let fresh = bytes.get(behind..).unwrap_or_default().to_vec();
        self.hold(key, start, fresh);
    }

    /// The next piece of a session's. With an offset of what its client has seen: the next up to there, and what of that was
    /// not captured is missing. Without: the next that is here.
    pub(crate) fn pop(&mut self, key: SessionKey, seen: Option<u64>) -> Option<Piece> {
        let end = seen.unwrap_or(u64::MAX);
        loop {
            let ear = self.ears.get_mut(key).filter(|ear| ear.next < end)?;
            let first = ear.ahead.first_key_value().map(|(offset, _)| *offset);
            let Some(offset) = first.filter(|offset| *offset <= ear.next) else {
                let until = first.or(seen)?.min(seen?);
                let missing = until - ear.next;
                ear.next = until;
                return Some(Piece::Missing(missing));
            };
            let mut bytes = ear.ahead.remove(&offset)?;
            ear.held -= bytes.len() + PIECE_COST;
            self.memory -= bytes.len() + PIECE_COST;
            let behind = usize::try_from(ear.next - offset).unwrap_or(usize::MAX);
            bytes.drain(..behind.min(bytes.len()));
            let fits = usize::try_from(end - ear.next).unwrap_or(usize::MAX);
            let rest = bytes.split_off(fits.min(bytes.len()));
            ear.next += bytes.len() as u64;
            let next = ear.next;
            self.hold(key, next, rest);
            if !bytes.is_empty() {
                return Some(Piece::Bytes(bytes));
            }
        }
    }

    /// Holds bytes at an offset where nothing is held yet.
    fn hold(&mut self, key: SessionKey, offset: u64, bytes: Vec<u8>) {
        let Some(ear) = self.ears.get_mut(key).filter(|_| !bytes.is_empty()) else {
            return;
        };
        let cost = bytes.len() + PIECE_COST;
        if ear.held + cost > MOST_AHEAD || ear.ahead.contains_key(&offset) {
            return;
        }
        ear.ahead.insert(offset, bytes);
        ear.held += cost;
        self.memory += cost;
    }

    /// Nothing of this session is wanted any more.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        if self.ears.is_empty() {
            return;
        }
        if let Some(ear) = self.ears.remove(key) {
            self.memory -= EAR_COST + ear.held;
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    fn all(overheard: &mut Overheard, key: SessionKey, seen: Option<u64>) -> Vec<Piece> {
        std::iter::from_fn(|| overheard.pop(key, seen)).collect()
    }

    #[test]
    fn pieces_come_in_order_and_each_byte_once() {
        let mut overheard = Overheard::new(1);
        let key = SlotMap::with_key().insert(());
        overheard.take(key, 3, b"defg");
        assert_eq!(all(&mut overheard, key, None), []);
        overheard.take(key, 0, b"abcde");
        overheard.take(key, 5, b"xx");
        let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
        assert_eq!(all(&mut overheard, key, Some(2)), [bytes("ab")]);
        assert_eq!(all(&mut overheard, key, None), [bytes("cde"), bytes("fg")]);
        overheard.take(key, 2, b"again");
        overheard.take(key, 9, b"jk");
        assert_eq!(all(&mut overheard, key, Some(7)), []);
        assert_eq!(
            all(&mut overheard, key, Some(12)),
            [Piece::Missing(2), bytes("jk"), Piece::Missing(1)]
        );
        overheard.forget(key);
        assert_eq!(overheard.memory(), 0);
    }

    #[test]
    fn what_is_held_behind_a_hole_is_bounded() {
        let mut overheard = Overheard::new(1);
        let key = SlotMap::with_key().insert(());
        for piece in 1..1000 {
            overheard.take(key, piece * 1000, &[1; 1000]);
        }
        assert!(overheard.memory() <= MOST_AHEAD + EAR_COST);
        let told = all(&mut overheard, key, Some(1_000_000));
        let told: u64 = told
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.len() as u64,
                Piece::Missing(missing) => *missing,
            })
            .sum();
        assert_eq!((told, overheard.memory()), (1_000_000, EAR_COST));
    }
}
