//! Which interceptors are told of which flows.
//!
//! Only the director knows which real server gets a copied connection, so a flow is announced to
//! every interceptor when it begins. The first response shows whose it is; the others are told to
//! forget it, and are told nothing more of it. With a client pool the pool is claimed from each interceptor
//! once instead, and no flow is announced but exceptions: those in a part of it that another copier claims later, and those
//! whose responses come with their payload.
//!
//! Each interceptor is on its own: one that is slow, gone or refuses does not hold up another.

mod announcing;
mod answered_by;
mod claim;
mod conflicts;
mod event;
mod exceptions;
mod flows;
mod link;
mod uplink;
mod yielded;

use std::time::Duration;

use millrace_proto::v1::refused::Code;
use millrace_proto::{ClientRange, FlowId, FlowRecords, TraceRequest};
use millrace_wire::FourTuple;

pub use event::LinkEvent;
pub use flows::Flows;
pub use link::{FlowTarget, LinkRoutes};
pub use uplink::{Epoch, SendError, Uplink};

use answered_by::AnsweredBy;
use claim::{Claim, Rank};
use conflicts::{Conflicts, Report};
use exceptions::Exceptions;
use yielded::Yielded;

use crate::batch::Batch;

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

/// How long flows to be forgotten gather: nobody waits for these.
const FORGET_PACE: Duration = Duration::from_millis(20);

/// What a copier tells all interceptors of its flows, over links of the kind `U`.
///
/// A moment is the time since any fixed one: it must only go forward.
#[derive(Debug)]
pub struct Routes<U> {
    links: Vec<LinkRoutes<U>>,
    owners: AnsweredBy,
    conflicts: Conflicts,
    yielded: Yielded,
    exceptions: Exceptions,
    /// Flows whose responses need not come with their payload any more, and whose owner is to be told so.
    heard_enough: Vec<(InterceptorId, FlowId)>,
    /// What is to be announced: one batch for each number of a link (`-C`), the same for every
    /// interceptor, so that a flow is encoded once.
    announcements: Vec<Batch>,
    announced_at: Duration,
    forgotten_at: Duration,
    /// Whether something waits in a batch for more of its kind.
    gathering: bool,
    /// Whether responses are kept from the real clients.
    diverted: bool,
}

// Not derived: that would ask the same of `U`.
impl<U> Default for Routes<U> {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            owners: AnsweredBy::default(),
            conflicts: Conflicts::default(),
            yielded: Yielded::default(),
            exceptions: Exceptions::default(),
            heard_enough: Vec::new(),
            announcements: Vec::new(),
            announced_at: Duration::ZERO,
            forgotten_at: Duration::ZERO,
            gathering: false,
            diverted: false,
        }
    }
}

impl<U: Uplink> Routes<U> {
    /// Takes in a link. Its flows go out when it is up.
    pub fn add(&mut self, mut link: LinkRoutes<U>) {
        link.yield_ranges(&self.yielded.ranges().collect::<Vec<_>>());
        let shares = link.share().1 as usize;
        if self.announcements.len() < shares {
            self.announcements.resize_with(shares, Batch::new);
        }
        self.links.push(link);
    }

    /// Lets go of an interceptor: what was its own may now be anybody's.
    pub fn remove(&mut self, now: Duration, interceptor: InterceptorId) {
        let gone = |link: &LinkRoutes<U>| link.id().interceptor == interceptor;
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

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = &LinkRoutes<U>> {
        self.links.iter()
    }

    /// Where an interceptor is, as the operator wrote it.
    pub fn name(&self, interceptor: InterceptorId) -> Option<String> {
        let mut links = self.links.iter();
        let link = links.find(|link| link.id().interceptor == interceptor)?;
        Some(link.uplink().name())
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
                && link.uplink().trace(epoch, request).is_ok()
            {
                asked = Some(interceptor);
            }
        }
    }

