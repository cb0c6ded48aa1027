//! Headers that came before their route info: kept for a bounded time, within a bounded space.
//!
//! A target may answer faster than gRPC carries an announcement. What waits here too long was
//! nobody's, or its owner is gone; a target repeats what matters.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use millrace_proto::HeaderRecord;
use millrace_wire::{Endpoint, FourTuple};

/// How long a header waits.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many may wait.
const CAPACITY: usize = 65_536;
/// How many of one flow may wait: more than a target's first window of small answers.
const PER_FLOW: usize = 32;

/// The headers of one flow.
#[derive(Debug, Default)]
struct Waiting {
    wait: u64,
    headers: Vec<HeaderRecord>,
}

/// The waiting headers.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// A flow begins with its client, so that all of one client stand side by side: behind address
    /// translation a flow is announced by its client alone.
    by_flow: BTreeMap<FourTuple, Waiting>,
    /// Flows in the order in which their first header came, with the number of that wait: a flow
    /// that was taken leaves its place behind.
    order: VecDeque<(Duration, FourTuple, u64)>,
    waits: u64,
    count: usize,
    expired: u64,
}

impl Pending {
    /// Keeps a header of a flow that nobody owns yet.
    pub(super) fn keep(&mut self, now: Duration, tuple: FourTuple, header: HeaderRecord) {
        while self.count >= CAPACITY && self.drop_oldest() {}
        // Places left behind are bounded too.
        while self.order.len() >= 2 * CAPACITY && self.drop_oldest() {}
        let waiting = self.by_flow.entry(tuple).or_default();
        if waiting.headers.is_empty() {
            self.waits += 1;
            waiting.wait = self.waits;
            self.order.push_back((now, tuple, self.waits));
        }
        let headers = &mut waiting.headers;
        if headers.len() >= PER_FLOW {
            self.expired += 1;
            return;
        }
        headers.push(header);
        self.count += 1;
    }

    /// Takes the headers of a flow that has an owner now.
    pub(super) fn take(&mut self, tuple: &FourTuple) -> Vec<HeaderRecord> {
        if self.count == 0 {
            return Vec::new();
        }
        let headers = self.by_flow.remove(tuple).unwrap_or_default().headers;
        self.count -= headers.len();
        headers
    }

    /// Takes the headers of all flows of a client that has an owner now.
    pub(super) fn take_client(&mut self, client: Endpoint) -> Vec<(FourTuple, Vec<HeaderRecord>)> {
        let first = FourTuple::new(client, Endpoint::new(Ipv4Addr::UNSPECIFIED.into(), 0));
        let last_ip = IpAddr::from(Ipv6Addr::from(u128::MAX));
        let last = FourTuple::new(client, Endpoint::new(last_ip, u16::MAX));
        let flows: Vec<_> = self.by_flow.range(first..=last).map(|it| *it.0).collect();
        self.take_each(flows)
    }

    /// Takes the headers of all flows that are `owned` now; the others wait on, no longer than
    /// they would have.
    pub(super) fn take_if(
        &mut self,
        owned: impl Fn(&FourTuple) -> bool,
    ) -> Vec<(FourTuple, Vec<HeaderRecord>)> {
        let flows: Vec<_> = self.by_flow.keys().copied().filter(owned).collect();
        self.take_each(flows)
    }

    fn take_each(&mut self, flows: Vec<FourTuple>) -> Vec<(FourTuple, Vec<HeaderRecord>)> {
        let take = |flow| (flow, self.take(&flow));
        flows.into_iter().map(take).collect()
    }

