//! The worker: one thread that owns the sources of responses and knows who owns which flow. The copiers' streams are tasks
//! of the same thread: what is handed to them leaves when it waits.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use millrace_capture::{Pace, Rest, Waker, sleep_precisely};
use millrace_channel::server::{AttachEvent, AttachEvents};
use millrace_daemon::drain::{DrainWatch, Stage};
use millrace_daemon::readiness::{Readiness, Task};
use millrace_daemon::service_manager::Heart;
use millrace_proto::v1::refused::Code;
use millrace_proto::{FlowKey, HeaderRecord};
use millrace_routes::interceptor::{ConnId, Peer, Registry, Word};
use millrace_wire::{Decoder, TcpPacket};
use tokio::task::yield_now;

use crate::counters::{Counters, Shared};
use crate::outgoing::Outgoing;
use crate::payload::PayloadPorts;
use crate::source::Source;
use crate::tracer::Tracer;

/// Longest sleep, so that signals and devices that come back are noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);
/// Responses that come one by one go on at once, up to so many times in a second. More are gathered for so long: what they
/// cost together, from here to the copier's engine, is little more than what one does.
const LOOKS_A_SECOND: u32 = 12_500;
const GATHER: Duration = Duration::from_micros(250);
/// How often the counters are shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);
/// Route info messages taken before the rings get their turn.
const EVENTS_IN_A_ROW: usize = 64;

/// The parts of a worker, open and ready.
pub struct Parts {
    /// Where responses come from.
    pub sources: Vec<Source>,
    /// Looks for probes.
    pub tracer: Tracer,
    /// Route info.
    pub events: AttachEvents,
    /// This host's own addresses: what goes to them is no response to a copied flow.
    pub local: HashSet<IpAddr>,
    /// Wakes the worker.
    pub waker: Waker,
    /// Tells it to end.
    pub drain: DrainWatch,
    /// Flows that copiers may announce, in all.
    pub max_flows: usize,
    /// Where it shows its counters.
    pub shared: Shared,
    /// Where it says whether each source delivers.
    pub readiness: Readiness,
    /// Shows that it lives.
    pub heart: Heart,
}

/// The worker.
pub struct Worker {
    sources: Vec<Source>,
    /// Whether each source delivers, in the same order.
    delivering: Vec<Task>,
    decoder: Decoder,
    registry: Registry,
    outgoing: Outgoing,
    payload_ports: PayloadPorts,
    events: AttachEvents,
    local: HashSet<IpAddr>,
    waker: Waker,
    drain: DrainWatch,
    shared: Shared,
    tracer: Tracer,
    counters: Counters,
    began: Instant,
    show_at: Instant,
    pace: Pace,
    /// Whether it was said that answers leave this host.
    leaves_said: bool,
    heart: Heart,
}

impl Worker {
    /// A worker that will begin with [`Worker::run`].
    pub fn new(parts: Parts) -> Self {
        let now = Instant::now();
        let delivering = parts
            .sources
            .iter()
            .map(|source| parts.readiness.register(source.name()))
            .collect();
        Self {
            sources: parts.sources,
            delivering,
            tracer: parts.tracer,
            decoder: Decoder::new(),
            registry: Registry::new(parts.max_flows),
            outgoing: Outgoing::default(),
            payload_ports: PayloadPorts::default(),
            events: parts.events,
            local: parts.local,
            waker: parts.waker,
            drain: parts.drain,
            shared: parts.shared,
            counters: Counters::default(),
            began: now,
            show_at: now,
            pace: Pace::prompt(LOOKS_A_SECOND),
            leaves_said: false,
            heart: parts.heart,
        }
    }

    /// Works until it is told to end; gives the final counters.
    ///
    /// # Errors
    /// When the process has no descriptors left to wait with.
    pub async fn run(mut self) -> std::io::Result<Counters> {
        sleep_precisely();
        let mut rest = Rest::new()?;
        // There is nothing to drain: sessions are the copiers', and live through a restart.
        while self.drain.stage() == Stage::Running {
            let mut more = self.take_route_info();
            self.follow_payload_ports();
            for index in 0..self.sources.len() {
                more |= self.capture_from(index);
            }
            self.registry.expire(self.began.elapsed());
            self.speak();
            if self.outgoing.flush() {
                self.pace.looked(Instant::now());
            }
            self.show();
            if more {
                yield_now().await;
            } else {
                self.sleep(&mut rest).await;
            }
        }
        self.outgoing.flush();
        self.count_up();
        self.shared.set(self.counters);
        Ok(self.counters)
    }

