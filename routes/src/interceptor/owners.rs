//! Who owns a flow: the copier that announced it, or the one that claimed its client's address.
//!
//! A stream that broke leaves its flows behind for a while, as a lease: the next stream of the same run of its copier
//! takes them over, and until then no other copier can have them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use foldhash::fast::RandomState;
use millrace_proto::flow::{FlowId, FlowIds, FlowRecord, FlowRecords, MAX_FLOW_BYTES};
use millrace_proto::{BATCH_BYTES, ClaimSet, FlowKey};
use millrace_wire::{Endpoint, FourTuple};

use super::claims::{Change, Claims, Conflict};
use super::wishes::Wishes;
use super::{ConnId, LEASE, Peer};

/// The stream that owns a flow, and the name that its copier has for it.
type Owner = (ConnId, FlowId);

/// So many streams that are gone are remembered, the latest: whoever opens and breaks them gains nothing by it.
pub(super) const MOST_LEASES: usize = 256;

/// A stream to a copier, and what it owns.
#[derive(Debug)]
struct Stream {
    who: Peer,
    flows: HashMap<FlowId, FourTuple, RandomState>,
    /// Flows named since the begin of a resync.
    resync: Option<HashMap<FlowId, FourTuple, RandomState>>,
    /// The stream is gone; for so long its copier may be back.
    leased_until: Option<Duration>,
}

/// What became of announced flows.
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// Those that the stream owns now.
    pub(super) owned: Vec<FourTuple>,
    /// Those that another copier owns.
    pub(super) conflicts: Vec<FlowId>,
}

/// All streams and what they own. A flow is named from the replica's source to the target.
#[derive(Debug)]
pub(super) struct Owners {
    /// Flows that may be announced, in all.
    limit: usize,
    over_limit: u64,
    streams: HashMap<ConnId, Stream>,
    by_flow: HashMap<FourTuple, Owner, RandomState>,
    /// What else streams of the same copier have of a flow: an announcement may be late on its link, and overtake a
    /// newer one on another. Mostly empty.
    shadowed: HashMap<FourTuple, Vec<Owner>, RandomState>,
    wishes: Wishes,
    claims: Claims,
    conflicts: u64,
}

