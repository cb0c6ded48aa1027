//! First contact: nothing is replayed to a target until the answer to a probe has come back.
//!
//! A probe is a SYN that bears an address of the kind that replicas bear, and a RST once it is
//! answered: the application never sees it. A *volley* of them goes out, so that a director shows
//! several real servers. Probes that stay unanswered are asked after at every interceptor's host,
//! which finds the hop that is missing: see [`verdict`]. A target whose answers leave towards real
//! clients is never opened, nor is one some of whose probes went where no known host is, while these
//! bear addresses of clients. The volley is repeated until it is put right.
//!
//! Where router-agents keep responses from the clients, whichever clients these are, probes bear an address of
//! this host: an answer that is not diverted hits nobody. A target that falls silent later
//! ([`millrace_engine::Event::TargetSilent`]) is contacted anew.

mod own;
mod table;
pub mod verdict;
mod volley;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::SendErrorKind;
use millrace_engine::{Engine, FlowRef, SourcePool, Time};
use millrace_proto::TraceReport;
use millrace_wire::{Endpoint, FourTuple, TcpHeader};

use crate::route_info::{InterceptorId, RouteInfo};
pub use table::{ProbeState, ProbeStatus};
use verdict::Verdict;
use volley::{Packet, Volley};

/// Pause before a volley is repeated: doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a volley is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long interceptors that are named and not connected yet are waited for before the first
/// volley: longer than a link takes that comes up at all. A volley that begins with some of them has
/// few probes, and proves little.
const GATHERING: Duration = Duration::from_secs(2);
/// How often an unchanged verdict is said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// So many clients' addresses are tried in turn.
const CLIENTS: usize = 32;
/// Ids of replicas are larger (a slot map's version is never 0), so a probe's can be told.
const LARGEST_ID: u64 = u32::MAX as u64;

/// What is known of one target.
#[derive(Debug)]
enum State {
    /// A volley is to begin; after this time.
    Waiting(Time),
    /// A volley is under way.
    Asking(Volley),
    /// Answers came back.
    Proven,
}

#[derive(Debug)]
struct Target {
    address: Endpoint,
    /// Places in the engine's list of services.
    services: Vec<usize>,
    state: State,
    volleys: u32,
    /// Volleys since it was open.
    failed: u32,
    verdict: Option<Verdict>,
    said_at: Time,
}

/// The probes of all targets.
#[derive(Debug)]
pub struct Prober {
    targets: Vec<Target>,
    /// Resets of volleys that are over.
    farewells: VecDeque<Packet>,
    next_id: u64,
    /// Since when an answer could have come back.
    open_since: Option<Time>,
    now: Time,
}

impl Prober {
    /// Holds all targets of the engine back until their probes are answered; none with
    /// `enabled` off.
    pub fn new(now: Time, engine: &mut Engine, enabled: bool) -> Self {
        let mut targets: Vec<Target> = Vec::new();
        let services: Vec<Endpoint> = engine.config().services.iter().map(|s| s.target).collect();
        for (index, address) in services.into_iter().enumerate().filter(|_| enabled) {
            engine.set_target_open(now, index, false);
            match targets.iter_mut().find(|target| target.address == address) {
                Some(target) => target.services.push(index),
                None => targets.push(Target {
                    address,
                    services: vec![index],
                    state: State::Waiting(now),
                    volleys: 0,
                    failed: 0,
                    verdict: None,
                    said_at: Time::default(),
                }),
            }
        }
        Self {
            targets,
            farewells: VecDeque::new(),
            next_id: 1,
            open_since: None,
            now,
        }
    }

    /// Whether an id is that of a probe.
    pub const fn is_probe(id: u64) -> bool {
        id <= LARGEST_ID
    }

    /// Begins and ends volleys. To be called often: it costs little while nothing is due. `guarded` says that
    /// router-agents keep responses from the clients, whichever these are.
    pub fn advance(
        &mut self,
        now: Time,
        engine: &mut Engine,
        routes: &mut RouteInfo,
        guarded: bool,
    ) {
        self.now = now;
        // An interceptor looks for one volley after the other, so they are asked after in turn.
        let mut asked_after = self.volleys().any(|volley| volley.is_asked_after());
        for target in &mut self.targets {
            match &mut target.state {
                State::Proven => {}
                State::Waiting(at) => {
                    if now >= *at && may_begin(&mut self.open_since, now, routes) {
                        target.begin(now, &mut self.next_id, engine, routes, guarded);
                    }
                }
                State::Asking(volley) => {
                    let over = volley.advance(now, routes, !asked_after);
                    asked_after |= volley.is_asked_after();
                    if over {
                        self.farewells.extend(volley.take_resets());
                        target.conclude(now, engine, routes);
                    }
                }
            }
        }
    }

