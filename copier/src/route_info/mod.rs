//! Which interceptors are told of which flows.
//!
//! Only the director knows which real server gets a copied connection, so a flow is announced to
//! every interceptor when it begins. The first response shows whose it is; the others are told to
//! forget it, and hear no more of it. With a client pool the pool is claimed from each interceptor
//! once instead, and no flow is announced but those in a part of it that another copier claims later.
//!
//! Each interceptor is on its own: one that is slow, gone or refuses does not hold up another.

mod claim;
mod conflicts;
mod link;
mod owners;
mod yielded;

use std::time::{Duration, Instant};

use millrace_channel::link::{Batch, LinkEvent};
use millrace_daemon::quiet::{Quiet, times_before};
use millrace_engine::{Engine, ReplicaKey, Time};
use millrace_proto::v1::refused::Code;
use millrace_proto::{ClientRange, FlowId, FlowRecords, TraceRequest};
use millrace_wire::FourTuple;

pub use link::{FlowTarget, LinkRoutes};

use claim::{Claim, Rank};
use conflicts::{Conflicts, Report};
use owners::FlowOwners;
use yielded::Yielded;

use crate::diversion::Diversion;
use millrace_pilot::LinkSight;

/// Number of an interceptor, never used again for another one while the copier runs.
pub type InterceptorId = u32;

/// One link to one interceptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId {
    /// The interceptor.
    pub interceptor: InterceptorId,
    /// Number of the link among those to it (`-C`), from 0.
    pub link: u32,
}

/// Under load announcements gather for this long for each link but the first, so that the number of
/// messages does not grow with the number of new flows times that of links. A response that comes
/// before its announcement waits at the interceptor.
const PACE_PER_LINK: Duration = Duration::from_millis(1);
/// The longest that an announcement waits for others.
const LONGEST_PACE: Duration = Duration::from_millis(8);
/// How long flows to be forgotten gather: nobody waits for these.
const FORGET_PACE: Duration = Duration::from_millis(20);

/// Route info on all links.
#[derive(Debug, Default)]
pub struct RouteInfo {
    links: Vec<LinkRoutes>,
    owners: FlowOwners,
    conflicts: Conflicts,
    yielded: Yielded,
    /// What is to be announced: one batch for each number of a link (`-C`), the same for every
    /// interceptor, so that a flow is encoded once.
    announcements: Vec<Batch>,
    announced_at: Time,
    forgotten_at: Time,
    /// Whether something waits in a batch for more of its kind.
    gathering: bool,
    /// Whether the router-agents keep responses from the real clients.
    diversion: Diversion,
    unreadable: Quiet<InterceptorId>,
}

impl RouteInfo {
    /// Takes in a link. Its flows go out when it is up.
    pub fn add(&mut self, mut link: LinkRoutes) {
        link.yield_ranges(&self.yielded.ranges().collect::<Vec<_>>());
        let shares = link.share().1 as usize;
        if self.announcements.len() < shares {
            self.announcements.resize_with(shares, Batch::new);
        }
        self.links.push(link);
    }

    /// Lets go of an interceptor: what was its own may now be anybody's.
    pub fn remove(&mut self, now: Time, interceptor: InterceptorId) {
        let gone = |link: &LinkRoutes| link.id().interceptor == interceptor;
        for link in self.links.iter().filter(|link| gone(link)) {
            self.yielded.unsay(now, link.id());
        }
        self.links.retain(|link| !gone(link));
        self.settle_claims(now);
        if self.owners.forget_interceptor(interceptor) {
            for link in &mut self.links {
                link.resync_soon();
            }
        }
    }

    /// The interceptors through which responses can come back now.
    pub fn connected(&self) -> Vec<InterceptorId> {
        let up = self.links.iter().filter(|link| link.is_up());
        let mut interceptors: Vec<_> = up.map(|link| link.id().interceptor).collect();
        interceptors.dedup();
        interceptors
    }

