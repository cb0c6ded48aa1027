//! What the shard takes in of links: response headers, and what happens to the links themselves.

use std::time::Instant;

use millrace_engine::{FlowRef, ReplicaKey, Time};
use millrace_proto::{FlowIds, HeaderRecords};
use millrace_routes::copier::{InterceptorId, LinkEvent, LinkId};

use super::Shard;
use super::packets::response;
use crate::inbox::Message;
use crate::routes::{EngineFlows, moment, unreadable};
use crate::whereabouts::News;

impl Shard {
    /// Takes in what has come.
    pub(super) async fn take_messages(&mut self) {
        self.inbox.take(&mut self.messages);
        let looked = Instant::now();
        if !self.messages.is_empty() {
            self.looks.looked(looked);
            self.pace.looked(looked);
        }
        // Of an answer that is taken in now more may wait until the next look.
        self.engine.set_gathering(self.moderation.window());
        let now = self.clock.now();
        while let Some(message) = self.messages.pop_front() {
            match message {
                Message::Headers(link, bytes, ready_at) => {
                    let waited = self.transit.waited(link, looked, ready_at);
                    self.engine.set_heard_ago(waited);
                    let before = self.engine.stats().replicas_established;
                    self.on_headers(now, link.interceptor, &bytes, ready_at > 0);
                    let connected = self.engine.stats().replicas_established - before;
                    // What does not say when it was ready could not be told from a slow target.
                    if ready_at > 0 {
                        self.moderation.connect(connected);
                    }
                    if connected > 0
                        && let Some(link) = self.routes.links().find(|it| it.id() == link)
                    {
                        link.uplink().note_connected(connected);
                    }
                }
                Message::Conflict(interceptor, ids) => {
                    for id in FlowIds::new(&ids).map_while(Result::ok) {
                        let engine = &mut self.engine;
                        let mut flows = EngineFlows { engine, now };
                        self.routes
                            .on_conflict(moment(now), interceptor, id, &mut flows);
                        // Its new flow is announced before a next report of it is weighed.
                        self.tell_flows(now);
                    }
                }
                Message::Traced(interceptor, report) => {
                    self.prober.on_traced(interceptor, &report);
                }
                Message::Link(link, event) => self.on_link(now, link, &event),
                Message::Add(link) => self.routes.add(*link),
                Message::Remove(interceptor) => {
                    self.routes.remove(moment(now), interceptor);
                    self.engine.set_open(now, self.routes.is_open());
                }
                Message::Whereabouts(news) => self.on_whereabouts(news).await,
            }
        }
    }

    /// Copies live services where they are now.
    async fn on_whereabouts(&mut self, news: News) {
        self.input.follow(&news);
        match news {
            News::Host(addresses) => self.engine.set_local_addresses(addresses),
            News::Followed(followed) => {
                // What an address that is gone had is in the queue, and is taken in before its sessions end.
                self.input
                    .take_waiting(&self.clock, &mut self.engine, &mut self.pace)
                    .await;
                let now = self.clock.now();
                for (service, addresses) in followed.addresses.into_iter().enumerate() {
                    self.engine.set_followed(now, service, addresses);
                }
            }
        }
    }

    /// Takes in packed response headers, up to the first that cannot be read. They may `gather` whose time on the way is known.
    fn on_headers(&mut self, now: Time, interceptor: InterceptorId, bytes: &[u8], gather: bool) {
        for record in HeaderRecords::new(bytes) {
            let Ok(record) = record else {
                let (said, at) = (&self.unreadable, Instant::now());
                if let Some(line) = unreadable(&self.routes, said, interceptor, at) {
                    tracing::warn!("{line}");
                }
                return;
            };
            let (flow, header, len) = response(&record.header);
            if gather {
                self.moderation.hear(number(&flow));
            }
            if self.prober.on_header(now, interceptor, flow, &header) {
                continue;
            }
            self.engine
                .target_segment(now, flow, &header, record.payload, len);
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

    fn on_link(&mut self, now: Time, link: LinkId, event: &LinkEvent) {
        if let LinkEvent::Up { .. } | LinkEvent::Down { .. } = event {
            self.transit.forget(link);
        }
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
}

/// A number that tells a flow from most others.
fn number(flow: &FlowRef) -> u64 {
    match flow {
        FlowRef::Id(id) => *id,
        FlowRef::Tuple(tuple) => tuple.source.port.into(),
    }
}
