//! How long answers waited on their way from interceptors to the engine, beyond the shortest way that was seen lately.
//!
//! An interceptor says by a clock of its own when answers were ready to be sent. How far that clock is from this host's is not
//! known; but of the answers of a moment some hardly wait. What others take longer than these, they waited: on the network, in
//! sockets and queues while this thread was busy, slept, or let them gather. It is no time of the target's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_routes::copier::LinkId;

/// The shortest way is that of this time and of the one before. It is short, since clocks drift apart: of 100 parts in a
/// million, more than those of a computer, this makes 20 us at most.
const SPAN: Duration = Duration::from_millis(100);
/// A longer wait is not believed. Its cause is a clock that was set, an interceptor that sends wrong times, or this host, which
/// stood still.
const LONGEST: Duration = Duration::from_millis(10);

/// The shortest ways of all links.
#[derive(Debug)]
pub(crate) struct Transit {
    began: Instant,
    links: BTreeMap<LinkId, Lead>,
}

/// By how much this host's clock was ahead of the interceptor's when answers came, in microseconds, at least.
#[derive(Clone, Copy, Debug)]
struct Lead {
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
        let here = i64::try_from(here).unwrap_or(i64::MAX);
        let ahead = here.saturating_sub(i64::try_from(ready_at).unwrap_or(i64::MAX));
        let fresh = Lead {
            since: now,
            least: ahead,
            before: i64::MAX,
        };
        let lead = self.links.entry(link).or_insert(fresh);
        let age = now.saturating_duration_since(lead.since);
        if age >= SPAN {
            let before = if age < SPAN * 2 { lead.least } else { i64::MAX };
            *lead = Lead { before, ..fresh };
        }
        lead.least = lead.least.min(ahead);
        let waited = ahead.saturating_sub(lead.least.min(lead.before));
        let waited = Duration::from_micros(waited.unsigned_abs());
        if waited > LONGEST {
            *lead = fresh;
            return Duration::ZERO;
        }
        waited
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
    const OTHER: LinkId = LinkId {
        interceptor: 1,
        link: 0,
    };

    fn waited_at(transit: &mut Transit, link: LinkId, here: u64, ready_at: u64) -> u128 {
        let now = transit.began + Duration::from_micros(here);
        transit.waited(link, now, ready_at).as_micros()
    }

    fn waited(transit: &mut Transit, here: u64, ready_at: u64) -> u128 {
        waited_at(transit, LINK, here, ready_at)
    }

    #[test]
    fn what_takes_longer_than_the_shortest_way_has_waited() {
        let mut transit = Transit::new(Instant::now());
        // The interceptor's clock is an hour ahead, and the shortest way takes 60 us.
        let there = |micros: u64| 3_600_000_000 + micros;
        assert_eq!(waited(&mut transit, 1_100, there(1_000)), 0);
        assert_eq!(waited(&mut transit, 2_060, there(2_000)), 0);
        assert_eq!(waited(&mut transit, 3_900, there(3_000)), 840);
        assert_eq!(waited_at(&mut transit, OTHER, 3_950, 7), 0, "of its own");
        assert_eq!(waited(&mut transit, 4_900, there(4_000)), 840);
        // In the time that follows the shortest way is still known; two such times later it is not.
        assert_eq!(waited(&mut transit, 110_500, there(110_000)), 440);
        assert_eq!(waited(&mut transit, 500_500, there(500_000)), 0);
        assert_eq!(waited(&mut transit, 501_400, there(501_000)), 0);
        assert_eq!(waited(&mut transit, 503_000, there(502_000)), 600);
    }

    #[test]
    fn a_time_that_cannot_be_true_is_dropped_at_once() {
        let mut transit = Transit::new(Instant::now());
        assert_eq!(waited(&mut transit, 10, 0), 0);
        assert_eq!(waited(&mut transit, 1_000, 900), 0);
        for ready_at in [u64::MAX, 1, u64::MAX, 1 << 63, 1] {
            assert_eq!(waited(&mut transit, 1_000_000, ready_at), 0);
        }
        assert_eq!(waited(&mut transit, 1_000_100, 1_000_000), 0);
        assert_eq!(waited(&mut transit, 1_000_300, 1_000_100), 100);
        transit.forget(LINK);
        assert_eq!(waited(&mut transit, 1_000_400, 1_000_000), 0);
    }

    #[test]
    fn clocks_that_drift_apart_add_little() {
        let mut transit = Transit::new(Instant::now());
        let mut most = 0;
        for millis in 1..10_000u64 {
            // This host's clock gains 100 parts in a million.
            let here = millis * 1000 + millis / 10 + 60;
            most = most.max(waited(&mut transit, here, millis * 1000));
        }
        assert!((10..=20).contains(&most), "{most}");
    }
}
