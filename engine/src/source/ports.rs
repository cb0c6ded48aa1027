//! The ports of one source address towards one target: which are in use, and which rest.
//!
//! A target remembers a finished connection for a while (TIME-WAIT, RFC 9293 3.6.1), and so do
//! balancers and firewalls on the way. So a port that was used rests before it is given out
//! again. Time is kept in periods of half a rest: a port rests for two whole ones and the rest of
//! the period in which it was given back.

use super::share::Block;

/// Periods that a port rests at least.
pub(super) const REST_PERIODS: u64 = 2;
/// More ports than this are kept in a map of all ports instead of a sorted list.
const LIST_MAX: usize = 1024;
/// With fewer ports than this a map becomes a list again.
const LIST_AGAIN: usize = 256;
/// Ports that are tried at random before the whole block is searched.
const TRIES: u32 = 8;

/// A free port.
const FREE: u8 = 0;
/// A port in use.
const USED: u8 = 1;
/// A port that was given back in this period; older ones are one more for each period.
const RESTING: u8 = 2;
/// Beside the state: it is, or was, the port of a client with this address and of nobody else.
const OWN: u8 = 0x80;

/// The state of every port that is not free.
#[derive(Debug)]
enum States {
    /// In ascending order.
    List(Vec<(u16, u8)>),
    /// One for each port there is.
    Map(Box<[u8; 65_536]>),
}

/// The ports of one address.
#[derive(Debug)]
pub(super) struct Ports {
    states: States,
    used: u32,
    resting: u32,
    /// Of the ports in use or resting, those inside the block.
    inside: u32,
    /// Ports that may stand in for a client's own.
    block: Block,
    /// The period up to which ages are right.
    aged_to: u64,
}

impl Ports {
    pub(super) const fn new(block: Block, period: u64) -> Self {
        Self {
            states: States::List(Vec::new()),
            used: 0,
            resting: 0,
            inside: 0,
            block,
            aged_to: period,
        }
    }

    /// Whether no port is in use.
    pub(super) const fn is_unused(&self) -> bool {
        self.used == 0
    }

    /// Whether no port is in use or resting.
    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0 && self.resting == 0
    }

    /// Frees the ports that have rested. To be called with the present period before anything
    /// else.
    pub(super) fn age(&mut self, period: u64) {
        let steps = period.saturating_sub(self.aged_to);
        if steps == 0 {
            return;
        }
        self.aged_to = period;
        if self.resting == 0 {
            return;
        }
        let steps = steps.min(64) as u8;
        let (mut freed, mut inside, block) = (0, 0, self.block);
        let mut grow_old = |port: u16, raw: u8| {
            let (state, own) = (raw & !OWN, raw & OWN);
            if state < RESTING {
                return raw;
            }
            let older = state.saturating_add(steps);
            if u64::from(older - RESTING) <= REST_PERIODS {
                return older | own;
            }
            freed += 1;
            inside += u32::from(block.contains(port));
            FREE
        };
        match &mut self.states {
            States::List(list) => list.retain_mut(|(port, state)| {
                *state = grow_old(*port, *state);
                *state != FREE
            }),
            States::Map(map) => {
                for (port, state) in (0..=u16::MAX).zip(map.iter_mut()) {
                    *state = grow_old(port, *state);
                }
            }
        }
        self.resting -= freed;
        self.inside -= inside;
        self.shrink();
    }

    /// Takes this very port if nobody uses it; with `again` also while it rests, if it was taken
    /// in this way before.
    pub(super) fn take_own(&mut self, port: u16, again: bool) -> bool {
        let state = self.raw(port);
        let fits = state == FREE || (again && state & OWN != 0 && state & !OWN >= RESTING);
        if fits {
            self.set(port, USED | OWN);
        }
        fits
    }

    /// Takes a free port of the block that is `open`, if there is one; `random` says where the search begins.
    pub(super) fn take_free(&mut self, random: u64, open: impl Fn(u16) -> bool) -> Option<u16> {
        if self.inside >= self.block.len() {
            return None;
        }
        let free = |port, state| state == FREE && open(port);
        let port = self.search(self.block, random, free)?;
        self.set(port, USED);
        Some(port)
    }

    /// Takes a free port of this block, which may be another than the port's own.
    pub(super) fn take_beyond(&mut self, block: Block, random: u64) -> Option<u16> {
        let port = self.search(block, random, |_, state| state == FREE)?;
        self.set(port, USED);
        Some(port)
    }

    /// Takes a port of the block that has not rested long enough, preferably one that has rested
    /// long.
    pub(super) fn take_early(&mut self, random: u64, open: impl Fn(u16) -> bool) -> Option<u16> {
        if self.resting == 0 {
            return None;
        }
        let oldest = (RESTING..=RESTING + REST_PERIODS as u8).rev();
        let port = oldest
            .map(|age| {
                let wanted = |port, state| state == age && open(port);
                self.search(self.block, random, wanted)
            })
            .find_map(|port| port)?;
        self.set(port, USED);
        Some(port)
    }

    /// A port is not used any more; it rests, or is free at once.
    pub(super) fn release(&mut self, port: u16, rests: bool) {
        if self.state(port) == USED {
            let own = self.raw(port) & OWN;
            self.set(port, if rests { RESTING | own } else { FREE });
            self.shrink();
        }
    }

    /// The first port with a wanted state, from a random place on.
    fn search(&self, block: Block, random: u64, wanted: impl Fn(u16, u8) -> bool) -> Option<u16> {
        let len = u64::from(block.len());
        let port_at = |n: u64| block.first.wrapping_add((n % len.max(1)) as u16);
        let mut state = random;
        for _ in 0..TRIES {
            let port = port_at(state >> 32);
            if wanted(port, self.state(port)) {
                return Some(port);
            }
            state = split_mix(state);
        }
        let start = state >> 32;
        (0..len)
            .map(|n| port_at((start % len.max(1)) + n))
            .find(|port| wanted(*port, self.state(*port)))
    }

    /// The state alone, whosever port it is.
    fn state(&self, port: u16) -> u8 {
        self.raw(port) & !OWN
    }

    fn raw(&self, port: u16) -> u8 {
        match &self.states {
            States::List(list) => list
                .binary_search_by_key(&port, |(port, _)| *port)
                .ok()
                .and_then(|at| list.get(at))
                .map_or(FREE, |(_, state)| *state),
            States::Map(map) => map.get(usize::from(port)).copied().unwrap_or(FREE),
        }
    }

    fn set(&mut self, port: u16, to: u8) {
        let from = self.put(port, to) & !OWN;
        let to = to & !OWN;
        self.used = self.used + u32::from(to == USED) - u32::from(from == USED);
        self.resting = self.resting + u32::from(to >= RESTING) - u32::from(from >= RESTING);
        if self.block.contains(port) {
            self.inside = self.inside + u32::from(to != FREE) - u32::from(from != FREE);
        }
    }

    /// Stores a state; gives the one before.
    fn put(&mut self, port: u16, to: u8) -> u8 {
        if let States::List(list) = &self.states
            && list.len() >= LIST_MAX
        {
            let mut map = Box::new([FREE; 65_536]);
            for (port, state) in list {
                if let Some(place) = map.get_mut(usize::from(*port)) {
                    *place = *state;
                }
            }
            self.states = States::Map(map);
        }
        match &mut self.states {
            States::Map(map) => map
                .get_mut(usize::from(port))
                .map_or(FREE, |place| std::mem::replace(place, to)),
            States::List(list) => match list.binary_search_by_key(&port, |(port, _)| *port) {
                Ok(at) if to == FREE => list.remove(at).1,
                Ok(at) => list
                    .get_mut(at)
                    .map_or(FREE, |(_, place)| std::mem::replace(place, to)),
                Err(at) => {
                    if to != FREE {
                        list.insert(at, (port, to));
                    }
                    FREE
                }
            },
        }
    }

    fn shrink(&mut self) {
        let few = (self.used + self.resting) as usize <= LIST_AGAIN;
        match &mut self.states {
            States::Map(map) if few => {
                let kept = (0..=u16::MAX).zip(map.iter().copied());
                self.states = States::List(kept.filter(|(_, state)| *state != FREE).collect());
            }
            States::List(list) if list.capacity() > 4 * list.len().max(4) => list.shrink_to_fit(),
            States::Map(_) | States::List(_) => {}
        }
    }
}

