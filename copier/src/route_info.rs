//! Which flows interceptors are told of: announced when they begin, forgotten when they end, and
//! all sent again when a link comes up.

use millrace_engine::{Engine, ReplicaKey};
use millrace_fleet::link::{Batch, Epoch, LinkHandle, SendError};
use millrace_proto::ClaimSet;
use millrace_proto::flow::FlowRecord;
use millrace_wire::FourTuple;

/// A resync pauses while this much waits in the link's queue, in bytes, so that the flows that
/// begin meanwhile find room.
const RESYNC_QUEUE: usize = 1 << 20;

/// What is known of the route info on one link.
#[derive(Debug)]
enum State {
    /// The stream is down; it will come up with a new epoch.
    Down,
    /// Everything is being sent again: the flows that are still to go.
    Resyncing(Epoch, Vec<ReplicaKey>),
    /// The interceptor knows everything.
    Synced(Epoch),
    /// Something could not be queued: all is to be sent again as soon as there is room.
    Behind(Epoch),
}

/// Route info on one link.
#[derive(Debug)]
pub struct LinkRoutes {
    handle: LinkHandle,
    /// Number of this link among those to the same interceptor, and how many there are.
    share: (u64, u64),
    claim: Option<ClaimSet>,
    /// Whether the claim was granted in this epoch.
    granted: bool,
    state: State,
    announce: Batch,
    forget: Batch,
}

impl LinkRoutes {
    /// Route info on `handle`, which carries the share `link` of `links`.
    pub fn new(handle: LinkHandle, link: u32, links: u32, claim: Option<ClaimSet>) -> Self {
        Self {
            handle,
            share: (u64::from(link), u64::from(links.max(1))),
            claim,
            granted: false,
            state: State::Down,
            announce: Batch::new(),
            forget: Batch::new(),
        }
    }

    /// The link itself.
    pub fn handle(&self) -> &LinkHandle {
        &self.handle
    }

    /// Whether responses can come back on this link. With a claim that is not granted, what would
    /// be sent would bear addresses of another copier.
    pub fn is_up(&self) -> bool {
        match self.state {
            State::Down => false,
            State::Resyncing(..) | State::Synced(_) | State::Behind(_) => {
                self.claim.is_none() || self.granted
            }
        }
    }

    /// Whether something waits for room in the link's queue.
    pub fn is_pending(&self) -> bool {
        match self.state {
            State::Resyncing(..) | State::Behind(_) => true,
            State::Down | State::Synced(_) => false,
        }
    }

    /// The stream is up, in a new epoch: all flows are to be sent.
    pub fn on_up(&mut self, epoch: Epoch, engine: &Engine) {
        self.granted = false;
        self.begin_resync(epoch, engine);
    }

    /// The claim is granted.
    pub fn on_granted(&mut self) {
        self.granted = true;
    }

    /// The stream is down.
    pub fn on_down(&mut self, epoch: Epoch) {
        let same = match self.state {
            State::Down => false,
            State::Resyncing(mine, _) | State::Synced(mine) | State::Behind(mine) => mine == epoch,
        };
        if same {
            self.state = State::Down;
        }
    }

    /// A flow begins.
    pub fn announce(&mut self, key: ReplicaKey, tuple: &FourTuple) {
        if self.claim.is_some() || !self.carries(key) {
            return;
        }
        let (State::Resyncing(epoch, _) | State::Synced(epoch)) = self.state else {
            return;
        };
        // Both ends of a replica's flow are of one family, so encoding cannot fail.
        if let Ok(Some(full)) = self.announce.push_flow(&record(key, tuple)) {
            let result = self.handle.try_announce(epoch, full);
            self.note(epoch, result);
        }
    }

