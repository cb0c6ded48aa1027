//! Since when the target owes an answer.

use std::time::Duration;

use crate::time::Time;

/// Since when an answer is due: the low bits of the time in microseconds, enough for an hour and small enough for
/// a place in every connection; 0 if none is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked(u32);

impl Asked {
    /// None is due.
    pub(super) const NOTHING: Self = Self(0);

    const fn at(time: Time) -> Self {
        let low = time.as_micros() as u32;
        Self(if low == 0 { 1 } else { low })
    }

    pub(super) const fn since(&mut self, now: Time) {
        *self = Self::at(now);
    }

    pub(super) const fn is_due(self) -> bool {
        self.0 != 0
    }

    pub(super) const fn is_since(self, at: Time) -> bool {
        self.0 == Self::at(at).0
    }

    /// An answer has come; how long it took, if it was due.
    pub(super) fn answered(&mut self, now: Time) -> Option<Duration> {
        let asked = std::mem::take(self);
        let took = Self::at(now).0.wrapping_sub(asked.0);
        asked.is_due().then(|| Duration::from_micros(took.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_due_once_whatever_the_clock_says() {
        for start in [1, (1 << 32) - 1, 1 << 32, 1_700_000_000_000_000] {
            let mut asked = Asked::NOTHING;
            let at = Time::from_micros(start);
            let later = at + Duration::from_millis(20);
            assert_eq!(asked.answered(later), None);
            asked.since(at);
            assert!(asked.is_due() && asked.is_since(at) && !asked.is_since(later));
            let took = asked.answered(later).unwrap().as_micros();
            assert!((19_999..=20_001).contains(&took));
            assert_eq!(asked.answered(later), None);
        }
    }
}
