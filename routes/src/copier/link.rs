//! Route info on one link: what goes out as it happens, and all of it again when the link is up.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use millrace_proto::{ClaimSet, ClientRange, FlowId, FlowRecord};
use millrace_wire::FourTuple;

use super::LinkId;
use super::answered_by::AnsweredBy;
use super::claim::{Claim, Rank};
use super::exceptions::Exceptions;
use super::{Epoch, Flows, SendError, Uplink};
use crate::batch::Batch;

/// A resync pauses while this much waits in the link's queue, in bytes, so that the flows that
/// begin meanwhile find room.
const RESYNC_QUEUE: usize = 1 << 20;

/// By what interceptors are to know a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowTarget {
    /// Client and target.
    #[default]
    Exact,
    /// The client's side alone: the target's address changes on the way (`--nat`).
    Any,
}

/// What is known of the route info on one link.
#[derive(Debug)]
enum State {
    /// The stream is down; it will come up with a new epoch.
    Down,
    /// Everything is being sent again: the flows that are still to go.
    Resyncing(Epoch, Vec<FlowId>),
    /// The interceptor knows everything.
    Synced(Epoch),
    /// Something could not be queued: all is to be sent again as soon as there is room.
    Behind(Epoch),
    /// The interceptor does not take messages as large as are to be sent: it is told nothing more
    /// before it connects again.
    Halted(Epoch),
}

/// Route info on one link.
#[derive(Debug)]
pub struct LinkRoutes<U> {
    id: LinkId,
    uplink: U,
    /// How many links there are to the same interceptor.
    links: u32,
    claim: Option<Claim>,
    /// Whether its interceptor's host would send on to the real clients what is diverted to it, as far
    /// as it has said.
    is_unsafe: bool,
    by: FlowTarget,
    state: State,
    forgotten: Batch,
}

impl<U: Uplink> LinkRoutes<U> {
    /// Route info on `uplink`, one of `links` to its interceptor. With a `claim` no flows but exceptions are
    /// announced.
    pub fn new(id: LinkId, uplink: U, links: u32, claim: Option<ClaimSet>, by: FlowTarget) -> Self {
        Self {
            id,
            uplink,
            links: links.max(1),
            claim: claim.map(Claim::new),
            is_unsafe: false,
            by,
            state: State::Down,
            forgotten: Batch::new(),
        }
    }

    /// Which link it is.
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// The link itself.
    pub fn uplink(&self) -> &U {
        &self.uplink
    }

    /// Whether responses can come back on this link. With a claim that is not granted, what would
    /// be sent would bear addresses of another copier.
    pub fn is_up(&self) -> bool {
        let listens = match self.state {
            State::Down | State::Halted(_) => false,
            State::Resyncing(..) | State::Synced(_) | State::Behind(_) => true,
        };
        listens && self.claim.as_ref().is_none_or(Claim::is_granted)
    }

    /// Whether its interceptor is connected and has never granted the pool.
    pub(super) fn waits_for_pool(&self) -> bool {
        let claim = self.claim.as_ref();
        self.epoch().is_some() && claim.is_some_and(Claim::is_asked_first)
    }

    /// The epoch, while the stream is up.
    pub fn epoch(&self) -> Option<Epoch> {
        match self.state {
            State::Down => None,
            State::Resyncing(epoch, _)
            | State::Synced(epoch)
            | State::Behind(epoch)
            | State::Halted(epoch) => Some(epoch),
        }
    }

    /// Number of this link among those to the same interceptor, and how many there are.
    pub(super) fn share(&self) -> (u64, u64) {
        (self.id.link.into(), self.links.into())
    }

    /// The claim, if a pool is claimed.
    pub(super) fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// Whether flows are announced here, rather than a pool claimed.
    pub(super) fn announces(&self) -> bool {
        self.claim.is_none()
    }

    /// Whether this flow is told of on this link.
    pub(super) fn carries(&self, id: FlowId) -> bool {
        id % u64::from(self.links) == u64::from(self.id.link)
    }

