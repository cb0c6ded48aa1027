//! What interceptors are told of flows whose responses are wanted with their payload.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    unused_crate_dependencies
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use millrace_proto::{
    ClaimSet, ClientRange, FlowId, FlowIds, FlowRecord, FlowRecords, TraceRequest,
};
use millrace_routes::copier::{
    Epoch, FlowTarget, Flows, LinkEvent, LinkId, LinkRoutes, Routes, SendError, Uplink,
};
use millrace_wire::{Endpoint, FourTuple};

/// What a link was told.
#[derive(Debug, PartialEq)]
enum Told {
    /// Flows: id, client port, and whether their payload is wanted.
    Flows(Vec<(FlowId, u16, bool)>),
    Forgotten(Vec<FlowId>),
    Claim,
    Begin,
    End,
}

/// A link that never ends.
#[derive(Clone, Debug, Default)]
struct Wire(Rc<RefCell<Vec<Told>>>);

impl Wire {
    fn say(&self, told: Told) -> Result<(), SendError> {
        self.0.borrow_mut().push(told);
        Ok(())
    }

    fn heard(&self) -> Vec<Told> {
        self.0.take()
    }
}

impl Uplink for Wire {
    fn name(&self) -> String {
        "a wire".to_owned()
    }

    fn queued_bytes(&self) -> usize {
        0
    }

    fn announce(&self, _: Epoch, flows: impl Into<Bytes>) -> Result<(), SendError> {
        let flows = flows.into();
        let told = |flow: FlowRecord| (flow.id, flow.client.port(), flow.with_payload);
        self.say(Told::Flows(
            FlowRecords::new(&flows)
                .map(|it| told(it.unwrap()))
                .collect(),
        ))
    }

    fn forget(&self, _: Epoch, ids: impl Into<Bytes>) -> Result<(), SendError> {
        let ids = ids.into();
        self.say(Told::Forgotten(
            FlowIds::new(&ids).map(Result::unwrap).collect(),
        ))
    }

    fn claim(&self, _: Epoch, _: &ClaimSet) -> Result<(), SendError> {
        self.say(Told::Claim)
    }

    fn resync_begin(&self, _: Epoch) -> Result<(), SendError> {
        self.say(Told::Begin)
    }

    fn resync_end(&self, _: Epoch) -> Result<(), SendError> {
        self.say(Told::End)
    }

    fn trace(&self, _: Epoch, _: &TraceRequest) -> Result<(), SendError> {
        Ok(())
    }
}

/// A copier's flows, and those of them that a protocol module listens to.
#[derive(Default)]
struct Book {
    flows: BTreeMap<FlowId, FourTuple>,
    listened: BTreeSet<FlowId>,
}

impl Flows for Book {
    fn each(&self) -> impl Iterator<Item = (FlowId, FourTuple)> {
        self.flows.iter().map(|(id, flow)| (*id, *flow))
    }

    fn get(&self, id: FlowId) -> Option<FourTuple> {
        self.flows.get(&id).copied()
    }

    fn wants_payload(&self, id: FlowId) -> bool {
        self.listened.contains(&id)
    }

    fn is_connected(&self, _: FlowId) -> bool {
        true
    }

    fn move_away(&mut self, _: FlowId) -> bool {
        false
    }

    fn leave(&mut self, _: &[ClientRange]) {}

    fn set_taken(&mut self, _: &FourTuple, _: bool) {}
}

/// A copier and its links to interceptors.
struct Copier {
    book: Book,
    routes: Routes<Wire>,
    wires: Vec<Wire>,
    now: Duration,
}

impl Copier {
    fn new(interceptors: u32, claim: Option<&ClaimSet>) -> Self {
        let mut copier = Self {
            book: Book::default(),
            routes: Routes::default(),
            wires: Vec::new(),
            now: Duration::from_secs(1000),
        };
        for interceptor in 0..interceptors {
            let (wire, id) = (
                Wire::default(),
                LinkId {
                    interceptor,
                    link: 0,
                },
            );
            let claim = claim.cloned();
            let link = LinkRoutes::new(id, wire.clone(), 1, claim, FlowTarget::Exact);
            copier.routes.add(link);
            copier.wires.push(wire);
            copier.up(interceptor, 1);
        }
        for wire in &copier.wires {
            wire.heard();
        }
        copier
    }

