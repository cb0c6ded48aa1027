//! Reassembly of IP fragments within fixed bounds (RFC 791 3.2, RFC 8200 4.5).
//!
//! Overlapping fragments discard the whole packet, as RFC 5722 demands for IPv6; for IPv4 it is
//! the safe choice too, since an overlap can only be an attack or a fault.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Fragments of one packet are given up after this time, in nanoseconds (RFC 8200 4.5: 60 s; 30 s
/// is what Linux waits).
pub const TIMEOUT: u64 = 30_000_000_000;
/// Memory for all unfinished packets, in bytes; beyond it the oldest is given up.
pub const MAX_BYTES: usize = 4 << 20;
/// Memory for each unfinished packet and each piece besides its data, in bytes: entries, keys, and what an allocator
/// adds.
const PACKET_COST: usize = 256;
const PIECE_COST: usize = 64;
/// Largest packet that fragments can form, in bytes.
const MAX_PACKET: usize = 65_535;
/// Most pieces of one packet.
const MAX_PIECES: usize = 1024;

/// What fragments of one packet have in common (RFC 791 2.3, RFC 8200 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Identification.
    pub id: u32,
    /// Protocol number.
    pub protocol: u8,
}

/// One piece of a packet.
struct Piece {
    start: usize,
    data: Box<[u8]>,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.data.len()
    }
}

#[derive(Default)]
struct Partial {
    since: u64,
    /// Sorted, disjoint.
    pieces: Vec<Piece>,
    covered: usize,
    total: Option<usize>,
}

impl Partial {
    fn cost(&self) -> usize {
        PACKET_COST + PIECE_COST * self.pieces.len() + self.covered
    }
}

/// Collects fragments until packets are whole.
#[derive(Default)]
pub struct Reassembler {
    partial: HashMap<FragmentKey, Partial>,
    /// Unfinished packets in the order of their first fragments; some have ended since.
    by_age: VecDeque<(u64, FragmentKey)>,
    held: usize,
    /// Packets given up: timed out, overlapping, too large, or pushed out.
    pub abandoned: u64,
}

impl Reassembler {
    /// Takes a fragment seen at `now` (nanoseconds). Gives the whole payload behind the IP header
    /// once its last piece has come. The cost does not grow with the number of unfinished packets.
    pub fn add(
        &mut self,
        now: u64,
        key: FragmentKey,
        offset: usize,
        more: bool,
        data: &[u8],
    ) -> Option<Vec<u8>> {
        self.expire(now);
        let end = offset + data.len();
        // All pieces but the last are multiples of eight bytes.
        let misaligned = more && (!data.len().is_multiple_of(8) || data.is_empty());
        if end > MAX_PACKET || misaligned {
            self.give_up(&key);
            return None;
        }
        let by_age = &mut self.by_age;
        let held = &mut self.held;
        let partial = self.partial.entry(key).or_insert_with(|| {
            by_age.push_back((now, key));
            *held += PACKET_COST;
            Partial {
                since: now,
                ..Partial::default()
            }
        });
        let at = partial.pieces.partition_point(|piece| piece.start < offset);
        let next = partial.pieces.get(at);
        if let Some(piece) = next.filter(|piece| piece.start == offset && piece.end() == end) {
            if *piece.data == *data {
                return None;
            }
            // Another packet with the same id, which has come round (RFC 4963): nothing of the first is left of use.
            self.give_up(&key);
            return self.add(now, key, offset, more, data);
        }
        let overlaps_next = next.is_some_and(|next| next.start < end);
        let overlaps_last = at
            .checked_sub(1)
            .and_then(|i| partial.pieces.get(i))
            .is_some_and(|last| last.end() > offset);
        let furthest = partial.pieces.last().map_or(0, Piece::end);
        let beyond_end = partial
            .total
            .is_some_and(|total| end > total || !more && end != total)
            || !more && furthest > end;
        let too_many = partial.pieces.len() >= MAX_PIECES;
        if overlaps_next || overlaps_last || beyond_end || too_many {
            self.give_up(&key);
            return None;
        }
        let piece = Piece {
            start: offset,
            data: data.into(),
        };
        partial.pieces.insert(at, piece);
        partial.covered += data.len();
        *held += PIECE_COST + data.len();
        if !more {
            partial.total = Some(end);
        }
        if partial.total == Some(partial.covered) {
            let whole = self.remove(&key)?;
            let pieces = whole.pieces.iter();
            return Some(
                pieces
                    .flat_map(|piece| piece.data.iter().copied())
                    .collect(),
            );
        }
        while self.held > MAX_BYTES {
            let (since, oldest) = self.by_age.pop_front()?;
            if self
                .partial
                .get(&oldest)
                .is_some_and(|it| it.since == since)
            {
                self.give_up(&oldest);
            }
        }
        None
    }