    /// The interceptors through which none can.
    pub fn absent(&self) -> Vec<InterceptorId> {
        let connected = self.connected();
        let all = self.links.iter().map(|link| link.id().interceptor);
        let mut absent: Vec<_> = all.filter(|id| !connected.contains(id)).collect();
        absent.dedup();
        absent
    }

    /// Whether responses can come back through every interceptor that is named.
    pub fn are_all_up(&self) -> bool {
        self.links.iter().all(LinkRoutes::is_up)
    }

    /// All links, and what came over them.
    pub fn in_sight(&self) -> impl Iterator<Item = LinkSight<LinkId>> {
        self.links.iter().map(|link| LinkSight {
            id: link.id(),
            epoch: link.epoch().filter(|_| link.is_up()),
            messages: link.handle().messages_in(),
        })
    }

    /// Where an interceptor is, as the operator wrote it.
    pub fn name(&self, interceptor: InterceptorId) -> Option<String> {
        let mut links = self.links.iter();
        let link = links.find(|link| link.id().interceptor == interceptor)?;
        Some(link.handle().address().to_string())
    }

    /// An interceptor sent response headers that cannot be read. What an operator is to be told, if
    /// it is time to.
    pub fn on_unreadable(&self, interceptor: InterceptorId, now: Instant) -> Option<String> {
        let more = self.unreadable.say(interceptor, now)?;
        Some(format!(
            "interceptor {}: it sent response headers that make no sense, which are left out: run \
             the same version of both{}",
            self.name(interceptor)?,
            times_before(more)
        ))
    }

    /// Asks every interceptor after probes.
    pub fn trace(&self, request: &TraceRequest) {
        let mut asked = None;
        for link in &self.links {
            let interceptor = link.id().interceptor;
            // Each is asked on the first of its links that takes it. One that cannot be asked does
            // not answer: the volley ends without it.
            if asked != Some(interceptor)
                && let Some(epoch) = link.epoch()
                && link.handle().try_trace(epoch, request).is_ok()
            {
                asked = Some(interceptor);
            }
        }
    }

    /// Something happened on a link. Says whether answers that went unseen can come back now.
    pub fn on_event(
        &mut self,
        now: Time,
        id: LinkId,
        event: &LinkEvent,
        engine: &mut Engine,
    ) -> bool {
        match event {
            LinkEvent::Up { .. } => {
                // As before any resync.
                self.flush_announcements();
                self.yielded.unsay(now, id);
            }
            LinkEvent::Down { .. } => self.yielded.unsay(now, id),
            LinkEvent::Others { ranges } => {
                // Of the claim only what lies within it.
                let mut links = self.links.iter();
                let claim = links.find_map(|link| link.claim());
                let within = |range: &&ClientRange| claim.is_some_and(|it| it.overlaps(range));
                let ranges = ranges.iter().filter(within).copied().collect();
                if self.yielded.say(now, id, ranges) {
                    self.yield_parts(engine);
                }
                return false;
            }
            LinkEvent::Taken { flows, ended } => {
                for flow in FlowRecords::new(flows).map_while(Result::ok) {
                    let flow = FourTuple::new(flow.client.into(), flow.target.into());
                    engine.set_taken(now, &flow, !ended);
                }
                return false;
            }
            LinkEvent::Granted
            | LinkEvent::Refused { .. }
            | LinkEvent::Headers { .. }
            | LinkEvent::Conflict { .. }
            | LinkEvent::Traced(_) => {}
        }
        let first_refused = self.first_refused(Some(id.interceptor));
        let Some(link) = self.links.iter_mut().find(|link| link.id() == id) else {
            return false;
        };
        let restored = match event {
            LinkEvent::Up {
                epoch,
                interceptor_id,
                incarnation,
            } => {
                let rank = Rank {
                    name: interceptor_id.clone(),
                    incarnation: *incarnation,
                };
                if let Some(claim) = link.claim_mut() {
                    claim.on_up(now, rank, first_refused.as_ref());
                }
                link.on_up(*epoch, engine, &self.owners, &self.yielded);
                true
            }
            LinkEvent::Granted => link.claim_mut().is_some_and(Claim::on_granted),
            LinkEvent::Down { epoch, .. } => {
                link.on_down(*epoch);
                false
            }
            LinkEvent::Refused { code, .. } => {
                if *code == Code::ClaimConflict
                    && let Some(claim) = link.claim_mut()
                {
                    claim.on_refused();
                }
                if *code == Code::Unsafe {
                    link.on_unsafe();
                }
                false
            }
            // Done above, or inputs of their own.
            LinkEvent::Others { .. }
            | LinkEvent::Taken { .. }
            | LinkEvent::Headers { .. }
            | LinkEvent::Conflict { .. }
            | LinkEvent::Traced(_) => {
                return false;
            }
        };
        self.settle_claims(now);
        restored
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.links.iter().filter_map(LinkRoutes::claim)
    }