    /// A target fell silent, and the engine sends it nothing any more: it is contacted anew.
    pub fn on_silence(
        &mut self,
        now: Time,
        engine: &mut Engine,
        service: usize,
        unanswered: usize,
        of: u64,
    ) {
        let Some(target) = self
            .targets
            .iter_mut()
            .find(|target| target.services.contains(&service))
        else {
            return;
        };
        for service in &target.services {
            engine.set_target_open(now, *service, false);
        }
        if !matches!(target.state, State::Proven) {
            return;
        }
        tracing::warn!(
            "target {}: it fell silent: {unanswered} of {of} packets went unanswered. Its answers may reach real \
             clients, so nothing is sent until probes show what is wrong",
            target.address
        );
        target.state = State::Waiting(now);
        target.verdict = None;
    }

    /// When [`Prober::advance`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.targets
            .iter()
            .filter_map(|target| match &target.state {
                State::Proven => None,
                // One that is due waits for a client or an interceptor, which wake the caller.
                State::Waiting(at) => Some(*at).filter(|at| *at > self.now),
                State::Asking(volley) => Some(volley.due()),
            })
            .min()
    }

    /// The next packet to send: its id for [`Prober::on_send_failure`], ends and header.
    pub fn poll_transmit(&mut self) -> Option<(u64, FourTuple, TcpHeader)> {
        let farewell = self.farewells.pop_front();
        farewell.or_else(|| self.volleys().find_map(Volley::poll_transmit))
    }

    /// A response header came from an interceptor. Says whether it belongs to a probe.
    pub fn on_header(
        &mut self,
        now: Time,
        interceptor: InterceptorId,
        flow: FlowRef,
        header: &TcpHeader,
    ) -> bool {
        let mine = self
            .volleys()
            .any(|volley| volley.on_header(now, interceptor, flow, header));
        mine || matches!(flow, FlowRef::Id(id) if Self::is_probe(id))
    }

    /// An interceptor's host says what it saw.
    pub fn on_traced(&mut self, interceptor: InterceptorId, report: &TraceReport) {
        for volley in self.volleys() {
            volley.on_traced(interceptor, report);
        }
    }

    /// A probe could not be sent.
    pub fn on_send_failure(&mut self, id: u64, kind: SendErrorKind, errno: i32) {
        for volley in self.volleys() {
            volley.on_send_failure(id, kind, errno);
        }
    }

    /// All targets, for /status and the report.
    pub fn status(&self) -> Vec<ProbeStatus> {
        let target = |target: &Target| ProbeStatus {
            target: target.address.to_string(),
            state: match &target.state {
                State::Proven => ProbeState::Open,
                State::Asking(_) => ProbeState::Asking,
                State::Waiting(_) if target.verdict.is_some() => ProbeState::Failed,
                State::Waiting(_) => ProbeState::Waiting,
            },
            volleys: target.volleys,
            finding: target.verdict.as_ref().map(ToString::to_string),
        };
        self.targets.iter().map(target).collect()
    }

    fn volleys(&mut self) -> impl Iterator<Item = &mut Volley> {
        self.targets
            .iter_mut()
            .filter_map(|target| match &mut target.state {
                State::Asking(volley) => Some(volley),
                State::Waiting(_) | State::Proven => None,
            })
    }
}

/// Whether answers can come back, and through all interceptors that will be there soon.
fn may_begin(open_since: &mut Option<Time>, now: Time, routes: &RouteInfo) -> bool {
    routes.is_open()
        && (now >= *open_since.get_or_insert(now) + GATHERING || routes.absent().is_empty())
}

impl Target {
    fn begin(
        &mut self,
        now: Time,
        next_id: &mut u64,
        engine: &mut Engine,
        routes: &mut RouteInfo,
        guarded: bool,
    ) {
        let interceptors = routes.connected();
        // Those that are away have real servers, too.
        let size = volley::size(interceptors.len() + routes.absent().len());
        let mut sources: Vec<Endpoint> = Vec::new();
        let own = guarded.then(|| own::address_towards(self.address.ip));
        let client = own.flatten().or_else(|| self.client(engine));
        for attempt in 0..2 * size {
            let at = now + Duration::from_micros(attempt as u64);
            let mut services = self.services.iter();
            match services.find_map(|service| engine.probe_source(at, *service, client)) {
                Some(source) if !sources.contains(&source) => sources.push(source),
                Some(_) => {}
                None => break,
            }
            if sources.len() == size {
                break;
            }
        }
        if sources.is_empty() {
            return;
        }
        self.volleys += 1;
        self.failed += 1;
        let first_id = *next_id;
        *next_id += sources.len() as u64;
        if *next_id > LARGEST_ID / 2 {
            *next_id = 1;
        }
        let nat = engine.config().nat;
        let volley = Volley::begin(now, self.address, nat, first_id, &sources, interceptors);
        for (id, tuple) in volley.flows() {
            routes.open(id, &tuple);
        }
        self.state = State::Asking(volley);
    }