    /// Gives up what has waited too long.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((since, ..)) = self.order.front()
            && now.saturating_sub(*since) > PATIENCE
        {
            self.drop_oldest();
        }
    }

    /// How many wait.
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// Whether none waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many were given up.
    pub(super) const fn expired(&self) -> u64 {
        self.expired
    }

    fn drop_oldest(&mut self) -> bool {
        let Some((_, tuple, wait)) = self.order.pop_front() else {
            return false;
        };
        if self
            .by_flow
            .get(&tuple)
            .is_some_and(|waiting| waiting.wait == wait)
            && let Some(waiting) = self.by_flow.remove(&tuple)
        {
            self.count -= waiting.headers.len();
            self.expired += waiting.headers.len() as u64;
        }
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use millrace_proto::FlowKey;
    use millrace_wire::Endpoint;

    fn tuple(port: u16) -> FourTuple {
        let ip = "198.18.0.1".parse().unwrap();
        FourTuple::new(Endpoint::new(ip, port), Endpoint::new(ip, 80))
    }

    pub(in super::super) fn header(seq: u32) -> HeaderRecord {
        HeaderRecord {
            key: FlowKey::Id(0),
            seq,
            ack: 0,
            flags: 0,
            window: 0,
            payload_len: 0,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
            sack: Default::default(),
            sack_count: 0,
        }
    }

    #[test]
    fn headers_wait_in_order_for_their_owner() {
        let mut pending = Pending::default();
        let now = Duration::ZERO;
        for seq in 0..3 {
            pending.keep(now, tuple(1), header(seq));
        }
        pending.keep(now, tuple(2), header(9));
        let taken: Vec<u32> = pending
            .take(&tuple(1))
            .iter()
            .map(|header| header.seq)
            .collect();
        assert_eq!(taken, [0, 1, 2]);
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn headers_that_nobody_owns_are_given_up() {
        let mut pending = Pending::default();
        let now = Duration::ZERO;
        pending.keep(now, tuple(1), header(1));
        pending.expire(now + PATIENCE / 2);
        assert_eq!(pending.len(), 1);
        pending.expire(now + PATIENCE * 2);
        assert_eq!((pending.len(), pending.expired()), (0, 1));
    }

    #[test]
    fn a_flow_that_was_taken_and_waits_again_has_its_full_time() {
        let mut pending = Pending::default();
        let now = Duration::ZERO;
        pending.keep(now, tuple(1), header(1));
        pending.take(&tuple(1));
        pending.keep(now + PATIENCE, tuple(1), header(2));
        pending.expire(now + PATIENCE + PATIENCE / 2);
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn route_info_of_others_does_not_lengthen_a_wait() {
        let mut pending = Pending::default();
        let now = Duration::ZERO;
        for port in 0..100 {
            pending.keep(now, tuple(port), header(1));
        }
        let other = tuple(7).source;
        assert_eq!(pending.take_client(other).len(), 1);
        assert_eq!(pending.take_if(|flow| *flow == tuple(8)).len(), 1);
        assert_eq!(pending.take_client(tuple(200).source).len(), 0);
        assert_eq!(pending.len(), 98);
        pending.expire(now + PATIENCE * 2);
        assert_eq!((pending.len(), pending.expired()), (0, 98));
    }

    #[test]
    fn a_client_has_flows_to_targets_of_both_kinds_of_addresses() {
        let mut pending = Pending::default();
        let client = tuple(1).source;
        let targets = ["0.0.0.0:0", "198.18.2.20:80", "255.255.255.255:65535"];
        for target in targets.iter().chain(&["[::]:0", "[2001:db8::1]:80"]) {
            let target: std::net::SocketAddr = target.parse().unwrap();
            let flow = FourTuple::new(client, target.into());
            pending.keep(Duration::ZERO, flow, header(1));
        }
        pending.keep(Duration::ZERO, tuple(0), header(1));
        pending.keep(Duration::ZERO, tuple(2), header(1));
        assert_eq!(pending.take_client(client).len(), 5);
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn space_is_bounded_in_all_and_for_each_flow() {
        let mut pending = Pending::default();
        let now = Duration::ZERO;
        for port in 0..=u16::MAX {
            for seq in 0..2 {
                pending.keep(now, tuple(port), header(seq));
            }
        }
        assert!(pending.len() <= CAPACITY);
        for seq in 0..1000 {
            pending.keep(now, tuple(5), header(seq));
        }
        assert_eq!(pending.take(&tuple(5)).len(), PER_FLOW);
    }
}
