//! What is known of the ways to targets and back, one for each kind of source addresses, and the replicas that wait until
//! theirs is open.

use std::collections::VecDeque;
use std::time::Duration;

use super::resumption::Resumption;
use crate::config::{ClientKind, Config, Way};
use crate::key::ReplicaKey;
use crate::replica::Path;
use crate::silence::Silence;
use crate::stats::RefusalReason;
use crate::time::Time;

/// A way that may not be used for so long is closed for long.
const FOR_LONG: Duration = Duration::from_secs(30);

/// What is known of one way.
#[derive(Clone, Debug)]
pub(crate) struct WayState {
    pub(crate) path: Path,
    /// Whether replicas may begin.
    open: bool,
    /// Since when they may not.
    closed_at: Time,
    /// Why none is opened, if so: see [`crate::Engine::refuse_way`].
    pub(crate) refused: Option<RefusalReason>,
    /// Replicas that are held back, in their order; some may have been given up since.
    pub(super) waiting: VecDeque<ReplicaKey>,
    /// How many joined them since the last ones were let go.
    pub(super) joined: usize,
    pub(crate) silence: Silence,
}

impl WayState {
    pub(crate) const fn set_open(&mut self, now: Time, open: bool) {
        if self.open && !open {
            self.closed_at = now;
        }
        self.open = open;
    }

    /// Whether replicas may begin.
    pub(super) const fn lets_begin(&self) -> bool {
        self.open && !self.silence.is_holding()
    }

    /// Whether it has been closed for long.
    pub(crate) fn is_closed_for_long(&self, now: Time) -> bool {
        !self.open && now.since(self.closed_at) >= FOR_LONG
    }

    /// Replicas that are held back, in their order; some may have been given up since.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = ReplicaKey> {
        self.waiting.iter().copied()
    }

    /// Takes out the one that has waited longest.
    pub(crate) fn take_oldest(&mut self) -> Option<ReplicaKey> {
        self.waiting.pop_front()
    }

    /// Takes out all that wait.
    pub(crate) fn take_waiting(&mut self) -> VecDeque<ReplicaKey> {
        std::mem::take(&mut self.waiting)
    }

    /// A replica had begun, and waits again before all others.
    pub(crate) fn put_back(&mut self, key: ReplicaKey) {
        self.waiting.push_front(key);
    }
}

/// All ways.
#[derive(Debug)]
pub(crate) struct Ways {
    all: Vec<WayState>,
    /// Whether answers of targets can reach the engine.
    open: bool,
    resumption: Resumption,
}

impl Ways {
    pub(crate) fn new(config: &Config) -> Self {
        let way = WayState {
            path: Path::new(config.max_packet),
            open: true,
            closed_at: Time::NEVER,
            refused: None,
            waiting: VecDeque::new(),
            joined: 0,
            silence: Silence::default(),
        };
        Self {
            all: vec![way; Way::all(config.services.len()).count()],
            open: false,
            resumption: Resumption::NOTHING,
        }
    }

    #[inline]
    pub(crate) fn get(&self, way: Way) -> Option<&WayState> {
        self.all.get(way.index())
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, way: Way) -> Option<&mut WayState> {
        self.all.get_mut(way.index())
    }

    /// The way to the target of a service, by its place in the list of services, for one kind of source addresses.
    pub(crate) fn find(&self, service: usize, kind: ClientKind) -> Option<&WayState> {
        self.get(Way::new(u16::try_from(service).ok()?, kind))
    }

    /// As [`Ways::find`].
    pub(crate) fn find_mut(&mut self, service: usize, kind: ClientKind) -> Option<&mut WayState> {
        self.get_mut(Way::new(u16::try_from(service).ok()?, kind))
    }

    /// All of them, in their order.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WayState> {
        self.all.iter_mut()
    }

    /// Whether answers of targets can reach the engine.
    pub(crate) const fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) const fn set_open(&mut self, open: bool) {
        self.open = open;
        if !open {
            self.resumption = Resumption::NOTHING;
        }
    }

    /// Whether replicas may begin towards any target.
    pub(crate) fn is_any_open(&self) -> bool {
        self.all.iter().any(|way| way.open)
    }

    /// Whether nothing may be sent this way.
    #[inline]
    pub(crate) fn is_stopped(&self, way: Way) -> bool {
        self.get(way).is_some_and(|way| way.silence.is_stopped())
    }

    /// Whether a replica may begin at once: nobody waits before it.
    pub(crate) fn may_begin(&self, way: Way) -> bool {
        let way = self.get(way);
        self.open && way.is_some_and(|way| way.lets_begin() && way.waiting.is_empty())
    }

    /// Lets a replica wait. `is_held_back` tells those that wait from those that were given up, `held_back` is how many wait
    /// on all ways.
    pub(crate) fn hold_back(
        &mut self,
        way: Way,
        key: ReplicaKey,
        held_back: usize,
        is_held_back: impl Fn(ReplicaKey) -> bool,
    ) {
        let joins = self.resumption.is_under_way();
        let Some(way) = self.get_mut(way) else {
            return;
        };
        if way.waiting.len() > 2 * held_back {
            way.waiting.retain(|key| is_held_back(*key));
        }
        way.waiting.push_back(key);
        way.joined += usize::from(joins);
    }

    /// Those that may begin now, of all that wait.
    pub(crate) fn resume(&mut self, now: Time) -> Vec<ReplicaKey> {
        self.resumption = Resumption::NOTHING;
        match self.open {
            true => self.resumption.take(now, &mut self.all),
            false => Vec::new(),
        }
    }

    /// When more may begin.
    pub(crate) const fn resume_at(&self) -> Time {
        self.resumption.at()
    }
}
