//! What live servers send, for protocol modules that want to hear it: put in order, and kept until each conversation has
//! heard what its client said before.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use slotmap::SparseSecondaryMap;

use crate::key::SessionKey;

/// So much of one session is held behind a hole, in bytes, and so much until conversations have heard it. What is more counts
/// as missing.
const MOST_HELD: usize = 256 << 10;
/// So many pieces are kept until conversations have heard them.
const MOST_PIECES: usize = 4096;
/// Memory that one session takes besides what is held, in bytes, with its place in a table.
const EAR_COST: usize = 2 * size_of::<Ear>();
/// The same for each piece that is held.
const PIECE_COST: usize = 64;

/// A piece of a live server's stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    /// So many were not captured.
    Missing(u64),
}

impl Piece {
    const fn cost(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len() + PIECE_COST,
            Self::Missing(_) => PIECE_COST,
        }
    }
}

/// Pieces in their order, each with how much its client had said before.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pieces: VecDeque<(u64, Piece)>,
    /// Number of the first that is kept.
    base: u64,
    cost: usize,
}

impl Log {
    /// The piece of this number, and how much of the client comes before it.
    pub(crate) fn get(&self, number: u64) -> Option<(u64, &Piece)> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.pieces.get(index).map(|(after, piece)| (*after, piece))
    }

    fn push(&mut self, after: u64, piece: Piece) {
        let is_full = self.cost + piece.cost() > MOST_HELD;
        let lost = match piece {
            Piece::Bytes(bytes) if is_full => bytes.len() as u64,
            Piece::Bytes(_) => {
                self.cost += piece.cost();
                return self.pieces.push_back((after, piece));
            }
            Piece::Missing(bytes) => bytes,
        };
        let is_crowded = self.pieces.len() >= MOST_PIECES;
        match self.pieces.back_mut() {
            Some((before, Piece::Missing(bytes))) if *before == after || is_crowded => {
                *bytes += lost;
            }
            _ => {
                self.cost += PIECE_COST;
                self.pieces.push_back((after, Piece::Missing(lost)));
            }
        }
    }

    fn forget_before(&mut self, number: u64) {
        while self.base < number
            && let Some((_, piece)) = self.pieces.pop_front()
        {
            self.cost -= piece.cost();
            self.base += 1;
        }
    }
}

/// One session's live server.
#[derive(Debug, Default)]
struct Ear {
    /// What is in the log, as an offset of the server's stream.
    next: u64,
    /// What came ahead of it, each with how much of its client the server had received.
    ahead: BTreeMap<u64, (Vec<u8>, u64)>,
    held: usize,
    log: Log,
}

impl Ear {
    const fn cost(&self) -> usize {
        EAR_COST + self.held + self.log.cost
    }

    /// Holds bytes at an offset. Of two copies the longer counts: a probe, or a segment that was cut, is no more than the
    /// beginning.
    fn hold(&mut self, offset: u64, bytes: &[u8], after: u64) {
        let held = self.ahead.get(&offset).map_or(0, |(held, _)| held.len());
        let cost = bytes.len() + PIECE_COST;
        if bytes.len() <= held || self.held + cost > MOST_HELD {
            return;
        }
        let before = self.ahead.insert(offset, (bytes.to_vec(), after));
        self.held -= before.map_or(0, |(held, _)| held.len() + PIECE_COST);
        self.held += cost;
    }

    /// The next piece. With an offset of what its client has seen: the next up to there, and what of that was not captured is
    /// missing. Without: the next that is here.
    fn pop(&mut self, seen: Option<u64>) -> Option<(Piece, u64)> {
        let end = seen.unwrap_or(u64::MAX);
        while self.next < end {
            let first = self.ahead.first_key_value().map(|(offset, _)| *offset);
            let Some(offset) = first.filter(|offset| *offset <= self.next) else {
                let until = first.or(seen)?.min(seen?);
                let missing = until - self.next;
                self.next = until;
                return Some((Piece::Missing(missing), 0));
            };
            let (bytes, after) = self.ahead.remove(&offset)?;
            self.held -= bytes.len() + PIECE_COST;
            let behind = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
            let fresh = bytes.get(behind..).unwrap_or_default();
            let fits = usize::try_from(end - self.next).unwrap_or(usize::MAX);
            let (now, rest) = fresh.split_at_checked(fits).unwrap_or((fresh, &[]));
            self.next += now.len() as u64;
            self.hold(self.next, rest, after);
            if !now.is_empty() {
                return Some((Piece::Bytes(now.to_vec()), after));
            }
        }
        None
    }
}

