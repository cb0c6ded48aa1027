//! Sampled sessions: what is told of their turns and replicas, for whoever draws traces of it. No payload is.
//!
//! Which sessions are sampled is a keyed hash of their addresses and ports, apart from the one that chooses what is copied:
//! of each session all turns are told, or none. Nothing is kept, or allocated, for the others.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use millrace_wire::FourTuple;

use crate::intensity::{Intensity, Place};
use crate::stats::AbortReason;
use crate::time::Time;

/// What nobody has taken yet is kept up to so many; more are counted ([`crate::Stats::untold`]).
const MOST: usize = 4096;
/// Memory for what is kept of a connection besides itself, in bytes: its place in the hash table at half full.
const ENTRY_COST: usize = 2 * (size_of::<TaleKey>() + size_of::<usize>());

/// Something that happened to a sampled session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A turn was played, or came to nothing.
    Turn(Box<ToldTurn>),
    /// A replica is over.
    Replica(Box<ToldReplica>),
}

/// Which replica something is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Teller {
    /// Counts those that are told of, from 1; after four billion it begins anew.
    pub number: u32,
    /// Place of its service in [`crate::Config::services`].
    pub service: usize,
    /// From the client to the live server.
    pub live: FourTuple,
    /// When its SYN was sent first; that of one that never began: when it ended.
    pub begun_at: Time,
}

/// A turn: what a client sent until it waited, and the answers to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldTurn {
    /// The replica that played it.
    pub teller: Teller,
    /// Counts its turns, from 0.
    pub number: u32,
    /// When its first byte was captured, to a quarter of a millisecond.
    pub captured_at: Time,
    /// When the gate let it go to the target.
    pub sent_at: Time,
    /// When the last byte of the target's answer came; without an answer: when none was waited for any more.
    pub ended_at: Time,
    /// Its bytes.
    pub bytes: u64,
    /// Of these, bytes that the target acknowledged.
    pub delivered: u64,
    /// Packets of it that were sent to the target again.
    pub retransmitted: u32,
    /// How much later it went than its client sent it, but for what the target itself took longer than the live server.
    /// `None` where clients' pace is not kept.
    pub lag: Option<Duration>,
    /// From the turn's last byte to the first of the live server's answer, where there was one.
    pub live_first: Option<Duration>,
    /// The same at the target, and to the last byte of its answer.
    pub target: Option<(Duration, Duration)>,
    /// Bytes of the target's answer.
    pub answered: u64,
    /// What was heard of the target's answer before the next turn went; `None` for the last turn of a replica.
    pub answer: Option<Answer>,
    /// The replica ended with this turn, and why, if not as its client did.
    pub aborted: Option<AbortReason>,
}

/// What was heard of a target's answer before the next turn went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As much as the live server had answered.
    Whole,
    /// Less, and then nothing more.
    Shorter,
    /// Not enough within the bound.
    Awaited,
}

/// A replica that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldReplica {
    /// Which.
    pub teller: Teller,
    /// When the target had accepted it.
    pub established_at: Option<Time>,
    /// When it ended.
    pub ended_at: Time,
    /// Turns that went to the target.
    pub turns: u32,
    /// Bytes that its client sent.
    pub bytes: u64,
    /// Of these, bytes that the target acknowledged.
    pub delivered: u64,
    /// Packets with data that were sent to the target again.
    pub retransmitted: u32,
    /// Why it was not completed, if so.
    pub aborted: Option<AbortReason>,
}

/// Chooses sessions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sampler {
    share: Intensity,
    key: [u8; 16],
}

impl Sampler {
    pub(crate) fn new(share: Intensity, seed: u64) -> Self {
        let mut key = *b"........sampling";
        for (byte, from) in key.iter_mut().zip(seed.to_be_bytes()) {
            *byte = from;
        }
        Self { share, key }
    }

    /// Whether this session is told of.
    pub(crate) fn samples(&self, live: &FourTuple) -> bool {
        self.share != Intensity::ZERO && self.share.copies(Place::of_flow(&self.key, live)) > 0
    }
}

/// Which tale is whose. Numbers come again after four billion.
pub(crate) type TaleKey = NonZeroU32;