    /// Whose address the probes of the next volley bear, where they bear a client's: the way back may
    /// differ from client to client, so each volley asks for another one.
    fn client(&self, engine: &Engine) -> Option<IpAddr> {
        let mut clients: Vec<IpAddr> = Vec::new();
        for service in &self.services {
            clients.extend(engine.waiting_clients(*service, CLIENTS));
        }
        let turn = usize::try_from(self.volleys).unwrap_or(0);
        let turn = turn.checked_rem(clients.len())?;
        clients.get(turn).copied()
    }

    fn conclude(&mut self, now: Time, engine: &mut Engine, routes: &mut RouteInfo) {
        let State::Asking(volley) = &mut self.state else {
            return;
        };
        for (id, _) in volley.flows() {
            routes.close(id);
        }
        let clients_own = engine.config().sources == SourcePool::Clients;
        let verdict = volley.verdict(routes, clients_own);
        let open = verdict.is_open();
        let changed = self.verdict.as_ref() != Some(&verdict);
        if changed || now >= self.said_at + SAY_AGAIN {
            self.said_at = now;
            match (open, verdict.is_doubtful()) {
                (true, false) => tracing::info!("target {}: {verdict}", self.address),
                (true, true) => tracing::warn!("target {}: {verdict}", self.address),
                (false, _) => tracing::warn!(
                    "target {}: nothing is replayed yet: {verdict}",
                    self.address
                ),
            }
        }
        self.verdict = Some(verdict);
        if open {
            let round_trip = volley.round_trip();
            self.state = State::Proven;
            self.failed = 0;
            for service in &self.services {
                engine.note_round_trip(*service, round_trip);
                engine.set_target_open(now, *service, true);
            }
            return;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failed.min(6)) / 2;
        self.state = State::Waiting(now + pause.min(LONGEST_PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use millrace_engine::{Config, Service};
    use millrace_wire::{Flags, Seq, TcpPacket};

    use super::*;

    #[test]
    fn every_answered_probe_is_reset_though_its_volley_is_over() {
        let address = Endpoint::new("198.18.9.9".parse().unwrap(), 80);
        let mut engine = Engine::new(Config {
            services: vec![Service {
                live_ip: None,
                live_port: 80,
                target: address,
            }],
            ..Config::default()
        });
        let now = Time::from_micros(1_000_000_000);
        let mut routes = RouteInfo::default();
        let mut prober = Prober::new(now, &mut engine, true);
        let client = Endpoint::new("198.18.1.1".parse().unwrap(), 4000);
        prober.targets[0].state =
            State::Asking(Volley::begin(now, address, false, 1, &[client], vec![0]));
        let (id, _, syn) = prober.poll_transmit().unwrap();
        let answer = TcpHeader {
            ack: syn.seq.add(1),
            flags: Flags::SYN | Flags::ACK,
            ..TcpHeader::default()
        };
        assert!(prober.on_header(now, 0, FlowRef::Id(id), &answer));
        prober.advance(now, &mut engine, &mut routes, false);
        assert!(matches!(prober.targets[0].state, State::Proven));
        let (_, tuple, reset) = prober.poll_transmit().unwrap();
        assert_eq!((tuple.source, reset.flags), (client, Flags::RST));
        assert_eq!(reset.seq, syn.seq.add(1));
        assert_ne!(reset.seq, Seq(0));
        assert!(prober.poll_transmit().is_none());
    }

    #[test]
    fn of_several_services_with_one_target_any_may_have_the_first_client() {
        let address = Endpoint::new("198.18.9.9".parse().unwrap(), 80);
        let service = |live_port| Service {
            live_ip: None,
            live_port,
            target: address,
        };
        let live = Endpoint::new("198.18.2.10".parse().unwrap(), 81);
        let mut engine = Engine::new(Config {
            services: vec![service(80), service(81)],
            local_addresses: vec![live.ip],
            ..Config::default()
        });
        let now = Time::from_micros(1_000_000_000);
        let mut routes = RouteInfo::default();
        let mut prober = Prober::new(now, &mut engine, true);
        let client = Endpoint::new("198.18.1.1".parse().unwrap(), 4000);
        let there = FourTuple::new(client, live);
        for (tuple, seq, ack, flags) in [
            (there, 100, 0, Flags::SYN),
            (there.reversed(), 500, 101, Flags::SYN | Flags::ACK),
            (there, 101, 501, Flags::ACK),
        ] {
            let packet = TcpPacket {
                tuple,
                header: TcpHeader {
                    seq: Seq(seq),
                    ack: Seq(ack),
                    flags,
                    window: 1000,
                    ..TcpHeader::default()
                },
                payload: &[],
                payload_len: 0,
            };
            engine.segment(now, now, &packet);
        }
        assert_eq!(engine.gauges().replicas_waiting, 1);
        let target = &mut prober.targets[0];
        target.begin(now, &mut prober.next_id, &mut engine, &mut routes, false);
        let (_, tuple, _) = prober.poll_transmit().unwrap();
        assert_eq!(tuple.source.ip, client.ip);
    }
}