    /// The first interceptor, in the order of claims, that refuses this copier's pool.
    fn first_refused(&self, except: Option<InterceptorId>) -> Option<Rank> {
        let links = self.links.iter();
        let others = links.filter(|link| Some(link.id().interceptor) != except);
        let claims = others.filter_map(LinkRoutes::claim);
        claims.filter_map(Claim::refused_at).min().cloned()
    }

    fn settle_claims(&mut self, now: Time) {
        let first_refused = self.first_refused(None);
        for link in &mut self.links {
            link.settle_claim(now, first_refused.as_ref());
        }
    }

    /// Other parts of the pool are yielded than before: no new flow begins there, and before the claim says so
    /// the interceptors know those that are still alive there.
    fn yield_parts(&mut self, engine: &mut Engine) {
        engine.yield_sources(&self.yielded.sources());
        let ranges: Vec<_> = self.yielded.ranges().collect();
        match ranges.len() {
            0 => tracing::info!("the whole client pool is this copier's again"),
            parts => tracing::info!(
                "other copiers claim parts of the client pool ({parts}), which are left to them"
            ),
        }
        for (key, tuple) in engine.flows() {
            if self.yielded.note(key, tuple.source) {
                self.push(key.flow_id(), &tuple);
            }
        }
        self.flush_announcements();
        for link in &mut self.links {
            link.yield_ranges(&ranges);
        }
    }

    /// Notes whether responses are kept from the real clients. Says whether that is new.
    pub fn set_diversion(&mut self, diversion: Diversion) -> bool {
        std::mem::replace(&mut self.diversion, diversion) != diversion
    }

    /// Whether an interceptor has said that its host would send on what is diverted to it.
    pub fn is_unsafe(&self) -> bool {
        self.links.iter().any(LinkRoutes::is_unsafe)
    }

    /// Whether responses are kept from the real clients.
    pub fn diversion(&self) -> Diversion {
        self.diversion
    }

    /// Whether responses are kept from the real clients and can come back at all, and no
    /// interceptor would give them to another copier: none refuses the pool, and none has still to
    /// grant it for the first time.
    pub fn is_open(&self) -> bool {
        self.diversion == Diversion::Held
            && self.links.iter().any(LinkRoutes::is_up)
            && !self.claims().any(Claim::is_refused)
            && !self.links.iter().any(LinkRoutes::waits_for_pool)
    }

    /// Why nothing is sent though an interceptor is connected, in words, where interceptors are the reason.
    pub fn held_back(&self) -> Option<String> {
        let first = |is: fn(&LinkRoutes) -> bool| {
            let link = self.links.iter().find(|link| is(link))?;
            Some(link.handle().address().to_string())
        };
        let why = |address: String, why: &str| format!("interceptor {address} {why}");
        if let Some(address) = first(LinkRoutes::is_unsafe) {
            return Some(why(
                address,
                "does not vouch any more that its host keeps responses from real clients",
            ));
        }
        if let Some(address) = first(|link| link.claim().is_some_and(Claim::is_refused)) {
            return Some(why(address, "has given the client pool to another copier"));
        }
        let address = first(LinkRoutes::waits_for_pool)?;
        Some(why(address, "has still to grant the client pool"))
    }

