//! Who holds what: while a holder's stream is open its lease lives, and a grace time longer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::need::{Need, Selectors};

/// Most holders of one host.
pub const MAX_HOLDERS: usize = 64;

/// Number of a stream, unique in this process.
pub type StreamId = u64;

/// A lease.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The stream that holds it, or held it last.
    pub stream: StreamId,
    /// What was asked for.
    pub need: Need,
    /// What is diverted for it.
    pub selectors: Selectors,
    /// When it ends, if its holder is gone.
    pub ends: Option<Instant>,
}

/// All leases.
#[derive(Debug, Default)]
pub struct Leases {
    by_holder: BTreeMap<String, Lease>,
    /// What was found in the kernel at the start, and until when its holders may come back.
    found: Option<(Selectors, Instant)>,
    by_hand: Selectors,
}

impl Leases {
    /// What was found in the kernel is kept until `until`, whoever held it; what was applied by
    /// hand is kept for good.
    pub fn new(found: Selectors, until: Instant, by_hand: Selectors) -> Self {
        let found = (!found.is_empty()).then_some((found, until));
        Self {
            by_holder: BTreeMap::new(),
            found,
            by_hand,
        }
    }

    /// A holder's lease.
    pub fn get(&self, holder: &str) -> Option<&Lease> {
        self.by_holder.get(holder)
    }

    /// Whether one more holder may come.
    pub fn has_room_for(&self, holder: &str) -> bool {
        self.by_holder.contains_key(holder) || self.by_holder.len() < MAX_HOLDERS
    }

    /// Whether a newer stream of this holder has taken over.
    pub fn is_replaced(&self, holder: &str, stream: StreamId) -> bool {
        let lease = self.by_holder.get(holder);
        lease.is_some_and(|lease| lease.stream > stream)
    }

    /// A holder holds; what it held before is replaced.
    pub fn hold(&mut self, holder: &str, stream: StreamId, need: Need, selectors: Selectors) {
        let lease = Lease {
            stream,
            need,
            selectors,
            ends: None,
        };
        self.by_holder.insert(holder.to_owned(), lease);
    }

    /// A stream has ended. Of no account if a newer one of the same holder has taken over.
    pub fn lost(&mut self, holder: &str, stream: StreamId, now: Instant, grace: Duration) -> bool {
        match self.by_holder.get_mut(holder) {
            Some(lease) if lease.stream == stream && lease.ends.is_none() => {
                lease.ends = Some(now + grace);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Ends what is over; the names of the holders that did not come back.
    pub fn expire(&mut self, now: Instant) -> Vec<String> {
        if self.found.as_ref().is_some_and(|(_, until)| *until <= now) {
            self.found = None;
        }
        let over = |lease: &Lease| lease.ends.is_some_and(|ends| ends <= now);
        let names: Vec<String> = self
            .by_holder
            .iter()
            .filter(|(_, lease)| over(lease))
            .map(|(name, _)| name.clone())
            .collect();
        self.by_holder.retain(|_, lease| !over(lease));
        names
    }

    /// All that is to be diverted.
    pub fn wanted(&self) -> Selectors {
        let mut all = self.by_hand.clone();
        all.extend(self.found.iter().flat_map(|(selectors, _)| selectors));
        all.extend(self.by_holder.values().flat_map(|lease| &lease.selectors));
        all
    }

    /// All but what `holder` holds.
    pub fn wanted_by_others(&self, holder: &str) -> Selectors {
        let mut all = self.by_hand.clone();
        all.extend(self.found.iter().flat_map(|(selectors, _)| selectors));
        let others = self.by_holder.iter().filter(|(name, _)| *name != holder);
        all.extend(others.flat_map(|(_, lease)| &lease.selectors));
        all
    }

    /// The leases by holder.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Lease)> {
        self.by_holder.iter()
    }

    /// What was found at the start and is still kept.
    pub fn found(&self) -> Option<&(Selectors, Instant)> {
        self.found.as_ref()
    }

    /// What was applied by hand.
    pub fn by_hand(&self) -> &Selectors {
        &self.by_hand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn need(service: &str) -> (Need, Selectors) {
        let need = Need {
            services: vec![service.parse().unwrap()],
            ..Need::default()
        };
        let selectors = need.selectors().unwrap();
        (need, selectors)
    }

    #[test]
    fn a_lease_outlives_its_stream_by_the_grace_time() {
        let now = Instant::now();
        let mut leases = Leases::new(Selectors::new(), now, Selectors::new());
        let (need, selectors) = need("198.18.0.1:80");
        leases.hold("a", 1, need, selectors);
        assert!(leases.expire(now + GRACE).is_empty());
        assert!(leases.lost("a", 1, now, GRACE));
        assert!(leases.expire(now + GRACE / 2).is_empty());
        assert_eq!(leases.wanted().len(), 1);
        assert_eq!(leases.expire(now + GRACE), ["a"]);
        assert!(leases.wanted().is_empty());
    }

    #[test]
    fn a_holder_that_comes_back_in_time_keeps_its_lease() {
        let now = Instant::now();
        let mut leases = Leases::new(Selectors::new(), now, Selectors::new());
        let (first, selectors) = need("198.18.0.1:80");
        leases.hold("a", 1, first.clone(), selectors.clone());
        leases.lost("a", 1, now, GRACE);
        leases.hold("a", 2, first, selectors);
        assert!(leases.expire(now + 2 * GRACE).is_empty());
        // The old stream's end is noticed late.
        assert!(!leases.lost("a", 1, now, GRACE));
        assert!(leases.expire(now + 2 * GRACE).is_empty());
    }

    #[test]
    fn a_stream_that_was_replaced_is_known_by_its_number() {
        let now = Instant::now();
        let mut leases = Leases::new(Selectors::new(), now, Selectors::new());
        let (need, selectors) = need("198.18.0.1:80");
        leases.hold("a", 2, need, selectors);
        assert!(leases.is_replaced("a", 1));
        assert!(!leases.is_replaced("a", 2));
        assert!(!leases.is_replaced("a", 3));
        assert!(!leases.is_replaced("b", 1));
    }

    #[test]
    fn what_was_found_is_kept_until_its_holders_had_their_time() {
        let now = Instant::now();
        let (_, found) = need("198.18.0.1:80");
        let mut leases = Leases::new(found.clone(), now + GRACE, Selectors::new());
        assert_eq!(leases.wanted(), found);
        leases.expire(now + GRACE);
        assert!(leases.wanted().is_empty());
        let mut by_hand = Leases::new(found.clone(), now, found.clone());
        by_hand.expire(now + GRACE);
        assert_eq!(by_hand.wanted(), found);
    }
}
