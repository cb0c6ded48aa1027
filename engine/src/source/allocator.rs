//! Gives out sources: no two replicas alive share source address, source port and target.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use foldhash::fast::FixedState;
use indexmap::IndexMap;
use millrace_wire::Endpoint;

use super::ports::{Ports, REST_PERIODS, split_mix};
use super::share::{Block, Sources, Space};
use crate::time::Time;

/// Addresses that are tried at random before the pool is walked through.
const TRIES: u32 = 16;
/// Addresses of a pool that are walked through before the space counts as used up. Each holds as
/// many replicas as there are ports, so a larger pool does not get full.
const WALK: u128 = 4096;
/// Addresses of which only resting ports are known; the rest of more is cut short.
const MAX_RESTING_ADDRESSES: usize = 1 << 18;
/// Sources of others that are remembered. Beyond them a replica may try one in vain.
const MOST_TAKEN: usize = 1 << 20;
/// Addresses that are looked after whenever a source is given out: one may be new, so it takes
/// two to catch up.
const SWEEP: usize = 2;

/// A source that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The address and port.
    pub(crate) source: Endpoint,
    /// Its rest was cut short, since nothing else was free.
    pub(crate) early: bool,
}

/// What sources may be given out.
#[derive(Debug)]
pub(crate) struct Rules {
    /// Of IPv4, and of IPv6.
    pub(crate) own: [Space; 2],
    /// Of each service: the number of its target, the same for those that share one.
    pub(crate) targets: Vec<u16>,
    /// How long a port rests before it is used again.
    pub(crate) port_rest: Duration,
    /// For what is chosen at random.
    pub(crate) seed: u64,
}

/// All sources of an engine.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// Of each family, IPv4 first: all that is this copier's own...
    own: [Space; 2],
    /// ...and what of it is not yielded.
    v4: Space,
    v6: Space,
    /// Sources within it that others have, by the number of the target.
    taken: HashSet<(u16, Endpoint), FixedState>,
    addresses: Addresses,
}

impl Allocator {
    pub(crate) fn new(rules: Rules) -> Self {
        let addresses = Addresses::new(&rules);
        let own = rules.own;
        let [v4, v6] = own.clone();
        Self {
            own,
            v4,
            v6,
            taken: HashSet::with_hasher(FixedState::with_seed(rules.seed)),
            addresses,
        }
    }

    /// Gives out none of these sources from now on, and again those that were yielded before and are not named
    /// any more.
    pub(crate) fn yield_to_others(&mut self, others: &[Sources]) {
        let [v4, v6] = &self.own;
        self.v4 = v4.without(others);
        self.v6 = v6.without(others);
    }

    /// Notes that another copier has this source towards the target of this service, or has it no more.
    pub(crate) fn set_taken(&mut self, service: u16, source: Endpoint, is_taken: bool) {
        let key = (self.addresses.target(service), source);
        if !is_taken {
            self.taken.remove(&key);
        } else if self.taken.len() < MOST_TAKEN {
            self.taken.insert(key);
        }
    }

    /// Takes a source for a replica of `client` towards the target of this service, which is
    /// `target`.
    ///
    /// The client's own port is kept where it is free, since that makes a replica easy to find in
    /// a capture at the target. Without a pool a client that comes back with its own port gets it
    /// even if it rests from it: the client has judged that its server will take it, and the target tells
    /// the new connection from the old one by sequence number and timestamp, which only rise
    /// (RFC 6191). `random` spreads clients over the pool and begins the search for a port. `None`
    /// when the space is used up, or when the client's address family is not the target's and
    /// there is no pool.
    pub(crate) fn take(
        &mut self,
        now: Time,
        client: Endpoint,
        service: u16,
        target: &IpAddr,
        random: u64,
    ) -> Option<Taken> {
        let Self {
            v4,
            v6,
            taken,
            addresses,
            ..
        } = self;
        addresses.sweep(now);
        let space: &Space = if target.is_ipv4() { v4 } else { v6 };
        let (block, beyond) = (space.block(), space.beyond());
        let own = space.allows(client.port);
        if space.keeps_clients() {
            if client.ip.is_ipv4() != target.is_ipv4() {
                return None;
            }
            return addresses.take(now, service, client.ip, block, |ports| {
                let kept = own && ports.take_own(client.port, true);
                let kept = kept.then_some((client.port, false));
                kept.or_else(|| Some((ports.take_free(random, |_| true)?, false)))
                    .or_else(|| Some((ports.take_beyond(beyond?, random)?, false)))
                    .or_else(|| Some((ports.take_early(random, |_| true)?, true)))
            });
        }
        let count = space.count();
        if count == 0 {
            return None;
        }
        let start = u128::from(random) % count;
        let (target, is_taken) = (addresses.target(service), !taken.is_empty());
        let is_open = |ip: IpAddr, port: u16| {
            let is_anothers = is_taken && taken.contains(&(target, Endpoint::new(ip, port)));
            !space.is_yielded(&ip, port) && !is_anothers
        };
        let first = space.nth(start)?;
        if own && is_open(first, client.port) {
            let kept = addresses.take(now, service, first, block, |ports| {
                let kept = ports.take_own(client.port, false);
                kept.then_some((client.port, false))
            });
            if kept.is_some() {
                return kept;
            }
        }
        let mut free = |ip, random| {
            addresses.take(now, service, ip, block, |ports| {
                Some((ports.take_free(random, |port| is_open(ip, port))?, false))
            })
        };
        let mut state = random;
        for _ in 0..count.min(u128::from(TRIES)) {
            let taken = free(space.nth(u128::from(state) % count)?, state);
            if taken.is_some() {
                return taken;
            }
            state = split_mix(state);
        }
        let walk = || {
            let number = move |n| start.saturating_add(n) % count;
            (0..WALK.min(count)).filter_map(move |n| space.nth(number(n)))
        };
        let taken = walk().find_map(|ip| free(ip, state));
        taken.or_else(|| {
            walk().find_map(|ip| {
                addresses.take(now, service, ip, block, |ports| {
                    Some((ports.take_early(state, |port| is_open(ip, port))?, true))
                })
            })
        })
    }

