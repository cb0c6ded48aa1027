//! Reassembly of IP fragments within fixed bounds (RFC 791 3.2, RFC 8200 4.5).
//!
//! Overlapping fragments discard the whole packet, as RFC 5722 demands for IPv6; for IPv4 it is
//! the safe choice too, since an overlap can only be an attack or a fault.

use std::collections::HashMap;
use std::net::IpAddr;

/// Fragments of one packet are given up after this time, in nanoseconds (RFC 8200 4.5: 60 s; 30 s
/// is what Linux waits).
pub const TIMEOUT: u64 = 30_000_000_000;
/// Bytes held in all unfinished packets; beyond it the oldest is given up.
pub const MAX_BYTES: usize = 4 << 20;
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

#[derive(Default)]
struct Partial {
    since: u64,
    bytes: Vec<u8>,
    /// Sorted, disjoint pieces as (start, end).
    pieces: Vec<(usize, usize)>,
    total: Option<usize>,
}

/// Collects fragments until packets are whole.
#[derive(Default)]
pub struct Reassembler {
    partial: HashMap<FragmentKey, Partial>,
    held: usize,
    /// Packets given up: timed out, overlapping, too large, or pushed out.
    pub abandoned: u64,
}

impl Reassembler {
    /// Takes a fragment seen at `now` (nanoseconds). Gives the whole payload behind the IP header
    /// once its last piece has come.
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
        let partial = self.partial.entry(key).or_insert_with(|| Partial {
            since: now,
            ..Partial::default()
        });
        if partial.pieces.contains(&(offset, end)) {
            return None;
        }
        let at = partial.pieces.partition_point(|piece| piece.0 < offset);
        let overlaps_next = partial.pieces.get(at).is_some_and(|next| next.0 < end);
        let overlaps_last = at
            .checked_sub(1)
            .and_then(|i| partial.pieces.get(i))
            .is_some_and(|last| last.1 > offset);
        let beyond_end = partial
            .total
            .is_some_and(|total| end > total || !more && end != total);
        let too_many = partial.pieces.len() >= MAX_PIECES;
        if overlaps_next || overlaps_last || beyond_end || too_many {
            self.give_up(&key);
            return None;
        }
        partial.pieces.insert(at, (offset, end));
        if !more {
            partial.total = Some(end);
        }
        if partial.bytes.len() < end {
            self.held += end - partial.bytes.len();
            partial.bytes.resize(end, 0);
        }
        if let Some(room) = partial.bytes.get_mut(offset..end) {
            room.copy_from_slice(data);
        }
        let covered: usize = partial.pieces.iter().map(|(start, end)| end - start).sum();
        if partial
            .total
            .is_some_and(|total| total == covered && partial.bytes.len() == total)
        {
            let whole = self.partial.remove(&key)?;
            self.held -= whole.bytes.len();
            return Some(whole.bytes);
        }
        while self.held > MAX_BYTES {
            let oldest = self
                .partial
                .iter()
                .min_by_key(|(_, p)| p.since)
                .map(|(key, _)| *key)?;
            self.give_up(&oldest);
        }
        None
    }

    fn give_up(&mut self, key: &FragmentKey) {
        if let Some(partial) = self.partial.remove(key) {
            self.held -= partial.bytes.len();
            self.abandoned += 1;
        }
    }

    fn expire(&mut self, now: u64) {
        if self.partial.is_empty() {
            return;
        }
        let (held, abandoned) = (&mut self.held, &mut self.abandoned);
        self.partial.retain(|_, partial| {
            let keep = now.saturating_sub(partial.since) < TIMEOUT;
            if !keep {
                *held -= partial.bytes.len();
                *abandoned += 1;
            }
            keep
        });
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
            reassembler.add(u64::from(id), key(id), 60_000, true, &[0; 8]);
        }
        assert!(reassembler.held <= MAX_BYTES);
        reassembler.add(TIMEOUT * 2, key(0), 0, true, &[0; 8]);
        assert_eq!(reassembler.partial.len(), 1);
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