    /// Whether this flow's responses may have come back on a link of `interceptor`.
    pub fn may_own(&self, interceptor: InterceptorId, key: ReplicaKey) -> bool {
        self.owners
            .get(key)
            .is_none_or(|owner| owner == interceptor)
    }

    /// When [`RouteInfo::flush`] is to be called next.
    pub fn poll_timeout(&self, now: Time) -> Option<Time> {
        if self.links.iter().any(LinkRoutes::is_pending) {
            return Some(now + RETRY);
        }
        // Forgetting can wait for the next packet.
        let announcing = self.gathering.then(|| self.announced_at + self.pace());
        let claims = self.claims().filter_map(Claim::due);
        claims.chain(announcing).chain(self.yielded.due()).min()
    }

    /// A replica's flow begins.
    pub fn flow_opened(&mut self, key: ReplicaKey, tuple: &FourTuple) {
        // A replica that moves to another port begins anew, under the same id: what was to be
        // forgotten of its old flow must not follow the announcement of the new one.
        if self.owners.remove(key).is_some() {
            self.flush_forgotten();
        }
        self.open(key.flow_id(), tuple);
    }

    /// A flow with this id begins: a replica's, or a probe's.
    pub fn open(&mut self, id: FlowId, tuple: &FourTuple) {
        if self.announces() {
            self.push(id, tuple);
        }
    }

    /// Adds a flow to what is to be announced.
    fn push(&mut self, id: FlowId, tuple: &FourTuple) {
        let Some(first) = self.links.first() else {
            return;
        };
        let record = first.record(id, tuple);
        let share = (id % first.share().1) as usize;
        let Some(batch) = self.announcements.get_mut(share) else {
            return;
        };
        // Both ends of a replica's flow are of one family, so encoding cannot fail.
        if let Ok(Some(full)) = batch.push_flow(&record) {
            announce(&mut self.links, share, full);
        }
        self.gathering = true;
    }

    /// An interceptor says that another copier owns this replica's flow, or one that it had before:
    /// see [`Engine::flow_conflict`].
    pub fn on_conflict(
        &mut self,
        now: Time,
        interceptor: InterceptorId,
        key: ReplicaKey,
        engine: &mut Engine,
    ) {
        let id = key.flow_id();
        match self.conflicts.report(key, interceptor) {
            Report::Move => {
                if engine.flow_conflict(now, key) {
                    let told = self.links.iter();
                    let told = told.filter(|link| link.carries(id) && link.epoch().is_some());
                    let told = told.map(|link| link.id().interceptor);
                    self.conflicts.moved(key, interceptor, told);
                }
            }
            Report::AnnounceAgain => {
                if let Some(flow) = engine.flow(key).filter(|_| !engine.is_connected(key)) {
                    self.announce_again(interceptor, id, &flow);
                }
            }
            Report::Ignore => {}
        }
    }

    fn announce_again(&mut self, interceptor: InterceptorId, id: FlowId, flow: &FourTuple) {
        // Else it would come before what it repeats.
        self.flush_announcements();
        let mut links = self.links.iter_mut();
        let its = |link: &&mut LinkRoutes| {
            link.id().interceptor == interceptor && link.announces() && link.carries(id)
        };
        if let Some(link) = links.find(its) {
            let mut batch = Batch::new();
            // Both ends of a replica's flow are of one family, so encoding cannot fail.
            let full = batch.push_flow(&link.record(id, flow)).unwrap_or_default();
            if let Some(flows) = full.or_else(|| batch.take()) {
                link.announce(flows.into());
            }
        }
    }

    /// A flow is over.
    pub fn flow_closed(&mut self, key: ReplicaKey) {
        self.conflicts.remove(key);
        let owner = self.owners.remove(key);
        if self.announces() || self.yielded.forget(key) {
            self.forget_at(key.flow_id(), |interceptor| {
                owner.is_none_or(|owner| owner == interceptor)
            });
        }
    }