/// What is kept of open connections until it is told, and what is told and nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Tales<T> {
    kept: HashMap<TaleKey, Box<T>, FixedState>,
    waiting: VecDeque<Told>,
    /// Replicas that were told of.
    tellers: u32,
}

impl<T> Default for Tales<T> {
    fn default() -> Self {
        Self {
            kept: HashMap::with_hasher(FixedState::default()),
            waiting: VecDeque::new(),
            tellers: 0,
        }
    }
}

impl<T> Tales<T> {
    /// Keeps what is to be told of a connection.
    pub(crate) fn keep(&mut self, key: TaleKey, tale: Box<T>) {
        self.kept.insert(key, tale);
    }

    /// What is kept of a connection; it is not any more.
    pub(crate) fn take(&mut self, key: TaleKey) -> Option<Box<T>> {
        self.kept.remove(&key)
    }

    /// The same, which stays.
    pub(crate) fn get_mut(&mut self, key: TaleKey) -> Option<&mut T> {
        self.kept.get_mut(&key).map(Box::as_mut)
    }

    /// Memory of what is kept, in bytes.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.kept.len() * (size_of::<T>() + ENTRY_COST)
    }

    /// Tells something; says whether there was room for it.
    pub(crate) fn tell(&mut self, told: impl FnOnce() -> Told) -> bool {
        let room = self.waiting.len() < MOST;
        if room {
            self.waiting.push_back(told());
        }
        room
    }

    /// The key of another replica.
    pub(crate) fn next_key(&mut self) -> TaleKey {
        self.tellers = self.tellers.wrapping_add(1);
        TaleKey::new(self.tellers).unwrap_or(TaleKey::MIN)
    }

    /// The oldest.
    pub(crate) fn poll(&mut self) -> Option<Told> {
        self.waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::Endpoint;

    use super::*;

    fn flow(port: u16) -> FourTuple {
        let end = |ip: &str, port| Endpoint::new(ip.parse().unwrap(), port);
        FourTuple::new(end("198.18.0.1", port), end("198.18.0.10", 80))
    }

    #[test]
    fn a_share_of_the_sessions_is_sampled_and_the_same_ones_each_time() {
        for (share, range) in [(0.0, 0..=0), (0.1, 4_500..=5_500), (1.0, 50_000..=50_000)] {
            let chosen = |seed| {
                let sampler = Sampler::new(Intensity::from_ratio(share), seed);
                let sampled = (0..50_000u16).filter(move |port| sampler.samples(&flow(*port)));
                sampled.collect::<Vec<_>>()
            };
            assert!(
                range.contains(&chosen(1).len()),
                "{share}: {}",
                chosen(1).len()
            );
            assert_eq!(chosen(1), chosen(1));
            let differs = share > 0.0 && share < 1.0;
            assert_eq!(chosen(1) != chosen(2), differs, "{share}");
        }
    }

    #[test]
    fn what_is_copied_says_nothing_of_what_is_sampled() {
        let key = [1; 16];
        let sampler = Sampler::new(Intensity::from_ratio(0.5), 1);
        let copied: Vec<u16> = (0..20_000u16)
            .filter(|port| {
                Intensity::from_ratio(0.1).copies(Place::of(&key, flow(*port).source)) > 0
            })
            .collect();
        let both = copied.iter().filter(|port| sampler.samples(&flow(**port)));
        let share = both.count() as f64 / copied.len() as f64;
        assert!((0.45..0.55).contains(&share), "{share}");
    }

    #[test]
    fn what_nobody_takes_is_bounded() {
        let mut tales = Tales::<()>::default();
        let teller = Teller {
            number: tales.next_key().get(),
            service: 0,
            live: flow(1),
            begun_at: Time::ORIGIN,
        };
        let over = || {
            Told::Replica(Box::new(ToldReplica {
                teller,
                established_at: None,
                ended_at: Time::ORIGIN,
                turns: 0,
                bytes: 0,
                delivered: 0,
                retransmitted: 0,
                aborted: None,
            }))
        };
        let told = (0..2 * MOST).filter(|_| tales.tell(over)).count();
        assert_eq!(told, MOST);
        assert_eq!(std::iter::from_fn(|| tales.poll()).count(), MOST);
        assert!(tales.tell(over));
    }
}
