//! What the shard takes in: captured packets, response headers, and what happens to links.

use std::time::{Duration, Instant};

use millrace_engine::{FlowRef, ReplicaKey, Time};
use millrace_proto::{FlowIds, HeaderRecords};

use millrace_routes::copier::{LinkEvent, LinkId};

use super::Shard;
use super::packets::response;
use crate::clock::Clock;
use crate::diversion::Diversion;
use crate::inbox::Input;
use crate::routes::{EngineFlows, moment, unreadable};

impl Shard {
    /// Takes in a batch of captured packets. Says whether there was one.
    pub(super) fn capture(&mut self) -> bool {
        let Self {
            intake: Some(intake),
            batch,
            engine,
            clock,
            lag,
            pace,
            ..
        } = self
        else {
            return false;
        };
        if !intake.next(batch) {
            *lag = Duration::ZERO;
            return false;
        }
        pace.looked(Instant::now());
        *lag = batch.waited();
        engine.set_waited(*lag);
        let now = clock.now();
        for captured in batch.packets() {
            let at = Clock::stamp(now, captured.timestamp);
            engine.segment_with(now, at, &captured.packet, captured.payload);
        }
        true
    }

    pub(super) fn take_inputs(&mut self) {
        self.inbox.take(&mut self.inputs);
        if !self.inputs.is_empty() {
            let now = Instant::now();
            self.looks.looked(now);
            self.pace.looked(now);
        }
        let now = self.clock.now();
        while let Some(input) = self.inputs.pop_front() {
            match input {
                Input::Headers(interceptor, bytes) => {
                    for record in HeaderRecords::new(&bytes) {
                        let Ok(record) = record else {
                            let (said, at) = (&self.unreadable, Instant::now());
                            if let Some(line) = unreadable(&self.routes, said, interceptor, at) {
                                tracing::warn!("{line}");
                            }
                            break;
                        };
                        let (flow, header, len) = response(&record);
                        if self.prober.on_header(now, interceptor, flow, &header) {
                            continue;
                        }
                        self.engine.target_header(now, flow, &header, len);
                        // A late answer to the flow that a moved replica had before does not connect it.
                        if let FlowRef::Id(id) = flow
                            && self.engine.is_connected(ReplicaKey::from_flow_id(id))
                        {
                            let engine = &mut self.engine;
                            let flows = EngineFlows { engine, now };
                            self.routes.heard(interceptor, id, &flows);
                        }
                    }
                }
                Input::Conflict(interceptor, ids) => {
                    for id in FlowIds::new(&ids).map_while(Result::ok) {
                        let engine = &mut self.engine;
                        let mut flows = EngineFlows { engine, now };
                        self.routes
                            .on_conflict(moment(now), interceptor, id, &mut flows);
                        // Its new flow is announced before a next report of it is weighed.
                        self.tell_flows(now);
                    }
                }
                Input::Traced(interceptor, report) => {
                    self.prober.on_traced(interceptor, &report);
                }
                Input::Link(link, event) => self.on_link(now, link, &event),
                Input::Add(link) => self.routes.add(*link),
                Input::Remove(interceptor) => {
                    self.routes.remove(moment(now), interceptor);
                    self.engine.set_open(now, self.routes.is_open());
                }
                Input::Addresses(addresses) => {
                    if let Some(intake) = &self.intake {
                        intake.follow(addresses.clone());
                    }
                    self.engine.set_local_addresses(addresses);
                }
            }
        }
    }

    pub(super) fn on_link(&mut self, now: Time, link: LinkId, event: &LinkEvent) {
        let engine = &mut self.engine;
        let mut flows = EngineFlows { engine, now };
        let restored = self.routes.on_event(moment(now), link, event, &mut flows);
        if restored && self.engine.is_open() {
            // Whatever is outstanding is tried again: its answers may have gone unseen.
            let routes = &self.routes;
            self.engine
                .path_restored(now, |key| routes.may_own(link.interceptor, key.flow_id()));
        }
        self.engine.set_open(now, self.routes.is_open());
    }

    /// Takes in what this host has caught of the targets' answers. Says whether there is more.
    pub(super) fn take_answers(&mut self, now: Time) -> bool {
        let Some(answers) = &mut self.answers else {
            return false;
        };
        let diverted = self.diversion == Diversion::Held;
        self.engine.set_open(now, diverted);
        answers.take(now, &mut self.engine)
    }
}