    fn follow_payload_ports(&mut self) {
        let (now, registry) = (Instant::now(), &self.registry);
        let changes = registry.payload_port_changes();
        if !self.payload_ports.is_due(now, changes) {
            return;
        }
        let asked = registry.payload_ports().collect();
        if let Some(ports) = self.payload_ports.follow(now, changes, asked) {
            for source in &mut self.sources {
                source.set_whole(&ports);
            }
        }
    }

    fn take_route_info(&mut self) -> bool {
        for _ in 0..EVENTS_IN_A_ROW {
            let Some(event) = self.events.try_next() else {
                return false;
            };
            self.on_event(event);
        }
        true
    }

    fn on_event(&mut self, event: AttachEvent) {
        let registry = &mut self.registry;
        match event {
            AttachEvent::Attached { conn, who } => {
                self.outgoing.attach(conn, who.queue);
                let peer = Peer {
                    copier_id: who.copier_id,
                    run: who.incarnation.id,
                    link: who.link,
                    links: who.links,
                };
                registry.attach(conn, peer);
            }
            AttachEvent::Detached { conn } => {
                registry.detach(self.began.elapsed(), conn);
                self.outgoing.detach(conn);
            }
            AttachEvent::Announce { conn, flows, .. } => registry.announce(conn, &flows),
            AttachEvent::Forget { conn, ids, .. } => registry.forget(conn, &ids),
            AttachEvent::Trace { conn, request } => {
                if let Some(queue) = self.outgoing.queue(conn) {
                    self.tracer.ask(request, queue.clone());
                }
            }
            AttachEvent::ResyncBegin { conn } => registry.begin_resync(conn),
            AttachEvent::ResyncEnd { conn } => registry.end_resync(conn),
            AttachEvent::Claim { conn, claim } => registry.claim(conn, claim),
        }
        self.speak();
    }

    /// Says what the registry has to say.
    fn speak(&mut self) {
        while let Some((conn, word)) = self.registry.poll_word() {
            self.say(conn, word);
        }
    }

    fn say(&mut self, conn: ConnId, word: Word) {
        if let Word::Late(headers) = word {
            let known = self.outgoing.queue(conn).is_some();
            let count = if known { headers.len() as u64 } else { 0 };
            self.counters.returned += count;
            self.counters.returned_late += count;
            for header in &headers {
                self.outgoing.push(conn, header);
            }
            return;
        }
        let Some(queue) = self.outgoing.queue(conn) else {
            return;
        };
        match word {
            Word::Granted(taken) => queue.grant(taken),
            Word::Refused(owner) => {
                let reason = format!("the client pool overlaps that of copier {owner}");
                queue.refuse(Code::ClaimConflict, reason, owner);
            }
            Word::Others(ranges) => queue.others(&ranges),
            Word::Conflict(id) => queue.conflict(id),
            Word::Taken { flows, ended } => queue.taken(flows, ended),
            Word::Late(_) => {}
        }
    }

    fn capture_from(&mut self, index: usize) -> bool {
        let Self {
            sources,
            decoder,
            registry,
            outgoing,
            local,
            tracer,
            counters,
            leaves_said,
            began,
            ..
        } = self;
        let Some(source) = sources.get_mut(index) else {
            return false;
        };
        let now = began.elapsed();
        let mut leaves = false;
        let more = source.read(decoder, |packet, may_be_response| {
            if !may_be_response || local.contains(&packet.tuple.destination.ip) {
                counters.ignored += 1;
                let is_copys = || registry.find(&packet.tuple.reversed()).is_some();
                counters.clients_own += u64::from(may_be_response && is_copys());
                leaves |= !*leaves_said && !may_be_response && is_copys();
                return;
            }
            tracer.note_captured(packet.tuple.destination);
            let flow = packet.tuple.reversed();
            match registry.find(&flow) {
                Some((conn, key)) => {
                    counters.returned += 1;
                    let header = record(key, packet);
                    if registry.wants_payload(conn, key) {
                        let parts = outgoing.push_segment(conn, &header, packet.payload);
                        counters.returned += parts - 1;
                        counters.returned_payload += packet.payload.len() as u64;
                    } else {
                        outgoing.push(conn, &header);
                    }
                }
                None => registry.keep(now, flow, record(FlowKey::Id(0), packet)),
            }
        });
        if leaves && !std::mem::replace(leaves_said, true) {
            tracing::warn!(
                "this host sends answers to copied connections out of {}, instead of taking them in there: where the \
                 target itself runs, they reach real clients; run a router-agent here, and this interceptor with \
                 `--mode sink` in place of -i (docs/router-agent.md)",
                source.name()
            );
        }
        more
    }

