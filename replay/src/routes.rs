//! The route protocol over this copier's links, of this engine's flows.

use std::time::{Duration, Instant};

use millrace_channel::link::LinkHandle;
use millrace_daemon::quiet::{Quiet, times_before};
use millrace_engine::{Block, Engine, ReplicaKey, Sources, Time};
use millrace_proto::{ClientRange, FlowId};
use millrace_routes::copier::{self, Flows, InterceptorId};
use millrace_wire::FourTuple;

/// What all interceptors are told.
pub type Routes = copier::Routes<LinkHandle>;

/// What one of them is told.
pub type LinkRoutes = copier::LinkRoutes<LinkHandle>;

/// The replicas of an engine at a moment, as flows.
pub struct EngineFlows<'a> {
    /// The engine.
    pub engine: &'a mut Engine,
    /// The moment.
    pub now: Time,
}

impl Flows for EngineFlows<'_> {
    fn each(&self) -> impl Iterator<Item = (FlowId, FourTuple)> {
        let flows = self.engine.flows();
        flows.map(|(key, tuple)| (key.flow_id(), tuple))
    }

    fn get(&self, id: FlowId) -> Option<FourTuple> {
        self.engine.flow(ReplicaKey::from_flow_id(id))
    }

    fn wants_payload(&self, id: FlowId) -> bool {
        self.engine.wants_answers(ReplicaKey::from_flow_id(id))
    }

    fn is_connected(&self, id: FlowId) -> bool {
        self.engine.is_connected(ReplicaKey::from_flow_id(id))
    }

    fn move_away(&mut self, id: FlowId) -> bool {
        self.engine
            .flow_conflict(self.now, ReplicaKey::from_flow_id(id))
    }

    fn leave(&mut self, ranges: &[ClientRange]) {
        let sources = ranges.iter().map(|range| -> Sources {
            let ((first_ip, last_ip), (first, last)) = (range.ips(), range.ports());
            (first_ip, last_ip, Block { first, last })
        });
        self.engine.yield_sources(&sources.collect::<Vec<_>>());
    }

    fn set_taken(&mut self, flow: &FourTuple, is_taken: bool) {
        self.engine.set_taken(self.now, flow, is_taken);
    }
}

/// The engine's time as that of the route protocol.
pub fn moment(now: Time) -> Duration {
    Duration::from_micros(now.as_micros())
}

/// An interceptor sent response headers that cannot be read. What an operator is to be told, if it is time to.
pub fn unreadable(
    routes: &Routes,
    said: &Quiet<InterceptorId>,
    interceptor: InterceptorId,
    now: Instant,
) -> Option<String> {
    let more = said.say(interceptor, now)?;
    Some(format!(
        "interceptor {}: it sent response headers that make no sense, which are left out: run the \
         same version of both{}",
        routes.name(interceptor)?,
        times_before(more)
    ))
}