    /// A probe's flow is over.
    pub fn close(&mut self, id: FlowId) {
        if self.announces() {
            self.forget_at(id, |_| true);
        }
    }

    /// Whether flows are announced, rather than a pool claimed.
    fn announces(&self) -> bool {
        self.links.first().is_some_and(LinkRoutes::announces)
    }

    /// A response to a flow came back through an interceptor: it is the flow's real server.
    pub fn heard(&mut self, interceptor: InterceptorId, key: ReplicaKey, engine: &Engine) {
        // With one interceptor there is nobody else to tell.
        let several = self
            .links
            .first()
            .zip(self.links.last())
            .is_some_and(|(first, last)| first.id().interceptor != last.id().interceptor);
        if several
            && self.announces()
            && self.owners.get(key).is_none()
            && engine.flow(key).is_some()
            && self.owners.learn(key, interceptor)
        {
            self.forget_at(key.flow_id(), |other| other != interceptor);
        }
    }

    /// Queues what has gathered for long enough, and goes on with resyncs as far as there is room.
    pub fn flush(&mut self, now: Time, engine: &mut Engine) {
        if self.yielded.due().is_some_and(|due| now >= due) {
            let heard = self.links.iter().any(|link| link.epoch().is_some());
            if self.yielded.settle(now, heard) {
                self.yield_parts(engine);
            }
        }
        if self.gathering && now >= self.announced_at + self.pace() {
            self.announced_at = now;
            self.gathering = false;
            self.flush_announcements();
        }
        if now >= self.forgotten_at + FORGET_PACE {
            self.forgotten_at = now;
            self.flush_forgotten();
        }
        if self.claims().any(|claim| claim.due().is_some()) {
            self.settle_claims(now);
        }
        for index in 0..self.links.len() {
            let begins = self.links.get(index).is_some_and(LinkRoutes::may_begin);
            if begins {
                // A resync names what there is: nothing older may come after it. One that is under
                // way hears of what ends meanwhile.
                self.flush_announcements();
            }
            if let Some(link) = self.links.get_mut(index) {
                link.go_on(begins, engine, &self.owners, &self.yielded);
            }
        }
    }

    fn flush_forgotten(&mut self) {
        // What was announced must not be overtaken by its end.
        self.flush_announcements();
        for link in &mut self.links {
            link.flush_forgotten();
        }
    }

    fn flush_announcements(&mut self) {
        for (share, batch) in self.announcements.iter_mut().enumerate() {
            if let Some(rest) = batch.take() {
                announce(&mut self.links, share, rest);
            }
        }
    }

    fn forget_at(&mut self, id: FlowId, whom: impl Fn(InterceptorId) -> bool) {
        let mut announced = false;
        for index in 0..self.links.len() {
            let Some(link) = self.links.get_mut(index) else {
                return;
            };
            if !link.carries(id) || !whom(link.id().interceptor) {
                continue;
            }
            if let Some(full) = link.push_forgotten(id) {
                if !std::mem::replace(&mut announced, true) {
                    self.flush_announcements();
                }
                if let Some(link) = self.links.get_mut(index) {
                    link.forget(full);
                }
            }
        }
    }

    fn pace(&self) -> Duration {
        let others = u32::try_from(self.links.len().saturating_sub(1)).unwrap_or(u32::MAX);
        PACE_PER_LINK.saturating_mul(others).min(LONGEST_PACE)
    }
}

/// How soon a full queue is looked at again.
const RETRY: Duration = Duration::from_millis(5);

/// Queues announced flows on every link with this number.
fn announce(links: &mut [LinkRoutes], share: usize, flows: Vec<u8>) {
    let flows = tonic::codegen::Bytes::from(flows);
    for link in links {
        if link.share().0 == share as u64 {
            link.announce(flows.clone());
        }
    }
}
