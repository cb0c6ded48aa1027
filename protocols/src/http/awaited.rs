//! Values of the live server that the target may yet give others for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::swap::decode;

/// Rules with their values, as answers hold them.
pub(super) type Values = [(usize, Vec<u8>)];

/// What values take.
pub(super) fn bytes_of(values: &Values) -> usize {
    let each = size_of::<(usize, Vec<u8>)>();
    values
        .iter()
        .map(|(_, value)| each + value.capacity())
        .sum()
}

/// Counts values in answers to requests that the target has not answered: a look-up costs the same however many there are.
#[derive(Default)]
pub(super) struct Awaited {
    /// By rule.
    counts: HashMap<usize, HashMap<Box<[u8]>, u32>>,
    bytes: usize,
}

impl Awaited {
    pub(super) fn add(&mut self, values: &Values) {
        for (rule, value) in values {
            for form in forms(value) {
                let bytes = form.len();
                let count = self.counts.entry(*rule).or_default();
                let count = count.entry(form).or_insert_with(|| {
                    self.bytes += bytes;
                    0
                });
                *count += 1;
            }
        }
    }

    /// Takes away what was added.
    pub(super) fn remove(&mut self, values: &Values) {
        for (rule, value) in values {
            let Some(counts) = self.counts.get_mut(rule) else {
                continue;
            };
            for form in forms(value) {
                let bytes = form.len();
                if let Entry::Occupied(mut count) = counts.entry(form) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                        self.bytes -= bytes;
                    }
                }
            }
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn has(&self, rule: usize, value: &[u8]) -> bool {
        let counts = self.counts.get(&rule);
        counts.is_some_and(|counts| counts.contains_key(value))
    }

    /// Whether any rule has it.
    pub(super) fn knows(&self, value: &[u8]) -> bool {
        self.counts
            .values()
            .any(|counts| counts.contains_key(value))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// In bytes.
    pub(super) fn memory(&self) -> usize {
        let each = size_of::<(Box<[u8]>, u32)>() + 1;
        let places = self.counts.values().map(|counts| counts.capacity() * each);
        self.bytes + places.sum::<usize>()
    }
}

/// A value as it stands, and as scripts of pages hand it back if it is encoded.
fn forms(value: &[u8]) -> impl Iterator<Item = Box<[u8]>> {
    let plain = Some(decode(value, false)).filter(|plain| plain != value);
    [Some(value.into()), plain.map(Vec::into_boxed_slice)]
        .into_iter()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_awaited_until_their_last_answer_has_come() {
        let values = [(0, b"a%20b".to_vec()), (1, b"c".to_vec())];
        let mut awaited = Awaited::default();
        awaited.add(&values);
        awaited.add(&values);
        for _ in 0..2 {
            assert!(awaited.has(0, b"a b") && awaited.has(0, b"a%20b") && awaited.has(1, b"c"));
            assert!(!awaited.has(1, b"a b") && !awaited.has(2, b"c") && !awaited.is_empty());
            awaited.remove(&values);
        }
        assert!(!awaited.has(0, b"a b") && !awaited.has(1, b"c"));
        assert!(awaited.is_empty());
        awaited.remove(&values);
    }
}