    async fn sleep(&mut self, rest: &mut Rest) {
        if let Some(pause) = self.pace.rest(Instant::now(), GATHER) {
            // What was handed to the streams leaves first.
            yield_now().await;
            return std::thread::sleep(pause);
        }
        let open = self.sources.iter().filter_map(Source::fd);
        let of_others = [self.waker.as_fd()];
        let fds: Vec<(BorrowedFd<'_>, bool)> = open.chain(of_others).map(|fd| (fd, true)).collect();
        let waker = fds.len() - 1;
        match rest.until(&fds, LONGEST_SLEEP).await {
            Ok(readiness) => {
                self.suspect(|position| readiness.is_failed(position));
                if readiness.is_ready(waker) {
                    self.waker.clear();
                }
            }
            Err(error) => {
                tracing::error!("cannot wait for packets: {error}");
                tokio::time::sleep(LONGEST_SLEEP).await;
            }
        }
    }

    fn suspect(&mut self, has_failed: impl Fn(usize) -> bool) {
        // In the order in which they were waited for.
        let open = self.sources.iter_mut().filter(|one| one.fd().is_some());
        for (position, source) in open.enumerate() {
            if has_failed(position) {
                source.suspect();
            }
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        if now >= self.show_at {
            self.show_at = now + SHOW_INTERVAL;
            self.heart.beat();
            // A ring that fails while others keep this thread from sleeping is found here.
            for source in &mut self.sources {
                source.suspect();
            }
            for (source, task) in self.sources.iter().zip(&self.delivering) {
                task.set(source.delivers() || !self.registry.has_streams());
            }
            self.count_up();
            self.shared.set(self.counters);
        }
    }

    fn count_up(&mut self) {
        let (mut received, mut dropped) = (0, 0);
        for source in &mut self.sources {
            let (more_received, more_dropped) = source.counts();
            received += more_received;
            dropped += more_dropped;
        }
        let decode = self.decoder.counters();
        self.counters.captured = received;
        self.counters.capture_dropped = dropped;
        self.counters.malformed = decode.malformed;
        self.counters.dropped = self.outgoing.dropped();
        let counts = self.registry.counts();
        self.counters.unowned = counts.unowned;
        self.counters.waiting = counts.waiting as u64;
        self.counters.flows = counts.flows as u64;
        self.counters.flows_over_limit = counts.over_limit;
        self.counters.flow_conflicts = counts.conflicts;
        self.counters.claim_conflicts = counts.claim_conflicts;
    }
}

/// The header of a response, under the name that its owner has for the flow.
fn record(key: FlowKey, packet: &TcpPacket<'_>) -> HeaderRecord {
    let options = &packet.header.options;
    let mut sack = [(0, 0); 4];
    let blocks = options.sack.as_slice();
    for (to, (left, right)) in sack.iter_mut().zip(blocks) {
        *to = (left.0, right.0);
    }
    HeaderRecord {
        key,
        seq: packet.header.seq.0,
        ack: packet.header.ack.0,
        flags: packet.header.flags.0,
        window: packet.header.window,
        // A frame in memory is shorter than 4 GB.
        payload_len: packet.payload_len as u32,
        mss: options.mss,
        window_scale: options.window_scale,
        sack_permitted: options.sack_permitted,
        timestamps: options.timestamps,
        sack,
        // At most four.
        sack_count: blocks.len() as u8,
    }
}