    /// Something happened on a link. Says whether answers that went unseen can come back now.
    pub fn on_event(
        &mut self,
        now: Duration,
        id: LinkId,
        event: &LinkEvent,
        flows: &mut impl Flows,
    ) -> bool {
        match event {
            LinkEvent::Up { .. } => {
                // As before any resync.
                self.flush_announcements();
                self.yielded.unsay(now, id);
                let mut links = self.links.iter();
                if let Some(link) = links.find(|link| link.id() == id) {
                    self.conflicts
                        .told_anew(id.interceptor, |flow| link.carries(flow));
                }
            }
            LinkEvent::Down { .. } => self.yielded.unsay(now, id),
            LinkEvent::Others { ranges } => {
                // Of the claim only what lies within it.
                let mut links = self.links.iter();
                let claim = links.find_map(|link| link.claim());
                let within = |range: &&ClientRange| claim.is_some_and(|it| it.overlaps(range));
                let ranges = ranges.iter().filter(within).copied().collect();
                if self.yielded.say(now, id, ranges) {
                    self.yield_parts(flows);
                }
                return false;
            }
            LinkEvent::Taken {
                flows: records,
                ended,
            } => {
                for flow in FlowRecords::new(records).map_while(Result::ok) {
                    let flow = FourTuple::new(flow.client.into(), flow.target.into());
                    flows.set_taken(&flow, !ended);
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
                link.on_up(*epoch, flows, &self.owners, &self.exceptions);
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

    fn settle_claims(&mut self, now: Duration) {
        let first_refused = self.first_refused(None);
        for link in &mut self.links {
            link.settle_claim(now, first_refused.as_ref());
        }
    }

    /// Other parts of the pool are yielded than before: no new flow begins there, and before the claim says so
    /// the interceptors know those that are still alive there.
    fn yield_parts(&mut self, flows: &mut impl Flows) {
        let ranges: Vec<_> = self.yielded.ranges().collect();
        flows.leave(&ranges);
        match ranges.len() {
            0 => tracing::info!("the whole client pool is this copier's again"),
            parts => tracing::info!(
                "other copiers claim parts of the client pool ({parts}), which are left to them"
            ),
        }
        for (id, tuple) in flows.each() {
            if self.yielded.contains(tuple.source) && self.exceptions.insert(id) {
                self.push(id, &tuple, flows.wants_payload(id));
            }
        }
        self.flush_announcements();
        for link in &mut self.links {
            link.yield_ranges(&ranges);
        }
    }

    /// Whether responses are kept from the real clients, as the copier's router-agents have it.
    pub fn set_diverted(&mut self, diverted: bool) {
        self.diverted = diverted;
    }

    /// Whether an interceptor has said that its host would send on what is diverted to it.
    pub fn is_unsafe(&self) -> bool {
        self.links.iter().any(LinkRoutes::is_unsafe)
    }

    /// Whether responses are kept from the real clients and can come back at all, and no
    /// interceptor would give them to another copier: none refuses the pool, and none has still to
    /// grant it for the first time.
    pub fn is_open(&self) -> bool {
        self.diverted
            && self.links.iter().any(LinkRoutes::is_up)
            && !self.claims().any(Claim::is_refused)
            && !self.links.iter().any(LinkRoutes::waits_for_pool)
    }

    /// Why nothing is sent though an interceptor is connected, in words, where interceptors are the reason.
    pub fn held_back(&self) -> Option<String> {
        let first = |is: fn(&LinkRoutes<U>) -> bool| {
            let link = self.links.iter().find(|link| is(link))?;
            Some(link.uplink().name())
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
    pub fn may_own(&self, interceptor: InterceptorId, id: FlowId) -> bool {
        self.owners.get(id).is_none_or(|owner| owner == interceptor)
    }

    /// When [`Routes::flush`] is to be called next.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        if self.links.iter().any(LinkRoutes::is_pending) {
            return Some(now + RETRY);
        }
        // Forgetting can wait for the next packet.
        let announcing = self.gathering.then(|| self.announced_at + self.pace());
        let claims = self.claims().filter_map(Claim::due);
        let others = [announcing, self.yielded.due(), self.conflicts.due()];
        claims.chain(others.into_iter().flatten()).min()
    }

    /// An interceptor says that another copier owns this replica's flow, or one that it had before:
    /// see [`Flows::move_away`].
    pub fn on_conflict(
        &mut self,
        now: Duration,
        interceptor: InterceptorId,
        id: FlowId,
        flows: &mut impl Flows,
    ) {
        if flows.is_connected(id) {
            // It cannot move, whichever of its flows this is about.
            self.conflicts.contest(now, id, interceptor);
            return;
        }
        match self.conflicts.report(id, interceptor) {
            Report::Move => {
                if flows.move_away(id) {
                    let told = self.links.iter();
                    let told = told.filter(|link| link.carries(id) && link.epoch().is_some());
                    let told = told.map(|link| link.id().interceptor);
                    self.conflicts.moved(id, interceptor, told);
                }
            }
            Report::AnnounceAgain => {
                if let Some(flow) = flows.get(id) {
                    self.announce_again(interceptor, &[(id, flow)], flows);
                }
            }
            Report::Ignore => {}
        }
    }

    /// A response to a flow came back through an interceptor: it is the flow's real server.
    pub fn heard(&mut self, interceptor: InterceptorId, id: FlowId, flows: &impl Flows) {
        // With one interceptor there is nobody else to tell.
        let several = self
            .links
            .first()
            .zip(self.links.last())
            .is_some_and(|(first, last)| first.id().interceptor != last.id().interceptor);
        if several
            && self.announces()
            && self.owners.get(id).is_none()
            && flows.get(id).is_some()
            && self.owners.learn(id, interceptor)
        {
            self.forget_at(id, |other| other != interceptor);
        }
    }

    /// Queues what has gathered for long enough, and goes on with resyncs as far as there is room.
    pub fn flush(&mut self, now: Duration, flows: &mut impl Flows) {
        if self.yielded.due().is_some_and(|due| now >= due) {
            let heard = self.links.iter().any(|link| link.epoch().is_some());
            if self.yielded.settle(now, heard) {
                self.yield_parts(flows);
            }
        }
        if self.gathering && now >= self.announced_at + self.pace() {
            self.announced_at = now;
            self.gathering = false;
            self.flush_announcements();
            self.tell_heard_enough(flows);
        }
        if now >= self.forgotten_at + FORGET_PACE {
            self.forgotten_at = now;
            self.flush_forgotten();
        }
        self.announce_contested(now, flows);
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
                link.go_on(begins, flows, &self.owners, &self.exceptions);
            }
        }
    }
}

/// How soon a full queue is looked at again.
const RETRY: Duration = Duration::from_millis(5);