    /// Whether something waits for room in the link's queue.
    pub(super) fn is_pending(&self) -> bool {
        match self.state {
            State::Resyncing(..) | State::Behind(_) => true,
            State::Down | State::Synced(_) | State::Halted(_) => false,
        }
    }

    /// How a flow is announced.
    pub(super) fn record(&self, id: FlowId, tuple: &FourTuple, with_payload: bool) -> FlowRecord {
        FlowRecord {
            id,
            target: match self.by {
                FlowTarget::Exact => tuple.destination.into(),
                FlowTarget::Any => any_target(tuple.destination.ip),
            },
            client: tuple.source.into(),
            with_payload,
        }
    }

    /// The stream is up; its claim, if there is one, has been told.
    pub(super) fn on_up(
        &mut self,
        epoch: Epoch,
        flows: &impl Flows,
        owners: &AnsweredBy,
        exceptions: &Exceptions,
    ) {
        self.is_unsafe = false;
        self.begin_resync(epoch, flows, owners, exceptions);
    }

    /// Its interceptor has said that its host would send on what is diverted to it.
    pub(super) fn on_unsafe(&mut self) {
        self.is_unsafe = true;
    }

    /// Whether it has, and has not welcomed this copier again.
    pub(super) fn is_unsafe(&self) -> bool {
        self.is_unsafe
    }

    pub(super) fn claim_mut(&mut self) -> Option<&mut Claim> {
        self.claim.as_mut()
    }

    /// Makes the claim, or gives it up, as the other interceptors have it.
    pub(super) fn settle_claim(&mut self, now: Duration, first_refused: Option<&Rank>) {
        let Some(claim) = &mut self.claim else {
            return;
        };
        let had = claim.is_granted();
        if !claim.settle(now, first_refused) {
            return;
        }
        if had && let Some(first) = first_refused {
            tracing::warn!(
                "interceptor {}: the client pool is given up here until interceptor {} grants it \
                 too; to have it at once, stop the copier that holds it there, or give each copier \
                 a share with -f",
                self.uplink.name(),
                first.name
            );
        }
        self.send_claim();
    }

    /// Claims all but what is yielded. The flows in these ranges have been announced.
    pub(super) fn yield_ranges(&mut self, ranges: &[ClientRange]) {
        if let Some(claim) = &mut self.claim {
            claim.yield_ranges(ranges);
            self.send_claim();
        }
    }

    fn send_claim(&mut self) {
        // A resync sends it at its end.
        if let (State::Synced(epoch), Some(claim)) = (&self.state, &self.claim) {
            let epoch = *epoch;
            let result = self.uplink.claim(epoch, claim.wanted());
            self.note(epoch, result);
        }
    }

    pub(super) fn on_down(&mut self, epoch: Epoch) {
        if self.epoch() == Some(epoch) {
            self.state = State::Down;
        }
    }

    /// All is to be sent again: flows of another interceptor may be this one's.
    pub(super) fn resync_soon(&mut self) {
        if let State::Resyncing(epoch, _) | State::Synced(epoch) = self.state {
            self.state = State::Behind(epoch);
        }
    }

    /// Queues announced flows.
    pub(super) fn announce(&mut self, flows: Bytes) {
        if let State::Resyncing(epoch, _) | State::Synced(epoch) = self.state {
            let result = self.uplink.announce(epoch, flows);
            self.note(epoch, result);
        }
    }

    /// Adds a flow to be forgotten; gives a batch that is full.
    pub(super) fn push_forgotten(&mut self, id: FlowId) -> Option<Vec<u8>> {
        match self.state {
            // A resync names what there is.
            State::Down | State::Behind(_) | State::Halted(_) => None,
            State::Resyncing(..) | State::Synced(_) => self.forgotten.push_id(id),
        }
    }

    /// Queues flows to be forgotten.
    pub(super) fn forget(&mut self, ids: Vec<u8>) {
        if let State::Resyncing(epoch, _) | State::Synced(epoch) = self.state {
            let result = self.uplink.forget(epoch, ids);
            self.note(epoch, result);
        }
    }

