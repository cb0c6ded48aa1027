//! A copier: flows that begin, move and end, and what interceptors are told of them.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use millrace_proto::{ClaimSet, ClientRange, FlowId};
use millrace_routes::copier::{FlowTarget, Flows, LinkId, LinkRoutes, Routes};
use millrace_wire::{Endpoint, FourTuple};

use super::Sources;
use super::rng::Rng;
use super::wire::Line;

pub const TARGET: Endpoint = Endpoint {
    ip: IpAddr::V4(Ipv4Addr::new(198, 18, 2, 20)),
    port: 80,
};
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 1, 1));

pub struct Flow {
    pub tuple: FourTuple,
    pub connected: bool,
    /// Its responses are wanted with their payload.
    pub listened: bool,
}

/// The flows of a copier.
pub struct Book {
    pub flows: BTreeMap<FlowId, Flow>,
    /// Those that have moved, and are to be announced anew.
    pub moved: Vec<FlowId>,
    /// What flows were before they moved.
    pub left_behind: Vec<(FlowId, FourTuple)>,
    last_id: FlowId,
    /// The ports that it may take.
    ports: (u16, u16),
    left: Vec<ClientRange>,
    taken: HashSet<FourTuple>,
    rng: Rng,
}

impl Book {
    fn choose(&mut self) -> Option<FourTuple> {
        let (first, last) = self.ports;
        let count = usize::from(last - first) + 1;
        (0..64).find_map(|_| {
            let port = first + self.rng.below(count) as u16;
            let tuple = FourTuple::new(Endpoint::new(CLIENT, port), TARGET);
            let is_left = self.left.iter().any(|it| it.contains(tuple.source.into()));
            let is_mine = self.flows.values().any(|flow| flow.tuple == tuple);
            (!is_left && !is_mine && !self.taken.contains(&tuple)).then_some(tuple)
        })
    }
}

impl Flows for Book {
    fn each(&self) -> impl Iterator<Item = (FlowId, FourTuple)> {
        self.flows.iter().map(|(id, flow)| (*id, flow.tuple))
    }

    fn get(&self, id: FlowId) -> Option<FourTuple> {
        self.flows.get(&id).map(|flow| flow.tuple)
    }

    fn wants_payload(&self, id: FlowId) -> bool {
        self.flows.get(&id).is_some_and(|flow| flow.listened)
    }

    fn is_connected(&self, id: FlowId) -> bool {
        self.flows.get(&id).is_some_and(|flow| flow.connected)
    }

    fn move_away(&mut self, id: FlowId) -> bool {
        if !self.flows.contains_key(&id) || self.is_connected(id) {
            return false;
        }
        let Some(tuple) = self.choose() else {
            return false;
        };
        if let Some(flow) = self.flows.get_mut(&id) {
            let before = std::mem::replace(&mut flow.tuple, tuple);
            self.left_behind.push((id, before));
        }
        self.moved.push(id);
        true
    }

    fn leave(&mut self, ranges: &[ClientRange]) {
        self.left = ranges.to_vec();
    }

    fn set_taken(&mut self, flow: &FourTuple, is_taken: bool) {
        if !is_taken {
            self.taken.remove(flow);
            return;
        }
        self.taken.insert(*flow);
        let mine = self.flows.iter().find(|(_, mine)| mine.tuple == *flow);
        if let Some((id, _)) = mine {
            self.move_away(*id);
        }
    }
}

pub struct Copier {
    pub name: String,
    pub run: u64,
    pub links: u32,
    pub routes: Routes<Line>,
    pub book: Book,
    /// To each interceptor, over each link.
    pub lines: Vec<Vec<Line>>,
}

impl Copier {
    /// One that has just started: with another run than any before.
    pub fn start(
        number: usize,
        run: u64,
        links: u32,
        sources: Sources,
        interceptors: usize,
        rng: &mut Rng,
    ) -> Self {
        let (ports, claim) = sources.of(number, CLIENT);
        let mut routes = Routes::default();
        routes.set_diverted(true);
        let lines: Vec<Vec<Line>> = (0..interceptors)
            .map(|interceptor| {
                let link = |link| {
                    let line = Line::new(4 + rng.below(30));
                    let id = LinkId {
                        interceptor: interceptor as u32,
                        link,
                    };
                    let claim: Option<ClaimSet> = claim.clone();
                    let target = FlowTarget::Exact;
                    routes.add(LinkRoutes::new(id, line.clone(), links, claim, target));
                    line
                };
                (0..links).map(link).collect()
            })
            .collect();
        Self {
            name: format!("copier {number}"),
            run,
            links,
            routes,
            book: Book {
                flows: BTreeMap::new(),
                left_behind: Vec::new(),
                moved: Vec::new(),
                // Ids of another run are others.
                last_id: run << 32,
                ports,
                left: Vec::new(),
                taken: HashSet::new(),
                rng: Rng::new(rng.next()),
            },
            lines,
        }
    }

    /// A session begins, if any may.
    pub fn open(&mut self) -> Option<FourTuple> {
        if !self.routes.is_open() {
            return None;
        }
        let tuple = self.book.choose()?;
        self.book.last_id += 1;
        let (id, connected) = (self.book.last_id, false);
        // A part of the sessions are a protocol module's.
        let listened = id % 3 == 0;
        let flow = Flow {
            tuple,
            connected,
            listened,
        };
        self.book.flows.insert(id, flow);
        self.routes.flow_opened(id, &tuple, &self.book);
        Some(tuple)
    }

    /// A session's module needs no payload any more.
    pub fn hear_enough(&mut self, id: FlowId) {
        if let Some(flow) = self.book.flows.get_mut(&id) {
            flow.listened = false;
            self.routes.heard_enough(id, &self.book);
        }
    }

    /// A session ends.
    pub fn close(&mut self, id: FlowId) {
        self.book.flows.remove(&id);
        self.routes.flow_closed(id);
    }

    /// Announces flows that have moved.
    pub fn announce_moved(&mut self) {
        for id in std::mem::take(&mut self.book.moved) {
            if let Some(tuple) = self.book.get(id) {
                self.routes.flow_opened(id, &tuple, &self.book);
            }
        }
    }

    /// Time passes.
    pub fn flush(&mut self, now: Duration) {
        self.routes.flush(now, &mut self.book);
        self.announce_moved();
    }

    /// Whether responses can come back to it through this interceptor, as far as it knows.
    pub fn is_heard_by(&self, interceptor: usize) -> bool {
        let its = |id: LinkId| id.interceptor as usize == interceptor;
        let mut links = self.routes.links();
        links.any(|link| its(link.id()) && link.is_up())
    }

    /// Messages that it has sent.
    pub fn sent(&self) -> u64 {
        let lines = self.lines.iter().flatten();
        lines.map(|line| line.0.borrow().sent).sum()
    }
}