    fn up(&mut self, interceptor: u32, epoch: Epoch) {
        let up = LinkEvent::Up {
            epoch,
            interceptor_id: format!("rs{interceptor}"),
            incarnation: 1,
        };
        for event in [up, LinkEvent::Granted] {
            let id = LinkId {
                interceptor,
                link: 0,
            };
            self.routes.on_event(self.now, id, &event, &mut self.book);
        }
    }

    /// A replica begins, or moves, at a client's port.
    fn open(&mut self, id: FlowId, port: u16) {
        let end = |ip: &str, port| Endpoint::new(ip.parse().unwrap(), port);
        let flow = FourTuple::new(end("198.18.1.1", port), end("198.18.2.20", 80));
        self.book.flows.insert(id, flow);
        self.routes.flow_opened(id, &flow, &self.book);
    }

    fn hear_enough(&mut self, id: FlowId) {
        self.book.listened.remove(&id);
        self.routes.heard_enough(id, &self.book);
    }

    fn close(&mut self, id: FlowId) {
        self.book.flows.remove(&id);
        self.routes.flow_closed(id);
    }

    /// Time passes; gives what each interceptor is told.
    fn told(&mut self) -> Vec<Vec<Told>> {
        self.now += Duration::from_secs(1);
        self.routes.flush(self.now, &mut self.book);
        self.wires.iter().map(Wire::heard).collect()
    }
}

fn pool() -> ClaimSet {
    let (first, last) = (
        "198.18.1.0".parse().unwrap(),
        "198.18.1.255".parse().unwrap(),
    );
    ClaimSet {
        ranges: vec![ClientRange::new(first, last, 1, u16::MAX).unwrap()],
        targets: Vec::new(),
        yields: false,
        without: Vec::new(),
    }
}

#[test]
fn with_a_claim_just_the_flows_with_payload_are_announced_and_for_as_long_as_they_last() {
    let mut copier = Copier::new(1, Some(&pool()));
    copier.book.listened.extend([1, 3]);
    copier.open(1, 1001);
    copier.open(2, 1002);
    copier.open(3, 1003);
    assert_eq!(
        copier.told(),
        [[Told::Flows(vec![(1, 1001, true), (3, 1003, true)])]]
    );
    copier.hear_enough(1);
    copier.hear_enough(2);
    assert_eq!(copier.told(), [[Told::Flows(vec![(1, 1001, false)])]]);
    // One that moves must not be known by the port that it had.
    copier.open(1, 1011);
    copier.open(2, 1012);
    assert_eq!(copier.told(), [[Told::Flows(vec![(1, 1011, false)])]]);
    // All of it is said again after a break.
    copier.up(0, 2);
    let told = copier.told().remove(0);
    let Told::Flows(mut flows) = told.into_iter().nth(1).unwrap() else {
        panic!("no flows");
    };
    flows.sort_unstable();
    assert_eq!(flows, [(1, 1011, false), (3, 1003, true)]);
    for id in 1..=3 {
        copier.close(id);
    }
    assert_eq!(copier.told(), [[Told::Forgotten(vec![1, 3])]]);
}

#[test]
fn the_owner_alone_is_told_that_enough_was_heard_and_of_many_flows_at_once() {
    let mut copier = Copier::new(2, None);
    for id in 1..=50 {
        copier.book.listened.insert(id);
        copier.open(id, 1000 + id as u16);
    }
    assert_eq!(copier.told()[1].len(), 1);
    for id in 1..=50 {
        copier.routes.heard(1, id, &copier.book);
    }
    copier.told();
    for id in 1..=50 {
        copier.hear_enough(id);
    }
    // One that moves is told to all as it is, and one that is over to nobody.
    copier.open(49, 2049);
    copier.close(50);
    let told = copier.told();
    let is_moved = |told: &Told| *told == Told::Flows(vec![(49, 2049, false)]);
    assert!(told[0].iter().any(is_moved), "{told:?}");
    assert_eq!(told[0].len(), 1, "{told:?}");
    let enough: Vec<_> = (1..=48).map(|id| (id, 1000 + id as u16, false)).collect();
    assert!(told[1].contains(&Told::Flows(enough)), "{told:?}");
    assert!(told[1].contains(&Told::Forgotten(vec![50])), "{told:?}");
    assert_eq!(told[1].len(), 3, "{told:?}");
}
