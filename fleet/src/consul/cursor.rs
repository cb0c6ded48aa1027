//! Where a blocking query stands, and when it is asked again
//! (<https://developer.hashicorp.com/consul/api-docs/features/blocking>).

use std::time::Duration;

/// Two questions are at least this far apart: a query for a service that nobody has registered may be answered at once
/// by some releases, and a token without rights gets an empty list at once.
const APART: Duration = Duration::from_secs(1);
/// Where an answer has no index, nothing can be waited for.
const POLL: Duration = Duration::from_secs(5);
/// After failures, at most this, and a quarter of it more by chance: a Consul that is back is noticed within 15 s.
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// The place of one query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    index: u64,
    failures: u32,
}

impl Cursor {
    /// The index to wait beyond. None: the answer is wanted at once.
    pub(super) fn index(&self) -> Option<u64> {
        (self.index > 0).then_some(self.index)
    }

    /// Notes an answer that took so long, and says when to ask again.
    pub(super) fn answered(&mut self, index: Option<u64>, took: Duration) -> Duration {
        self.failures = 0;
        let Some(index) = index else {
            self.index = 0;
            return POLL;
        };
        // An index that falls is of another life of Consul's state. One of 0 would not wait at all.
        self.index = match index.max(1) {
            index if index < self.index => 0,
            index => index,
        };
        APART.saturating_sub(took)
    }

    /// Notes that no answer came, and says when to ask again. `chance` is from 0 to 1, another one each time, so that
    /// copiers do not ask all at once.
    pub(super) fn failed(&mut self, chance: f64) -> Duration {
        let wait = Duration::from_secs(1 << self.failures.min(4)).min(LONGEST_RETRY);
        self.failures = self.failures.saturating_add(1);
        // What has happened meanwhile is unknown.
        self.index = 0;
        wait + wait.mul_f64(chance.clamp(0.0, 1.0) / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(120);

    #[test]
    fn an_index_is_waited_beyond_and_one_that_falls_begins_anew() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.index(), None);
        assert_eq!(cursor.answered(Some(7), LONG), Duration::ZERO);
        assert_eq!(cursor.index(), Some(7));
        cursor.answered(Some(7), LONG);
        assert_eq!(cursor.index(), Some(7), "nothing has changed");
        cursor.answered(Some(3), LONG);
        assert_eq!(cursor.index(), None, "Consul's state was restored");
        cursor.answered(Some(0), LONG);
        assert_eq!(cursor.index(), Some(1), "an index of 0 would never wait");
    }

    #[test]
    fn answers_that_come_at_once_are_no_reason_to_ask_without_pause() {
        let mut cursor = Cursor::default();
        let asked = cursor.answered(Some(1), Duration::from_millis(2));
        assert_eq!(asked, Duration::from_millis(998));
        assert_eq!(cursor.answered(None, Duration::ZERO), POLL);
        assert_eq!(cursor.index(), None);
    }

    #[test]
    fn a_consul_that_is_back_is_noticed_within_fifteen_seconds() {
        let mut cursor = Cursor::default();
        cursor.answered(Some(9), LONG);
        let waits: Vec<u64> = (0..7).map(|_| cursor.failed(0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
        assert!(cursor.failed(1.0) < Duration::from_secs(13));
        assert_eq!(cursor.index(), None, "asked at once when it is back");
        cursor.answered(Some(9), LONG);
        assert_eq!(cursor.failed(0.0).as_secs(), 1);
    }
}
