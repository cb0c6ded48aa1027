//! A small sorted set of disjoint ranges of stream offsets.

/// More ranges than this are not kept: each costs its owner a hole that TCP will fill by
/// retransmission anyway, and a hostile peer must not buy memory with them.
const MAX_RANGES: usize = 128;

/// Disjoint ranges, first offset included, last not, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: Vec<(u64, u64)>,
}

impl RangeSet {
    /// Adds `start..end`. Gives the number of offsets that were not in the set before; 0 also
    /// when the set is full.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        // Ranges that touch the new one are merged with it.
        let first = self.ranges.partition_point(|range| range.1 < start);
        let last = self.ranges.partition_point(|range| range.0 <= end);
        let (mut low, mut high, mut had) = (start, end, 0);
        for range in self.ranges.get(first..last).unwrap_or(&[]) {
            low = low.min(range.0);
            high = high.max(range.1);
            had += range.1 - range.0;
        }
        if first == last && self.ranges.len() >= MAX_RANGES {
            return 0;
        }
        self.ranges.splice(first..last, [(low, high)]);
        high - low - had
    }

    /// Forgets everything below `offset`.
    pub(crate) fn remove_below(&mut self, offset: u64) {
        let gone = self.ranges.partition_point(|range| range.1 <= offset);
        self.ranges.drain(..gone);
        if let Some(first) = self.ranges.first_mut() {
            first.0 = first.0.max(offset);
        }
    }

    /// The end of the range that holds `offset`, if one does.
    pub(crate) fn end_of_range_at(&self, offset: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|range| range.1 <= offset);
        self.ranges
            .get(at)
            .filter(|range| range.0 <= offset)
            .map(|range| range.1)
    }

    /// The start of the first range behind `offset`, if there is one.
    pub(crate) fn next_start(&self, offset: u64) -> Option<u64> {
        let at = self.ranges.partition_point(|range| range.0 <= offset);
        self.ranges.get(at).map(|range| range.0)
    }

    /// How many offsets of `start..end` are in the set.
    pub(crate) fn len_within(&self, start: u64, end: u64) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.1.min(end).saturating_sub(range.0.max(start)))
            .sum()
    }

    /// The ranges, lowest first.
    pub(crate) fn as_slice(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Whether the set is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set_of_offsets(
            inserts in proptest::collection::vec((0..300u64, 0..20u64), 0..40),
            cut in 0..300u64,
        ) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (start, len) in inserts {
                let before = model.len();
                model.extend(start..start + len);
                prop_assert_eq!(set.insert(start, start + len), (model.len() - before) as u64);
            }
            set.remove_below(cut);
            model.retain(|offset| *offset >= cut);
            prop_assert_eq!(set.len_within(0, 1000), model.len() as u64);
            prop_assert_eq!(set.len_within(50, 90), model.range(50..90).count() as u64);
            for offset in 0..330 {
                prop_assert_eq!(set.end_of_range_at(offset).is_some(), model.contains(&offset));
            }
            for pair in set.as_slice().windows(2) {
                prop_assert!(pair[0].1 < pair[1].0, "ranges touch");
            }
        }
    }
}
