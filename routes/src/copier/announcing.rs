//! Which flows interceptors are told of, and when: in batches, the same for every interceptor, so that a flow is encoded once.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use millrace_proto::FlowId;
use millrace_wire::FourTuple;

use super::{Flows, InterceptorId, LinkRoutes, Routes, Uplink};
use crate::batch::Batch;

/// Under load announcements gather for this long for each link but the first, so that the number of
/// messages does not grow with the number of new flows times that of links. A response that comes
/// before its announcement waits at the interceptor.
const PACE_PER_LINK: Duration = Duration::from_millis(1);
/// The longest that an announcement waits for others.
const LONGEST_PACE: Duration = Duration::from_millis(8);
/// So many flows are announced again at once that interceptors call another copier's.
const CONTESTED_AT_ONCE: usize = 1024;

impl<U: Uplink> Routes<U> {
    /// A replica's flow begins.
    pub fn flow_opened(&mut self, id: FlowId, tuple: &FourTuple, flows: &impl Flows) {
        // A replica that moves to another port begins anew, under the same id: what was to be
        // forgotten of its old flow must not follow the announcement of the new one.
        if self.owners.remove(id).is_some() {
            self.flush_forgotten();
        }
        let with_payload = flows.wants_payload(id);
        if !self.announces() {
            if with_payload {
                self.exceptions.insert(id);
            } else if !self.exceptions.contains(id) {
                return;
            }
        }
        self.push(id, tuple, with_payload);
    }

    /// Responses to a flow need not come with their payload any more.
    pub fn heard_enough(&mut self, id: FlowId, flows: &impl Flows) {
        let is_told = self.announces() || self.exceptions.contains(id);
        let Some(tuple) = flows.get(id).filter(|_| is_told) else {
            return;
        };
        match self.owners.get(id) {
            Some(owner) => {
                self.heard_enough.push((owner, id));
                self.gathering = true;
            }
            None => self.push(id, &tuple, flows.wants_payload(id)),
        }
    }

    /// A probe's flow begins.
    pub fn open(&mut self, id: FlowId, tuple: &FourTuple) {
        if self.announces() {
            self.push(id, tuple, false);
        }
    }

    /// A flow is over.
    pub fn flow_closed(&mut self, id: FlowId) {
        self.conflicts.remove(id);
        let owner = self.owners.remove(id);
        if self.announces() || self.exceptions.remove(id) {
            self.forget_at(id, |interceptor| {
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
    pub(super) fn announces(&self) -> bool {
        self.links.first().is_some_and(LinkRoutes::announces)
    }

    /// Adds a flow to what is to be announced.
    pub(super) fn push(&mut self, id: FlowId, tuple: &FourTuple, with_payload: bool) {
        let Some(first) = self.links.first() else {
            return;
        };
        let record = first.record(id, tuple, with_payload);
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

    pub(super) fn announce_again(
        &mut self,
        interceptor: InterceptorId,
        again: &[(FlowId, FourTuple)],
        flows: &impl Flows,
    ) {
        // Else it would come before what it repeats.
        self.flush_announcements();
        let its =
            |link: &&mut LinkRoutes<U>| link.id().interceptor == interceptor && link.announces();
        for link in self.links.iter_mut().filter(its) {
            let mut batch = Batch::new();
            let mut full = Vec::new();
            for (id, flow) in again.iter().filter(|(id, _)| link.carries(*id)) {
                let record = link.record(*id, flow, flows.wants_payload(*id));
                // Both ends of a replica's flow are of one family, so encoding cannot fail.
                full.extend(batch.push_flow(&record).unwrap_or_default());
            }
            full.extend(batch.take());
            for flows in full {
                link.announce(flows.into());
            }
        }
    }

    /// Announces flows again whose responses need not come with their payload any more.
    pub(super) fn tell_heard_enough(&mut self, flows: &impl Flows) {
        let mut again: BTreeMap<InterceptorId, Vec<(FlowId, FourTuple)>> = BTreeMap::new();
        for (owner, id) in std::mem::take(&mut self.heard_enough) {
            // One that has moved since was announced to all.
            if let Some(flow) = flows.get(id).filter(|_| self.owners.get(id) == Some(owner)) {
                again.entry(owner).or_default().push((id, flow));
            }
        }
        for (owner, again) in again {
            self.announce_again(owner, &again, flows);
        }
    }

    /// Announces connected flows again that interceptors call another copier's.
    pub(super) fn announce_contested(&mut self, now: Duration, flows: &impl Flows) {
        let mut again: BTreeMap<InterceptorId, Vec<(FlowId, FourTuple)>> = BTreeMap::new();
        for _ in 0..CONTESTED_AT_ONCE {
            let Some((id, interceptor)) = self.conflicts.next_contested(now) else {
                break;
            };
            // One that is not its owner has been told to forget it.
            if let Some(flow) = flows.get(id).filter(|_| self.may_own(interceptor, id)) {
                again.entry(interceptor).or_default().push((id, flow));
            }
        }
        for (interceptor, again) in again {
            self.announce_again(interceptor, &again, flows);
        }
    }

    pub(super) fn forget_at(&mut self, id: FlowId, whom: impl Fn(InterceptorId) -> bool) {
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

    pub(super) fn flush_announcements(&mut self) {
        for (share, batch) in self.announcements.iter_mut().enumerate() {
            if let Some(rest) = batch.take() {
                announce(&mut self.links, share, rest);
            }
        }
    }

    pub(super) fn flush_forgotten(&mut self) {
        // What was announced must not be overtaken by its end.
        self.flush_announcements();
        for link in &mut self.links {
            link.flush_forgotten();
        }
    }

    pub(super) fn pace(&self) -> Duration {
        let others = u32::try_from(self.links.len().saturating_sub(1)).unwrap_or(u32::MAX);
        PACE_PER_LINK.saturating_mul(others).min(LONGEST_PACE)
    }
}

/// Queues announced flows on every link with this number.
fn announce<U: Uplink>(links: &mut [LinkRoutes<U>], share: usize, flows: Vec<u8>) {
    let flows = Bytes::from(flows);
    for link in links {
        if link.share().0 == share as u64 {
            link.announce(flows.clone());
        }
    }
}