impl Owners {
    /// Nobody, with room for `limit` announced flows in all. One stream may hold three quarters of
    /// them, so that it cannot shut out the others.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            over_limit: 0,
            streams: HashMap::new(),
            by_flow: HashMap::default(),
            shadowed: HashMap::default(),
            wishes: Wishes::default(),
            claims: Claims::default(),
            conflicts: 0,
        }
    }

    /// A stream is open. What its copier had on the one before is its own again; what an earlier run of it had is
    /// nobody's. Gives these flows.
    pub(super) fn attach(&mut self, conn: ConnId, who: Peer) -> Vec<FourTuple> {
        let streams = self.streams.iter();
        let its = streams
            .filter(|(_, it)| it.leased_until.is_some() && it.who.copier_id == who.copier_id);
        let its: Vec<(ConnId, u64, u32)> = its
            .map(|(conn, it)| (*conn, it.who.run, it.who.link))
            .collect();
        let (mut flows, mut gone) = (HashMap::default(), Vec::new());
        for (before, run, link) in its {
            if run != who.run {
                gone.extend(self.drop_stream(before));
            } else if link == who.link
                && let Some(old) = self.streams.remove(&before)
            {
                flows = old.flows;
                for (id, flow) in &flows {
                    self.wishes.move_to(before, conn, *id);
                    let its = self.by_flow.get_mut(flow).into_iter();
                    let its = its.chain(self.shadowed.get_mut(flow).into_iter().flatten());
                    for owner in its.filter(|owner| **owner == (before, *id)) {
                        owner.0 = conn;
                    }
                }
            }
        }
        let stream = Stream {
            who,
            flows,
            resync: None,
            leased_until: None,
        };
        self.streams.insert(conn, stream);
        gone
    }

    /// A stream is gone. Its flows and its claim are leased. Gives what is to be said to others.
    pub(super) fn detach(&mut self, now: Duration, conn: ConnId) -> Vec<Change> {
        match self.streams.get_mut(&conn) {
            Some(stream) if !stream.flows.is_empty() => {
                stream.leased_until = Some(now + LEASE);
                let streams = self.streams.values();
                if streams.filter(|it| it.leased_until.is_some()).count() > MOST_LEASES {
                    self.end_oldest_lease();
                }
            }
            Some(_) | None => drop(self.drop_stream(conn)),
        }
        self.claims.detach(now, conn)
    }

    /// Ends leases that have run out. Gives the flows of each stream, and what is to be said of claims.
    pub(super) fn expire(&mut self, now: Duration) -> (Vec<(ConnId, Vec<FourTuple>)>, Vec<Change>) {
        let is_over = |it: &Stream| it.leased_until.is_some_and(|until| until <= now);
        let streams = self.streams.iter();
        let over: Vec<ConnId> = streams.filter(|it| is_over(it.1)).map(|it| *it.0).collect();
        let gone = over.into_iter().map(|conn| (conn, self.drop_stream(conn)));
        let gone = gone.collect();
        (gone, self.claims.expire(now))
    }

    /// Forgets a stream. Gives the flows that it had.
    fn drop_stream(&mut self, conn: ConnId) -> Vec<FourTuple> {
        let flows = self.streams.remove(&conn).map(|stream| stream.flows);
        let flows = flows.into_iter().flatten();
        flows
            .map(|(id, tuple)| {
                self.remove(conn, id, &tuple);
                tuple
            })
            .collect()
    }

    /// Takes announced flows (checked bytes). A flow that another copier owns stays with that one. What is beyond the
    /// limits is only counted: those replicas get no answers.
    pub(super) fn announce(&mut self, conn: ConnId, flows: &[u8]) -> Announced {
        self.make_room(FlowRecords::new(flows).count());
        let mut held: usize = self.streams.values().map(|it| it.flows.len()).sum();
        let share = self.limit - self.limit / 4;
        let mut announced = Announced::default();
        for flow in FlowRecords::new(flows).map_while(Result::ok) {
            let tuple = FourTuple::new(flow.client.into(), flow.target.into());
            let taken = self.is_anothers(&tuple, conn);
            let Some(stream) = self.streams.get_mut(&conn) else {
                return announced;
            };
            let new = !stream.flows.contains_key(&flow.id);
            if new && (held >= self.limit || stream.flows.len() >= share) {
                self.over_limit += 1;
                continue;
            }
            if taken {
                self.conflicts += 1;
                announced.conflicts.push(flow.id);
                continue;
            }
            held += usize::from(new);
            // A replica that was moved to another port keeps its id.
            let old = stream.flows.insert(flow.id, tuple);
            if let Some(named) = &mut stream.resync {
                named.insert(flow.id, tuple);
            }
            if let Some(old) = old.filter(|old| *old != tuple) {
                self.remove(conn, flow.id, &old);
            }
            held -= self.supersede(conn, flow.id, &tuple);
            let port = tuple.destination.port;
            self.wishes.set(conn, flow.id, port, flow.with_payload);
            announced.owned.push(tuple);
        }
        announced
    }

    /// Names a flow's newest owner. Of the same stream no other name for it remains, since that is told in order; what
    /// other links of the copier say of it may be older or newer. Gives how many names are gone.
    fn supersede(&mut self, conn: ConnId, id: FlowId, flow: &FourTuple) -> usize {
        let owner = (conn, id);
        let Some(before) = self.by_flow.insert(*flow, owner) else {
            return 0;
        };
        let mut others = self.shadowed.remove(flow).unwrap_or_default();
        others.push(before);
        others.retain(|other| *other != owner);
        let (same, rest): (Vec<Owner>, Vec<Owner>) =
            others.into_iter().partition(|other| other.0 == conn);
        if let Some(stream) = self.streams.get_mut(&conn) {
            for (_, old) in &same {
                stream.flows.remove(old);
                self.wishes.remove(conn, *old, flow.destination.port);
                if let Some(named) = &mut stream.resync {
                    named.remove(old);
                }
            }
        }
        if !rest.is_empty() {
            self.shadowed.insert(*flow, rest);
        }
        same.len()
    }

    /// Ends leases where so many more flows would find no room besides.
    fn make_room(&mut self, coming: usize) {
        let held: usize = self.streams.values().map(|it| it.flows.len()).sum();
        while held + coming > self.limit && self.end_oldest_lease() {}
    }

    /// Says whether there was one.
    fn end_oldest_lease(&mut self) -> bool {
        let streams = self.streams.iter();
        let leases = streams.filter_map(|(conn, it)| Some((it.leased_until?, *conn)));
        let oldest = leases.min().map(|(_, conn)| conn);
        if let Some(conn) = oldest {
            self.drop_stream(conn);
        }
        oldest.is_some()
    }

    /// Whether another copier owns this flow. On another link of the same one (`-C`) it is an older
    /// flow, whose end is still on its way there; on a stream that is gone it was an earlier run's.
    fn is_anothers(&self, flow: &FourTuple, conn: ConnId) -> bool {
        let owner = self.by_flow.get(flow).map(|(owner, _)| *owner);
        let owner = owner.filter(|owner| *owner != conn);
        let owner = owner.and_then(|owner| self.streams.get(&owner));
        owner
            .zip(self.streams.get(&conn))
            .is_some_and(|(owner, mine)| {
                let same_run = owner.who.run == mine.who.run || owner.leased_until.is_some();
                owner.who.copier_id != mine.who.copier_id || !same_run
            })
    }

    /// Flows that a stream does not own any more. Gives them.
    pub(super) fn forget(&mut self, conn: ConnId, ids: &[u8]) -> Vec<FourTuple> {
        let mut gone = Vec::new();
        for id in FlowIds::new(ids).map_while(Result::ok) {
            let Some(stream) = self.streams.get_mut(&conn) else {
                return gone;
            };
            if let Some(named) = &mut stream.resync {
                named.remove(&id);
            }
            if let Some(tuple) = stream.flows.remove(&id) {
                self.remove(conn, id, &tuple);
                gone.push(tuple);
            }
        }
        gone
    }

    /// All that a stream owns follows.
    pub(super) fn begin_resync(&mut self, conn: ConnId) {
        if let Some(stream) = self.streams.get_mut(&conn) {
            stream.resync = Some(HashMap::default());
        }
    }

    /// What a stream did not name since the begin is not its own any more. Gives these flows.
    pub(super) fn end_resync(&mut self, conn: ConnId) -> Vec<FourTuple> {
        let Some(stream) = self.streams.get_mut(&conn) else {
            return Vec::new();
        };
        let Some(named) = stream.resync.take() else {
            return Vec::new();
        };
        let before = std::mem::replace(&mut stream.flows, named);
        let gone: Vec<_> = before
            .into_iter()
            .filter(|(id, _)| !stream.flows.contains_key(id))
            .collect();
        for (id, tuple) in &gone {
            self.remove(conn, *id, tuple);
        }
        gone.into_iter().map(|(_, tuple)| tuple).collect()
    }

    /// Takes a claim in place of the stream's earlier one: see [`Claims::claim`]. Gives what is to be said.
    ///
    /// # Errors
    /// Another copier holds a part of it.
    pub(super) fn claim(&mut self, conn: ConnId, claim: ClaimSet) -> Result<Vec<Change>, Conflict> {
        match self.streams.get(&conn) {
            Some(mine) => self.claims.claim(conn, &mine.who, claim),
            None => Ok(Vec::new()),
        }
    }

    /// The stream whose share this flow lies in, though another copier announces it, and the flow as a record.
    pub(super) fn intruded_by(&self, conn: ConnId, flow: &FourTuple) -> Option<(ConnId, Vec<u8>)> {
        if self.claims.is_empty() {
            return None;
        }
        let (target, client) = (address(flow.destination), address(flow.source));
        let share = self.claims.share(target, client)?;
        let id = |conn| self.streams.get(&conn).map(|it| &it.who.copier_id);
        if id(share) == id(conn) {
            return None;
        }
        let mut record = Vec::new();
        let flow = FlowRecord {
            id: 0,
            target,
            client,
            with_payload: false,
        };
        flow.encode(&mut record).ok()?;
        Some((share, record))
    }

    /// The copiers that a stream's share waits for.
    pub(super) fn awaited(&self, conn: ConnId) -> Vec<&str> {
        self.claims.awaited(conn)
    }

    /// The announced flows within a stream's share that another copier has: as flow records, in batches that fit into
    /// a message.
    pub(super) fn taken_within(&self, conn: ConnId) -> Vec<Vec<u8>> {
        let claim = self.claims.get(conn).filter(|claim| !claim.yields);
        let (Some(mine), Some(claim)) = (self.streams.get(&conn), claim) else {
            return Vec::new();
        };
        let is_anothers = |conn: &ConnId| {
            let other = self.streams.get(conn);
            other.is_some_and(|other| other.who.copier_id != mine.who.copier_id)
        };
        let mut batches = Vec::new();
        let mut batch = Vec::new();
        for (flow, (owner, id)) in &self.by_flow {
            let (target, client) = (address(flow.destination), address(flow.source));
            let target_is_any = is_any_target(flow);
            let within = claim.ranges.iter().any(|range| range.contains(client));
            if !within || !(target_is_any || claim.contains(target, client)) || !is_anothers(owner)
            {
                continue;
            }
            let record = FlowRecord {
                id: *id,
                target,
                client,
                with_payload: false,
            };
            // Both ends came from one record.
            if record.encode(&mut batch).is_ok() && batch.len() + MAX_FLOW_BYTES > BATCH_BYTES {
                batches.push(std::mem::take(&mut batch));
            }
        }
        batches.extend((!batch.is_empty()).then_some(batch));
        batches
    }

    /// The stream that owns a flow, and the name that its copier has for it. Of a stream that is gone none does.
    pub(super) fn find(&self, tuple: &FourTuple) -> Option<(ConnId, FlowKey)> {
        let announced = self.by_flow.get(tuple).or_else(|| {
            // Known by its client alone.
            let any = FourTuple::new(tuple.source, any_target(tuple.destination.ip));
            self.by_flow.get(&any)
        });
        if let Some(owner) = announced {
            let is_there = |conn: ConnId| {
                let stream = self.streams.get(&conn);
                stream.is_some_and(|it| it.leased_until.is_none())
            };
            let others = match self.shadowed.is_empty() {
                true => None,
                false => self.shadowed.get(tuple),
            };
            let mut owners = std::iter::once(owner).chain(others.into_iter().flatten());
            let owner = owners.find(|(conn, _)| is_there(*conn))?;
            return Some((owner.0, FlowKey::Id(owner.1)));
        }
        let (target, client) = (address(tuple.destination), address(tuple.source));
        // Of several links of one copier, each port has its own, so that a flow keeps to one.
        let carries = |conn: ConnId| {
            let who = self.streams.get(&conn).map(|stream| &stream.who);
            who.is_some_and(|who| u32::from(client.port()) % who.links.max(1) == who.link)
        };
        let conn = self.claims.find(target, client, carries)?;
        Some((conn, FlowKey::Tuple { target, client }))
    }

    /// Whether responses to a flow that was found are to go to its stream with their payload.
    pub(super) fn wants_payload(&self, conn: ConnId, key: FlowKey) -> bool {
        match key {
            FlowKey::Id(id) => self.wishes.contains(conn, id),
            FlowKey::Tuple { .. } => false,
        }
    }

    /// The ports of targets whose responses are wanted with their payload; 0 stands for any.
    pub(super) fn payload_ports(&self) -> impl Iterator<Item = u16> {
        self.wishes.ports()
    }

    /// How often these have changed.
    pub(super) const fn payload_port_changes(&self) -> u64 {
        self.wishes.changes()
    }

    /// Whose stream it is.
    pub(super) fn peer(&self, conn: ConnId) -> Option<&Peer> {
        self.streams.get(&conn).map(|stream| &stream.who)
    }

    /// Whether any copier is attached.
    pub(super) fn has_streams(&self) -> bool {
        let mut streams = self.streams.values();
        streams.any(|stream| stream.leased_until.is_none())
    }

    /// Number of announced flows.
    pub(super) fn flow_count(&self) -> usize {
        self.by_flow.len()
    }

    /// Flows that were announced while another copier owned them.
    pub(super) const fn conflict_count(&self) -> u64 {
        self.conflicts
    }

    /// Flows that were not taken because too many are announced already.
    pub(super) const fn over_limit_count(&self) -> u64 {
        self.over_limit
    }

    /// Another owner of the same flow stays.
    fn remove(&mut self, conn: ConnId, id: FlowId, tuple: &FourTuple) {
        self.wishes.remove(conn, id, tuple.destination.port);
        let is_owner = self.by_flow.get(tuple) == Some(&(conn, id));
        if self.shadowed.is_empty() {
            if is_owner {
                self.by_flow.remove(tuple);
            }
            return;
        }
        let mut others = self.shadowed.remove(tuple).unwrap_or_default();
        if is_owner {
            match others.pop() {
                Some(before) => self.by_flow.insert(*tuple, before),
                None => self.by_flow.remove(tuple),
            };
        } else {
            others.retain(|other| *other != (conn, id));
        }
        if !others.is_empty() {
            self.shadowed.insert(*tuple, others);
        }
    }
}

/// How copiers announce flows whose target's address changes on the way: see
/// [`millrace_proto::flow`].
fn any_target(like: IpAddr) -> Endpoint {
    let ip = match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    Endpoint::new(ip, 0)
}

/// Whether a flow is known by its client alone.
pub(super) fn is_any_target(flow: &FourTuple) -> bool {
    flow.destination.port == 0 && flow.destination.ip.is_unspecified()
}

fn address(endpoint: Endpoint) -> SocketAddr {
    endpoint.into()
}

#[cfg(test)]
#[path = "owners_tests.rs"]
mod tests;
