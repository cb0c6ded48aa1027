//! How replicas that were held back are let go once their way is open: a few at a time, since a target's accept queue is
//! short, and programs take a few thousand connections in a second from it.

use super::WayState;
use crate::key::ReplicaKey;
use crate::time::Time;

/// So many go every tick, in microseconds.
const BATCH: usize = 2;
const TICK: u32 = 1_000;
/// ... and as many more as joined them, and this part of those that wait, so that all come to
/// their turn in about so many ticks however many they are.
const TICKS: usize = 8_000;

/// When the next are let go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resumption {
    at: Time,
}

impl Resumption {
    /// Nobody waits.
    pub(super) const NOTHING: Self = Self { at: Time::NEVER };

    /// When it is to be asked next.
    pub(super) const fn at(self) -> Time {
        self.at
    }

    /// Whether some were let go and others still wait.
    pub(super) fn is_under_way(self) -> bool {
        self.at != Time::NEVER
    }

    /// Takes out those that may go now: each with the others of its way, in their order.
    pub(super) fn take(&mut self, now: Time, ways: &mut [WayState]) -> Vec<ReplicaKey> {
        let mut gone = Vec::new();
        for way in ways.iter_mut() {
            let joined = std::mem::take(&mut way.joined);
            if way.lets_begin() {
                let batch = BATCH + way.waiting.len() / TICKS + joined;
                gone.extend(way.waiting.drain(..batch.min(way.waiting.len())));
            }
        }
        let left = |way: &WayState| way.lets_begin() && !way.waiting.is_empty();
        self.at = match ways.iter().any(left) {
            true => now.plus_micros(TICK),
            false => Time::NEVER,
        };
        gone
    }
}