/// What the live servers of some sessions sent, as far as not all have heard it.
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

    fn change(&mut self, key: SessionKey, change: impl FnOnce(&mut Ear)) {
        if let Some(ear) = self.ears.get_mut(key) {
            self.memory -= ear.cost();
            change(ear);
            self.memory += ear.cost();
        }
    }

    /// From now on this session's live server is heard.
    pub(crate) fn listen(&mut self, key: SessionKey) {
        if !self.ears.contains_key(key) {
            self.ears.insert(key, Ear::default());
            self.memory += EAR_COST;
        }
    }

    /// Takes bytes that begin at an offset of the server's stream, which had received so much of its client.
    pub(crate) fn take(&mut self, key: SessionKey, offset: u64, bytes: &[u8], after: u64) {
        self.listen(key);
        self.change(key, |ear| {
            let behind = usize::try_from(ear.next.saturating_sub(offset)).unwrap_or(usize::MAX);
            let fresh = bytes.get(behind..).unwrap_or_default();
            ear.hold(offset.max(ear.next), fresh, after);
        });
    }

    /// Logs what came, once its client has said so much. With an offset of what the client has seen of it: all up to there,
    /// captured or not. Without: what is here in its order.
    pub(crate) fn log(&mut self, key: SessionKey, seen: Option<u64>, after: u64) {
        self.change(key, |ear| {
            while let Some((piece, received)) = ear.pop(seen) {
                // With an offset, its client has said more than it had received then.
                let after = if seen.is_some() {
                    after
                } else {
                    after.max(received)
                };
                ear.log.push(after, piece);
            }
        });
    }

    /// What a session's conversations are to hear.
    pub(crate) fn of(&self, key: SessionKey) -> Option<&Log> {
        self.ears.get(key).map(|ear| &ear.log)
    }

    /// All have heard what comes before this number.
    pub(crate) fn forget_before(&mut self, key: SessionKey, number: u64) {
        self.change(key, |ear| ear.log.forget_before(number));
    }

    /// Nothing of this session is wanted any more.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        if let Some(ear) = self.ears.remove(key) {
            self.memory -= ear.cost();
        }
    }
}

#[cfg(test)]
mod tests {
    use slotmap::SlotMap;

    use super::*;

    /// Logs what there is, and gives what has been logged since.
    fn all(overheard: &mut Overheard, key: SessionKey, seen: Option<u64>) -> Vec<Piece> {
        overheard.log(key, seen, 0);
        let ear = overheard.ears.get_mut(key).unwrap();
        let pieces = std::mem::take(&mut ear.log.pieces);
        overheard.memory -= ear.log.cost;
        ear.log.cost = 0;
        pieces.into_iter().map(|(_, piece)| piece).collect()
    }

    #[test]
    fn pieces_come_in_order_and_each_byte_once() {
        let mut overheard = Overheard::new(1);
        let key = SlotMap::with_key().insert(());
        overheard.take(key, 3, b"defg", 0);
        assert_eq!(all(&mut overheard, key, None), []);
        overheard.take(key, 0, b"abcde", 0);
        overheard.take(key, 5, b"xx", 0);
        let bytes = |text: &str| Piece::Bytes(text.as_bytes().to_vec());
        assert_eq!(all(&mut overheard, key, Some(2)), [bytes("ab")]);
        assert_eq!(all(&mut overheard, key, None), [bytes("cde"), bytes("fg")]);
        overheard.take(key, 2, b"again", 0);
        overheard.take(key, 9, b"j", 0);
        overheard.take(key, 9, b"jk", 0);
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
            overheard.take(key, piece * 1000, &[1; 1000], 0);
        }
        assert!(overheard.memory() <= MOST_HELD + EAR_COST);
        let told: u64 = all(&mut overheard, key, Some(1_000_000))
            .iter()
            .map(len)
            .sum();
        assert_eq!((told, overheard.memory()), (1_000_000, EAR_COST));
    }

    fn len(piece: &Piece) -> u64 {
        match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::Missing(missing) => *missing,
        }
    }

    #[test]
    fn what_nobody_hears_is_bounded_too() {
        let mut overheard = Overheard::new(1);
        let key = SlotMap::with_key().insert(());
        for turn in 0..100_000 {
            overheard.take(key, turn * 100, &[1; 100], 0);
            overheard.log(key, None, turn);
        }
        assert!(overheard.memory() <= 2 * MOST_HELD + EAR_COST);
        let log = overheard.of(key).unwrap();
        assert!(log.pieces.len() <= MOST_PIECES);
        let told: u64 = log.pieces.iter().map(|(_, piece)| len(piece)).sum();
        assert_eq!(told, 10_000_000);
        overheard.forget_before(key, u64::MAX);
        assert_eq!(overheard.memory(), EAR_COST);
    }
}
