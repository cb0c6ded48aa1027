//! The worker: one thread that owns the sources of responses and knows who owns which flow.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use millrace_capture::{Pace, Waker, sleep_precisely, wait};
use millrace_channel::server::{AttachEvent, AttachEvents, ConnId};
use millrace_daemon::drain::{DrainWatch, Stage};
use millrace_daemon::readiness::{Readiness, Task};
use millrace_proto::flow::MAX_FLOW_BYTES;
use millrace_proto::v1::refused::Code;
use millrace_proto::{BATCH_BYTES, FlowKey, HeaderRecord};
use millrace_wire::{Decoder, FourTuple, TcpPacket};

use crate::claims::Word;
use crate::counters::{Counters, Shared};
use crate::outgoing::Outgoing;
use crate::owners::{self, Owners};
use crate::pending::Pending;
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
}

/// The worker.
pub struct Worker {
    sources: Vec<Source>,
    /// Whether each source delivers, in the same order.
    delivering: Vec<Task>,
    decoder: Decoder,
    owners: Owners,
    pending: Pending,
    outgoing: Outgoing,
    events: AttachEvents,
    local: HashSet<IpAddr>,
    waker: Waker,
    drain: DrainWatch,
    shared: Shared,
    tracer: Tracer,
    counters: Counters,
    show_at: Instant,
    pace: Pace,
    /// Whether it was said that answers leave this host.
    leaves_said: bool,
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
            owners: Owners::new(parts.max_flows),
            pending: Pending::default(),
            outgoing: Outgoing::default(),
            events: parts.events,
            local: parts.local,
            waker: parts.waker,
            drain: parts.drain,
            shared: parts.shared,
            counters: Counters::default(),
            show_at: now,
            pace: Pace::prompt(LOOKS_A_SECOND),
            leaves_said: false,
        }
    }

    /// Works until it is told to end; gives the final counters.
    pub fn run(mut self) -> Counters {
        sleep_precisely();
        // There is nothing to drain: sessions are the copiers', and live through a restart.
        while self.drain.stage() == Stage::Running {
            let mut more = self.take_route_info();
            for index in 0..self.sources.len() {
                more |= self.capture_from(index);
            }
            self.pending.expire(Instant::now());
            if self.outgoing.flush(&self.owners) {
                self.pace.looked(Instant::now());
            }
            self.show();
            if !more {
                self.sleep();
            }
        }
        self.outgoing.flush(&self.owners);
        self.count_up();
        self.shared.set(self.counters);
        self.counters
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
        match event {
            AttachEvent::Attached { conn, who } => self.owners.attach(conn, who),
            AttachEvent::Detached { conn } => {
                let words = self.owners.detach(conn);
                self.outgoing.detach(conn);
                self.say(words);
            }
            AttachEvent::Announce { conn, flows, .. } => {
                let tuples: Vec<_> = self.owners.announce(conn, &flows).collect();
                self.say_taken(conn, &tuples, false);
                if self.pending.is_empty() {
                    return;
                }
                for tuple in tuples {
                    if owners::is_any_target(&tuple) {
                        let late = self.pending.take_client(tuple.source);
                        self.return_each(late);
                    } else {
                        let late = self.pending.take(&tuple);
                        self.return_late(&tuple, late);
                    }
                }
            }
            AttachEvent::Forget { conn, ids, .. } => {
                let gone = self.owners.forget(conn, &ids);
                self.say_taken(conn, &gone, true);
            }
            AttachEvent::Trace { conn, request } => {
                if let Some(who) = self.owners.stream(conn) {
                    self.tracer.ask(request, who.queue.clone());
                }
            }
            AttachEvent::ResyncBegin { conn } => self.owners.begin_resync(conn),
            AttachEvent::ResyncEnd { conn } => {
                let gone = self.owners.end_resync(conn);
                self.say_taken(conn, &gone, true);
            }
            AttachEvent::Claim { conn, claim } => match self.owners.claim(conn, claim) {
                Ok(words) => {
                    self.say(words);
                    let awaited = self.owners.awaited(conn);
                    if let Some(who) = self.owners.stream(conn).filter(|_| !awaited.is_empty()) {
                        tracing::info!(
                            "copier {} waits for its share of the client pool until copier {} has yielded it",
                            who.copier_id,
                            awaited.join(", ")
                        );
                    }
                    let owners = &self.owners;
                    let late = self.pending.take_if(|flow| owners.find(flow).is_some());
                    self.return_each(late);
                }
                Err(conflict) => {
                    self.counters.claim_conflicts += 1;
                    if let Some(who) = self.owners.stream(conn) {
                        let owner = conflict.owner;
                        tracing::warn!(
                            "refused the client pool of copier {}: copier {owner} holds a part of it",
                            who.copier_id
                        );
                        let reason = format!("the client pool overlaps that of copier {owner}");
                        who.queue.refuse(Code::ClaimConflict, reason, owner);
                    }
                }
            },
        }
    }

    /// Tells those in whose shares these flows of another copier lie.
    fn say_taken(&self, conn: ConnId, flows: &[FourTuple], ended: bool) {
        let tell = |share: ConnId, records: Vec<u8>| {
            if let Some(who) = self.owners.stream(share) {
                who.queue.taken(records, ended);
            }
        };
        let mut batches: HashMap<ConnId, Vec<u8>> = HashMap::new();
        for flow in flows {
            if let Some((share, record)) = self.owners.intruded_by(conn, flow) {
                let batch = batches.entry(share).or_default();
                batch.extend(record);
                if batch.len() + MAX_FLOW_BYTES > BATCH_BYTES {
                    tell(share, std::mem::take(batch));
                }
            }
        }
        for (share, rest) in batches {
            tell(share, rest);
        }
    }

    /// Tells streams what has become of claims.
    fn say(&self, words: Vec<Word>) {
        for word in words {
            match word {
                Word::Granted(conn) => {
                    if let Some(who) = self.owners.stream(conn) {
                        who.queue.grant(self.owners.taken_within(conn));
                    }
                }
                Word::Others(conn, ranges) => {
                    if let Some(who) = self.owners.stream(conn) {
                        who.queue.others(&ranges);
                    }
                }
            }
        }
    }

    fn return_each(&mut self, flows: Vec<(FourTuple, Vec<HeaderRecord>)>) {
        for (flow, late) in flows {
            self.return_late(&flow, late);
        }
    }

    /// Returns headers of a flow whose owner has become known.
    fn return_late(&mut self, flow: &FourTuple, late: Vec<HeaderRecord>) {
        // A replica that moved twice within one message has none: nobody waits for its first flow.
        let Some((conn, key)) = self.owners.find(flow) else {
            return;
        };
        for header in late {
            self.counters.returned += 1;
            self.counters.returned_late += 1;
            self.outgoing
                .push(&self.owners, conn, &HeaderRecord { key, ..header });
        }
    }

    fn capture_from(&mut self, index: usize) -> bool {
        let Self {
            sources,
            decoder,
            owners,
            pending,
            outgoing,
            local,
            tracer,
            counters,
            leaves_said,
            ..
        } = self;
        let Some(source) = sources.get_mut(index) else {
            return false;
        };
        let now = Instant::now();
        let mut leaves = false;
        let more = source.read(decoder, |packet, may_be_response| {
            if !may_be_response || local.contains(&packet.tuple.destination.ip) {
                counters.ignored += 1;
                leaves |= !*leaves_said
                    && !may_be_response
                    && owners.find(&packet.tuple.reversed()).is_some();
                return;
            }
            tracer.note_captured(packet.tuple.destination);
            let flow = packet.tuple.reversed();
            match owners.find(&flow) {
                Some((conn, key)) => {
                    counters.returned += 1;
                    outgoing.push(owners, conn, &record(key, packet));
                }
                None => pending.keep(now, flow, record(FlowKey::Id(0), packet)),
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

    fn sleep(&mut self) {
        if let Some(rest) = self.pace.rest(Instant::now(), GATHER) {
            return std::thread::sleep(rest);
        }
        let mut fds: Vec<BorrowedFd<'_>> = self.sources.iter().filter_map(Source::fd).collect();
        fds.push(self.waker.as_fd());
        let waker = fds.len() - 1;
        match wait(&fds, Some(LONGEST_SLEEP)) {
            Ok(readiness) => {
                // In the order of `fds`.
                let open = self.sources.iter_mut().filter(|one| one.fd().is_some());
                for (position, source) in open.enumerate() {
                    if readiness.is_failed(position) {
                        source.suspect();
                    }
                }
                if readiness.is_ready(waker) {
                    self.waker.clear();
                }
            }
            Err(error) => {
                tracing::error!("cannot wait for packets: {error}");
                std::thread::sleep(LONGEST_SLEEP);
            }
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        if now >= self.show_at {
            self.show_at = now + SHOW_INTERVAL;
            // A ring that fails while others keep this thread from sleeping is found here.
            for source in &mut self.sources {
                source.suspect();
            }
            for (source, task) in self.sources.iter().zip(&self.delivering) {
                task.set(source.delivers() || !self.owners.has_streams());
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
        self.counters.unowned = self.pending.expired();
        self.counters.waiting = self.pending.len() as u64;
        self.counters.flows = self.owners.flow_count() as u64;
        self.counters.flows_over_limit = self.owners.over_limit_count();
        self.counters.flow_conflicts = self.owners.conflict_count();
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