    /// A flow is over.
    pub fn forget(&mut self, key: ReplicaKey) {
        if self.claim.is_some() || !self.carries(key) {
            return;
        }
        let (State::Resyncing(epoch, _) | State::Synced(epoch)) = self.state else {
            return;
        };
        if let Some(full) = self.forget.push_id(key.flow_id()) {
            // What was announced must not be overtaken by its end.
            self.flush_announced(epoch);
            let result = self.handle.try_forget(epoch, full);
            self.note(epoch, result);
        }
    }

    /// Queues what has gathered, and goes on with a resync as far as there is room.
    pub fn flush(&mut self, engine: &Engine) {
        match self.state {
            State::Down => {
                self.announce = Batch::new();
                self.forget = Batch::new();
            }
            State::Behind(epoch) => {
                self.announce = Batch::new();
                self.forget = Batch::new();
                if self.handle.queued_bytes() < RESYNC_QUEUE {
                    self.begin_resync(epoch, engine);
                }
            }
            State::Resyncing(epoch, _) => {
                self.flush_batches(epoch);
                self.go_on(engine);
            }
            State::Synced(epoch) => self.flush_batches(epoch),
        }
    }

    fn carries(&self, key: ReplicaKey) -> bool {
        key.flow_id() % self.share.1 == self.share.0
    }

    fn flush_announced(&mut self, epoch: Epoch) {
        if let Some(rest) = self.announce.take() {
            let result = self.handle.try_announce(epoch, rest);
            self.note(epoch, result);
        }
    }

    fn flush_batches(&mut self, epoch: Epoch) {
        self.flush_announced(epoch);
        if let Some(rest) = self.forget.take() {
            let result = self.handle.try_forget(epoch, rest);
            self.note(epoch, result);
        }
    }

    fn begin_resync(&mut self, epoch: Epoch, engine: &Engine) {
        self.announce = Batch::new();
        self.forget = Batch::new();
        let keys = match &self.claim {
            Some(_) => Vec::new(),
            None => engine
                .flows()
                .map(|(key, _)| key)
                .filter(|key| self.carries(*key))
                .collect(),
        };
        self.state = State::Resyncing(epoch, keys);
        let mut result = self.handle.try_resync_begin(epoch);
        if let (Ok(()), Some(claim)) = (&result, &self.claim) {
            result = self.handle.try_claim(epoch, claim);
        }
        self.note(epoch, result);
        self.go_on(engine);
    }

    fn go_on(&mut self, engine: &Engine) {
        let State::Resyncing(epoch, keys) = &mut self.state else {
            return;
        };
        let epoch = *epoch;
        let mut batch = Batch::new();
        let mut result = Ok(());
        while result.is_ok() && self.handle.queued_bytes() < RESYNC_QUEUE {
            let Some(key) = keys.pop() else {
                if let Some(rest) = batch.take() {
                    result = self.handle.try_announce(epoch, rest);
                }
                result = result.and_then(|()| self.handle.try_resync_end(epoch));
                if result.is_ok() {
                    self.state = State::Synced(epoch);
                }
                break;
            };
            // Flows that have ended meanwhile are simply not named.
            let Some(tuple) = engine.flow(key) else {
                continue;
            };
            if let Ok(Some(full)) = batch.push_flow(&record(key, &tuple)) {
                result = self.handle.try_announce(epoch, full);
            }
        }
        if let Some(rest) = batch.take().filter(|_| result.is_ok()) {
            result = self.handle.try_announce(epoch, rest);
        }
        self.note(epoch, result);
    }

    fn note(&mut self, epoch: Epoch, result: Result<(), SendError>) {
        match result {
            Ok(()) => {}
            // The link's own event will say so; until then nothing can be sent.
            Err(SendError::NotConnected) => self.state = State::Down,
            Err(SendError::Full | SendError::TooLarge) => self.state = State::Behind(epoch),
        }
    }
}

fn record(key: ReplicaKey, tuple: &FourTuple) -> FlowRecord {
    FlowRecord {
        id: key.flow_id(),
        target: tuple.destination.into(),
        client: tuple.source.into(),
    }
}