    fn remove(&mut self, key: &FragmentKey) -> Option<Partial> {
        let partial = self.partial.remove(key)?;
        self.held -= partial.cost();
        // Those that ended keep their place until it is their turn, or there are too many of them.
        if self.by_age.len() > 2 * self.partial.len() + 64 {
            let partial = &self.partial;
            self.by_age
                .retain(|(since, key)| partial.get(key).is_some_and(|it| it.since == *since));
        }
        Some(partial)
    }

    fn give_up(&mut self, key: &FragmentKey) {
        self.abandoned += u64::from(self.remove(key).is_some());
    }

    fn expire(&mut self, now: u64) {
        while let Some((since, key)) = self.by_age.front().copied() {
            let ended = self.partial.get(&key).is_none_or(|it| it.since != since);
            if !ended && now.saturating_sub(since) < TIMEOUT {
                return;
            }
            self.by_age.pop_front();
            if !ended {
                self.give_up(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn key(id: u32) -> FragmentKey {
        let ip = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
        FragmentKey {
            source: ip,
            destination: ip,
            id,
            protocol: 6,
        }
    }

    #[test]
    fn an_overlap_discards_the_packet() {
        let mut reassembler = Reassembler::default();
        assert_eq!(reassembler.add(0, key(1), 0, true, &[1; 16]), None);
        assert_eq!(reassembler.add(0, key(1), 8, false, &[2; 16]), None);
        assert_eq!(reassembler.abandoned, 1);
        assert_eq!(reassembler.held, 0);
    }

    #[test]
    fn memory_is_bounded_and_old_pieces_expire() {
        let mut reassembler = Reassembler::default();
        for id in 0..1000 {
            reassembler.add(u64::from(id), key(id), 60_000, true, &[0; 5000]);
        }
        assert!(reassembler.held <= MAX_BYTES && reassembler.held > MAX_BYTES / 2);
        reassembler.add(TIMEOUT * 2, key(0), 0, true, &[0; 8]);
        assert_eq!(reassembler.partial.len(), 1);
    }

    #[test]
    fn a_flood_of_pieces_pushes_the_oldest_out_and_costs_no_more_for_that() {
        let mut reassembler = Reassembler::default();
        for id in 0..1_000_000 {
            reassembler.add(u64::from(id) * 1000, key(id), 8, true, &[0; 8]);
        }
        let unfinished = reassembler.partial.len();
        assert!(unfinished <= MAX_BYTES / PACKET_COST, "{unfinished}");
        assert!(reassembler.by_age.len() <= 2 * unfinished + 65);
        assert_eq!(reassembler.abandoned, 1_000_000 - unfinished as u64);
        // One that is in good time is whole all the same.
        let now = 1_000_000_000;
        assert_eq!(reassembler.add(now, key(2_000_000), 8, false, &[2]), None);
        let whole = reassembler.add(now, key(2_000_000), 0, true, &[1; 8]);
        assert_eq!(whole, Some([[1; 8].as_slice(), &[2]].concat()));
    }

    #[test]
    fn packets_that_are_whole_leave_nothing() {
        let mut reassembler = Reassembler::default();
        for now in 0..100_000 {
            // The same identification again and again, as on a busy host.
            let id = (now % 1000) as u32;
            assert_eq!(reassembler.add(now, key(id), 8, false, &[0; 8]), None);
            assert!(reassembler.add(now, key(id), 0, true, &[0; 8]).is_some());
            assert!(reassembler.by_age.len() <= 65);
        }
        assert_eq!((reassembler.held, reassembler.abandoned), (0, 0));
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_with_repeats_form_the_packet(
            data in proptest::collection::vec(any::<u8>(), 1..4000),
            order in proptest::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let mut pieces: Vec<_> = data.chunks(160).enumerate().collect();
            for index in &order {
                let len = pieces.len();
                pieces.swap(0, index.index(len));
            }
            let last = data.len().div_ceil(160) - 1;
            let mut reassembler = Reassembler::default();
            let mut whole = None;
            for (i, piece) in pieces {
                for _ in 0..2 {
                    if whole.is_none() {
                        whole = reassembler.add(0, key(9), i * 160, i != last, piece);
                    }
                }
            }
            prop_assert_eq!(whole, Some(data));
        }
    }
}