    /// A source is not used any more: its port rests.
    pub(crate) fn release(&mut self, now: Time, service: u16, source: Endpoint) {
        self.addresses.release(now, service, source);
    }
}

/// The addresses of which something is known.
#[derive(Debug)]
struct Addresses {
    /// The number of each service's target: those with the same target share it.
    targets: Vec<u16>,
    /// Length of a period, in microseconds; 0: ports do not rest.
    period: u64,
    ports: IndexMap<(u16, IpAddr), Ports, FixedState>,
    /// Addresses with ports in use.
    used: usize,
    sweep_at: usize,
}

impl Addresses {
    fn new(rules: &Rules) -> Self {
        let rest = u64::try_from(rules.port_rest.as_micros()).unwrap_or(u64::MAX);
        Self {
            targets: rules.targets.clone(),
            period: rest / REST_PERIODS,
            ports: IndexMap::with_hasher(FixedState::with_seed(rules.seed)),
            used: 0,
            sweep_at: 0,
        }
    }

    /// Takes the port of this address that `choose` takes.
    fn take(
        &mut self,
        now: Time,
        service: u16,
        ip: IpAddr,
        block: Block,
        choose: impl FnOnce(&mut Ports) -> Option<(u16, bool)>,
    ) -> Option<Taken> {
        let period = self.period_at(now);
        let entry = self.ports.entry((self.target(service), ip));
        let ports = entry.or_insert_with(|| Ports::new(block, period));
        ports.age(period);
        let unused = ports.is_unused();
        let (port, early) = choose(ports)?;
        self.used += usize::from(unused);
        let source = Endpoint::new(ip, port);
        Some(Taken { source, early })
    }

    fn release(&mut self, now: Time, service: u16, source: Endpoint) {
        let period = self.period_at(now);
        let key = (self.target(service), source.ip);
        let Some(ports) = self.ports.get_mut(&key) else {
            return;
        };
        ports.age(period);
        let unused = ports.is_unused();
        ports.release(source.port, self.period > 0);
        self.used -= usize::from(!unused && ports.is_unused());
        if ports.is_empty() {
            self.ports.swap_remove(&key);
        }
    }

    /// Forgets addresses whose ports have all rested, a few at a time.
    fn sweep(&mut self, now: Time) {
        let period = self.period_at(now);
        let too_many = self.ports.len() > self.used + MAX_RESTING_ADDRESSES;
        for _ in 0..SWEEP {
            if self.sweep_at >= self.ports.len() {
                self.sweep_at = 0;
            }
            let Some((_, ports)) = self.ports.get_index_mut(self.sweep_at) else {
                return;
            };
            ports.age(period);
            if ports.is_empty() || (too_many && ports.is_unused()) {
                self.ports.swap_remove_index(self.sweep_at);
            } else {
                self.sweep_at += 1;
            }
        }
    }

    fn target(&self, service: u16) -> u16 {
        let target = self.targets.get(usize::from(service));
        target.copied().unwrap_or_default()
    }

    fn period_at(&self, now: Time) -> u64 {
        now.as_micros().checked_div(self.period).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "allocator_tests.rs"]
mod tests;