    pub(super) fn flush_forgotten(&mut self) {
        if let Some(rest) = self.forgotten.take() {
            self.forget(rest);
        }
    }

    /// Whether all is to be sent again, and there is room.
    pub(super) fn may_begin(&self) -> bool {
        matches!(self.state, State::Behind(_)) && self.uplink.queued_bytes() < RESYNC_QUEUE
    }

    /// Goes on with a resync as far as there is room; one that waits `begins`.
    pub(super) fn go_on(
        &mut self,
        begins: bool,
        flows: &impl Flows,
        owners: &AnsweredBy,
        exceptions: &Exceptions,
    ) {
        match self.state {
            State::Down | State::Synced(_) | State::Halted(_) => {}
            State::Behind(epoch) => {
                if begins {
                    self.begin_resync(epoch, flows, owners, exceptions);
                }
            }
            State::Resyncing(..) => self.resync(flows, owners),
        }
    }

    fn begin_resync(
        &mut self,
        epoch: Epoch,
        flows: &impl Flows,
        owners: &AnsweredBy,
        exceptions: &Exceptions,
    ) {
        self.forgotten = Batch::new();
        let mut ids: Vec<FlowId> = match &self.claim {
            Some(_) => exceptions.iter().collect(),
            None => flows.each().map(|(id, _)| id).collect(),
        };
        ids.retain(|id| self.carries(*id));
        self.state = State::Resyncing(epoch, ids);
        let result = self.uplink.resync_begin(epoch);
        self.note(epoch, result);
        self.resync(flows, owners);
    }

    fn resync(&mut self, flows: &impl Flows, owners: &AnsweredBy) {
        let State::Resyncing(epoch, ids) = &mut self.state else {
            return;
        };
        let epoch = *epoch;
        let mut ids = std::mem::take(ids);
        let mut batch = Batch::new();
        let mut result = Ok(());
        while result.is_ok() && self.uplink.queued_bytes() < RESYNC_QUEUE {
            let Some(id) = ids.pop() else {
                if let Some(rest) = batch.take() {
                    result = self.uplink.announce(epoch, rest);
                }
                // Behind the flows in what it leaves to others.
                if let (Ok(()), Some(claim)) = (&result, &self.claim) {
                    result = self.uplink.claim(epoch, claim.wanted());
                }
                result = result.and_then(|()| self.uplink.resync_end(epoch));
                if result.is_ok() {
                    self.state = State::Synced(epoch);
                    return;
                }
                break;
            };
            let elsewhere = owners
                .get(id)
                .is_some_and(|owner| owner != self.id.interceptor);
            // Flows that have ended meanwhile are simply not named.
            let Some(tuple) = flows.get(id).filter(|_| !elsewhere) else {
                continue;
            };
            let record = self.record(id, &tuple, flows.wants_payload(id));
            if let Ok(Some(full)) = batch.push_flow(&record) {
                result = self.uplink.announce(epoch, full);
            }
        }
        if let Some(rest) = batch.take().filter(|_| result.is_ok()) {
            result = self.uplink.announce(epoch, rest);
        }
        self.state = State::Resyncing(epoch, ids);
        self.note(epoch, result);
    }

    fn note(&mut self, epoch: Epoch, result: Result<(), SendError>) {
        match result {
            Ok(()) => {}
            // The link's own event will say so; until then nothing can be sent.
            Err(SendError::NotConnected) => self.state = State::Down,
            Err(SendError::Full) => self.state = State::Behind(epoch),
            Err(SendError::TooLarge) => {
                tracing::error!(
                    "interceptor {}: it does not take messages as large as this copier's: it is \
                     told nothing until it connects again; run the same version of both{}",
                    self.uplink.name(),
                    if self.announces() {
                        ""
                    } else {
                        ", or name fewer ranges with -c"
                    }
                );
                self.state = State::Halted(epoch);
            }
        }
    }
}

/// The target of a flow that is known by its client's side alone.
fn any_target(like: IpAddr) -> SocketAddr {
    match like {
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}
