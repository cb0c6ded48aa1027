//! What of its client pool a copier without a share leaves to others.
//!
//! It owns what nobody else claims. Interceptors say what others claim; what one of them has named is left alone, for a
//! while longer than it is named: an interceptor that was restarted hears of claims again one after the other.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use millrace_proto::{ClientRange, MAX_CLAIM_ENTRIES};
use millrace_wire::Endpoint;

use super::LinkId;

/// How long a range that no interceptor names any more is still left alone: longer than a copier takes to be back.
const KEPT: Duration = Duration::from_secs(60);

/// What is yielded.
#[derive(Debug, Default)]
pub(super) struct Yielded {
    /// What the interceptor at the other end of each link said last.
    said: HashMap<LinkId, Vec<ClientRange>>,
    /// The ranges, and when each is this copier's again: `None` while an interceptor names it.
    ranges: BTreeMap<ClientRange, Option<Duration>>,
}

impl Yielded {
    /// An interceptor names the ranges that others claim, in place of those that it named before. Says whether other
    /// ranges are left than before.
    pub(super) fn say(&mut self, now: Duration, link: LinkId, ranges: Vec<ClientRange>) -> bool {
        self.said.insert(link, ranges);
        self.settle(now, true)
    }

    /// A stream ended or begins: what its interceptor said is to be said again.
    pub(super) fn unsay(&mut self, now: Duration, link: LinkId) {
        if self.said.remove(&link).is_some() {
            self.refresh(now);
        }
    }

    /// Takes back what no interceptor has named for long enough; while none is connected (`heard`), none could. Says
    /// whether other ranges are left than before.
    pub(super) fn settle(&mut self, now: Duration, heard: bool) -> bool {
        let new = self.refresh(now);
        if !heard {
            for until in self.ranges.values_mut().flatten() {
                *until = now + KEPT;
            }
        }
        let before = self.ranges.len();
        self.ranges
            .retain(|_, until| until.is_none_or(|until| now < until));
        new || self.ranges.len() < before
    }

    /// Looks again at which ranges are named. Says whether one is new. More than a claim can leave out are not taken
    /// in: their shares are not granted.
    fn refresh(&mut self, now: Duration) -> bool {
        for until in self.ranges.values_mut() {
            until.get_or_insert(now + KEPT);
        }
        let mut new = false;
        for range in self.said.values().flatten() {
            if let Some(until) = self.ranges.get_mut(range) {
                *until = None;
            } else if self.ranges.len() < MAX_CLAIM_ENTRIES {
                self.ranges.insert(*range, None);
                new = true;
            }
        }
        new
    }

    /// When [`Yielded::settle`] is to be called next.
    pub(super) fn due(&self) -> Option<Duration> {
        self.ranges.values().flatten().min().copied()
    }

    /// The ranges that are yielded.
    pub(super) fn ranges(&self) -> impl Iterator<Item = ClientRange> {
        self.ranges.keys().copied()
    }

    /// Whether this source is left to others.
    pub(super) fn contains(&self, source: Endpoint) -> bool {
        self.ranges().any(|range| range.contains(source.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1000);

    fn link(interceptor: u32) -> LinkId {
        LinkId {
            interceptor,
            link: 0,
        }
    }

    fn range(last: u8) -> ClientRange {
        let ip = |n| std::net::Ipv4Addr::new(198, 18, 1, n).into();
        ClientRange::new(ip(1), ip(last), 1, 65_535).unwrap()
    }

    #[test]
    fn what_a_hostile_interceptor_names_is_bounded() {
        let mut yielded = Yielded::default();
        for n in 0..100 {
            let ports = (0..1000).map(|port| {
                let ip = std::net::Ipv4Addr::new(198, 18, 1, n).into();
                ClientRange::new(ip, ip, port, port).unwrap()
            });
            yielded.say(START, link(0), ports.collect());
        }
        assert_eq!(yielded.ranges().count(), MAX_CLAIM_ENTRIES);
    }

    #[test]
    fn what_one_interceptor_names_is_left_until_long_after_none_does() {
        let mut yielded = Yielded::default();
        assert!(yielded.say(START, link(0), vec![range(1), range(2)]));
        assert!(!yielded.say(START, link(1), vec![range(1)]), "nothing new");
        assert!(!yielded.say(START, link(0), vec![range(1)]), "still left");
        assert_eq!(yielded.ranges().count(), 2);
        let due = yielded.due().unwrap();
        assert_eq!(due, START + KEPT);
        assert!(yielded.settle(due, true));
        assert_eq!(yielded.ranges().collect::<Vec<_>>(), [range(1)]);
        // Both streams end; one is back and names it again.
        yielded.unsay(due, link(0));
        yielded.unsay(due, link(1));
        assert!(!yielded.settle(due + Duration::from_secs(1), true));
        assert!(!yielded.say(due + Duration::from_secs(50), link(1), vec![range(1)]));
        assert_eq!(yielded.due(), None);
        yielded.unsay(due + Duration::from_secs(51), link(1));
        // While no interceptor is connected nobody could have named it.
        let down = yielded.due().unwrap();
        assert!(!yielded.settle(down, false));
        let last = yielded.due().unwrap();
        assert_eq!(last, down + KEPT);
        assert!(yielded.settle(last, true));
        assert!(yielded.ranges().next().is_none());
    }
}