/// One step of the SplitMix64 generator.
pub(super) const fn split_mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const BLOCK: Block = Block {
        first: 1024,
        last: 65_535,
    };

    #[test]
    fn every_port_of_a_block_is_found_before_none_is() {
        for block in [
            BLOCK,
            Block {
                first: 2000,
                last: 2062,
            },
            Block { first: 7, last: 7 },
        ] {
            let mut ports = Ports::new(block, 0);
            for i in 0..block.len() {
                let port = ports.take_free(split_mix(u64::from(i)), |_| true);
                assert!(
                    port.is_some_and(|port| block.contains(port)),
                    "{i} of {block:?}"
                );
            }
            assert_eq!(ports.take_free(1, |_| true), None);
            assert_eq!(ports.take_early(1, |_| true), None);
            ports.release(block.last, true);
            assert_eq!(ports.take_free(1, |_| true), None, "it rests");
            assert_eq!(ports.take_early(1, |_| true), Some(block.last));
        }
    }

    proptest! {
        /// Against a plain map of what is used and since when the others rest.
        #[test]
        fn behaves_like_a_map_of_ports(
            steps in proptest::collection::vec((0..6u8, any::<u64>(), 0..2u64), 1..300),
            small in any::<bool>(),
        ) {
            let block = if small { Block { first: 3000, last: 3040 } } else { BLOCK };
            let mut ports = Ports::new(block, 0);
            let mut model: BTreeMap<u16, Option<u64>> = BTreeMap::new();
            let mut period = 0;
            for (what, random, steps) in steps {
                period += steps;
                ports.age(period);
                model.retain(|_, since| since.is_none_or(|since| period - since <= REST_PERIODS));
                match what {
                    0 => {
                        let port = random as u16;
                        let free = !model.contains_key(&port);
                        prop_assert_eq!(ports.take_own(port, false), free);
                        if free { model.insert(port, None); }
                    }
                    1..=3 => match ports.take_free(random, |_| true) {
                        Some(port) => {
                            prop_assert!(block.contains(port));
                            prop_assert!(model.insert(port, None).is_none());
                        }
                        None => prop_assert!((block.first..=block.last).all(|port| model.contains_key(&port))),
                    },
                    4 => {
                        let inside = model.iter().filter(|(port, _)| block.contains(**port));
                        let oldest = inside.filter_map(|(_, since)| *since).min();
                        match ports.take_early(random, |_| true) {
                            Some(port) => prop_assert_eq!(model.insert(port, None), Some(oldest)),
                            None => prop_assert_eq!(oldest, None),
                        }
                    }
                    _ => {
                        let used: Vec<u16> = model.iter().filter(|(_, since)| since.is_none()).map(|(port, _)| *port).collect();
                        if let Some(port) = used.get(random as usize % used.len().max(1)) {
                            ports.release(*port, true);
                            model.insert(*port, Some(period));
                        }
                    }
                }
                prop_assert_eq!(ports.is_empty(), model.is_empty());
                prop_assert_eq!(ports.is_unused(), model.values().all(Option::is_some));
            }
        }
    }
}
