//! How long answers waited on their way from interceptors to the engine, beyond the shortest way that was seen lately.
//!
//! An interceptor says by a clock of its own when answers were ready to be sent. How far that clock is from this host's is not
//! known; but of the answers of a second some hardly wait. What others take longer than these, they waited: in sockets and
//! queues while this thread was busy, slept, or let them gather. It is no time of the target's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_routes::copier::LinkId;

/// The shortest way is that of this time and of the one before. Clocks drift apart, by some hundred parts in a million at most.
const SPAN: Duration = Duration::from_secs(1);
/// More than this nothing waits unnoticed; an interceptor that says so is not believed.
const LONGEST: Duration = Duration::from_millis(100);

/// The ways of all links.
#[derive(Debug)]
pub(crate) struct Transit {
    began: Instant,
    links: BTreeMap<LinkId, Way>,
}

/// By how much this host's clock was ahead of the interceptor's when answers came, in microseconds, at least.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Of the time that began then.
    since: Instant,
    least: i64,
    /// Of the time before.
    before: i64,
}

impl Transit {
    /// No answer has come yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self {
            began: now,
            links: BTreeMap::new(),
        }
    }

    /// How long answers waited that are taken in now, and were ready at this time of the interceptor's clock; zero if that
    /// is zero.
    pub(crate) fn waited(&mut self, link: LinkId, now: Instant, ready_at: u64) -> Duration {
        if ready_at == 0 {
            return Duration::ZERO;
        }
        let here = now.saturating_duration_since(self.began).as_micros();
        let ready_at = i64::try_from(ready_at).unwrap_or(i64::MAX);
        let ahead = i64::try_from(here)
            .unwrap_or(i64::MAX)
            .saturating_sub(ready_at);
        let fresh = Way {
            since: now,
            least: ahead,
            before: i64::MAX,
        };
        let way = self.links.entry(link).or_insert(fresh);
        let age = now.saturating_duration_since(way.since);
        if age >= SPAN {
            *way = Way {
                before: if age < SPAN * 2 { way.least } else { i64::MAX },
                ..fresh
            };
        }
        way.least = way.least.min(ahead);
        let waited = ahead.saturating_sub(way.least.min(way.before));
        Duration::from_micros(waited.unsigned_abs()).min(LONGEST)
    }

    /// The link is up or down: its next stream has another clock.
    pub(crate) fn forget(&mut self, link: LinkId) {
        self.links.remove(&link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId {
        interceptor: 0,
        link: 0,
    };

    fn waited(transit: &mut Transit, here: u64, ready_at: u64) -> u128 {
        let now = transit.began + Duration::from_micros(here);
        transit.waited(LINK, now, ready_at).as_micros()
    }

    #[test]
    fn what_takes_longer_than_the_shortest_way_has_waited() {
        let mut transit = Transit::new(Instant::now());
        // The interceptor's clock is an hour ahead, and the shortest way takes 60 us.
        let there = |micros: u64| 3_600_000_000 + micros;
        assert_eq!(waited(&mut transit, 1_100, there(1_000)), 0);
        assert_eq!(waited(&mut transit, 2_060, there(2_000)), 0);
        assert_eq!(waited(&mut transit, 3_900, there(3_000)), 840);
        assert_eq!(waited(&mut transit, 3_901, there(0)), 3_841);
        // In the time that follows the shortest way is still known; two such times later it is not.
        assert_eq!(waited(&mut transit, 1_100_500, there(1_100_000)), 440);
        assert_eq!(waited(&mut transit, 5_000_500, there(5_000_000)), 0);
        assert_eq!(waited(&mut transit, 5_001_400, there(5_001_000)), 0);
        assert_eq!(waited(&mut transit, 5_003_000, there(5_002_000)), 600);
    }

    #[test]
    fn a_clock_that_says_nothing_or_nonsense_harms_nobody() {
        let mut transit = Transit::new(Instant::now());
        assert_eq!(waited(&mut transit, 10, 0), 0);
        for ready_at in [u64::MAX, 1, u64::MAX, 1 << 63, 1] {
            assert!(waited(&mut transit, 1_000_000, ready_at) <= LONGEST.as_micros());
        }
        transit.forget(LINK);
        assert_eq!(waited(&mut transit, 1_000_100, 900), 0);
        assert_eq!(waited(&mut transit, 1_000_300, 1_000), 100);
    }
}
