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
//! this host: an answer that is not diverted hits nobody. Once these are back one more bears a client's, which may not get
//! to the target where this host's does. Elsewhere each kind of clients (the live host's own
//! addresses, those in the target's network, others) is judged by itself, by one probe before there are more, since its
//! answers may go another way; what does not come back is refused. A target that falls silent later
//! ([`millrace_engine::Event::TargetSilent`]) is contacted anew.

mod own;
mod table;
pub mod verdict;
mod volley;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::SendErrorKind;
use millrace_engine::{ClientKind, Engine, FlowRef, SourcePool, Time};
use millrace_proto::TraceReport;
use millrace_wire::{Endpoint, FourTuple, TcpHeader};

use crate::route_info::{InterceptorId, RouteInfo};
pub use table::{ProbeState, ProbeStatus};
use verdict::Verdict;
use volley::{Bearing, Packet, Volley};

/// Pause before a volley is repeated: doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause before a volley is repeated.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// ... and where it may have reached real clients.
const LONGEST_CLIENTS_PAUSE: Duration = Duration::from_secs(60);
/// A target that falls silent within this time after it was opened does so again.
const SOON: Duration = Duration::from_secs(60);
/// How long this host's own address is believed to be the same.
const OWN_ADDRESS_BELIEVED: Duration = Duration::from_secs(1);
/// After so many volleys in vain sessions of a kind of clients that is judged by itself are refused.
const REFUSED_AFTER: u32 = 2;
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

/// A target's silence, as the engine tells it.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    /// Place of its service in the engine's list.
    pub service: usize,
    /// Whose answers are missing.
    pub kind: ClientKind,
    /// So many packets are unanswered ...
    pub unanswered: usize,
    /// ... of so many.
    pub of: u64,
}

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

/// One target, and one kind of clients: their answers may go other ways than those of others.
#[derive(Debug)]
struct Target {
    address: Endpoint,
    /// Places in the engine's list of services.
    services: Vec<usize>,
    kind: ClientKind,
    state: State,
    /// Whose addresses the probes of the last volley bore.
    bearing: Bearing,
    /// Whether agents keep answers from all clients, so that what is found stands for every kind.
    shared: bool,
    /// What the first of two volleys showed, which came back.
    halfway: Option<Verdict>,
    /// How often it fell silent soon after it was opened, and when it was.
    stops: u32,
    opened_at: Time,
    volleys: u32,
    /// Volleys since it was open.
    failed: u32,
    /// Addresses of clients of this kind.
    clients: VecDeque<IpAddr>,
    /// The address that this host has towards it, and until when that is believed.
    own: (Option<IpAddr>, Time),
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
        let kinds = match engine.config().sources {
            SourcePool::Clients => &ClientKind::ALL[..],
            SourcePool::Ranges(_) => &[ClientKind::Outside],
        };
        for (index, address) in services.into_iter().enumerate().filter(|_| enabled) {
            engine.set_target_open(now, index, false);
            let mut known = targets
                .iter_mut()
                .filter(|it| it.address == address)
                .peekable();
            if known.peek().is_some() {
                known.for_each(|target| target.services.push(index));
                continue;
            }
            targets.extend(kinds.iter().map(|kind| Target {
                address,
                services: vec![index],
                kind: *kind,
                state: State::Waiting(now),
                bearing: Bearing::Own,
                shared: false,
                halfway: None,
                stops: 0,
                opened_at: Time::default(),
                volleys: 0,
                failed: 0,
                clients: VecDeque::new(),
                own: (None, now),
                verdict: None,
                said_at: Time::default(),
            }));
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
        let mut for_all_kinds = None;
        for target in &mut self.targets {
            match &mut target.state {
                State::Proven => {}
                State::Waiting(at) => {
                    if now < *at || !may_begin(&mut self.open_since, now, routes) {
                        continue;
                    }
                    let own = guarded.then(|| target.own_address(now)).flatten();
                    // Where agents hold, one kind's volleys stand for all.
                    if own.is_none() || target.kind == ClientKind::Outside {
                        target.begin(now, &mut self.next_id, engine, routes, own);
                    }
                }
                State::Asking(volley) => {
                    let over = volley.advance(now, routes, !asked_after);
                    asked_after |= volley.is_asked_after();
                    if over {
                        self.farewells.extend(volley.take_resets());
                        let round_trip = volley.round_trip();
                        let open = target.conclude(now, engine, routes);
                        if open && target.shared {
                            for_all_kinds = Some((target.address, round_trip));
                        }
                    }
                }
            }
        }
        if let Some((address, round_trip)) = for_all_kinds {
            let others = self.targets.iter_mut().filter(|it| it.address == address);
            for target in others.filter(|it| matches!(it.state, State::Waiting(_))) {
                target.shared = true;
                target.open(now, engine, round_trip);
            }
        }
    }

    /// A target fell silent towards a kind of clients, and the engine sends it nothing of these any more: it is
    /// contacted anew. Where agents hold, no kind is different from the others.
    pub fn on_silence(&mut self, now: Time, engine: &mut Engine, silence: &Silence, guarded: bool) {
        let Some(address) = self
            .targets
            .iter()
            .find(|target| target.services.contains(&silence.service))
            .map(|target| target.address)
        else {
            return;
        };
        let mut said = false;
        for target in self.targets.iter_mut().filter(|it| it.address == address) {
            let concerned = guarded || target.kind == silence.kind;
            if !concerned || !matches!(target.state, State::Proven) {
                continue;
            }
            for service in &target.services {
                engine.stop_way(now, *service, target.kind);
            }
            target.stops = match now.since(target.opened_at) < SOON {
                true => target.stops + 1,
                false => 1,
            };
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(
                    "{}: it fell silent: {} of {} packets went unanswered. Its answers may reach real clients, so \
                     nothing is sent until probes show what is wrong",
                    target.name(),
                    silence.unanswered,
                    silence.of
                );
            }
            // The first time at once; what falls silent again and again is left alone for longer.
            let pause = match target.stops {
                0 | 1 => Duration::ZERO,
                stops => FIRST_PAUSE.saturating_mul(1 << stops.min(6)) / 4,
            };
            target.state = State::Waiting(now + pause.min(LONGEST_PAUSE));
            target.halfway = None;
            target.verdict = None;
        }
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

    /// All targets, for /status and the report: each once, and once more for each kind of clients that is judged by
    /// itself.
    pub fn status(&self) -> Vec<ProbeStatus> {
        let shown = |target: &&Target| target.kind == ClientKind::Outside || target.volleys > 0;
        let status = |target: &Target| ProbeStatus {
            target: target.address.to_string(),
            clients: target.clients_name(),
            state: match &target.state {
                State::Proven => ProbeState::Open,
                State::Asking(_) => ProbeState::Asking,
                State::Waiting(_) if target.verdict.is_some() => ProbeState::Failed,
                State::Waiting(_) => ProbeState::Waiting,
            },
            volleys: target.volleys,
            finding: target.verdict.as_ref().map(ToString::to_string),
        };
        self.targets.iter().filter(shown).map(status).collect()
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
        own: Option<IpAddr>,
    ) {
        let pool = engine.config().sources != SourcePool::Clients;
        if self.shared != own.is_some() {
            self.shared = own.is_some();
            self.halfway = None;
        }
        // With an address of this host first, then with a client's: what comes back to one may not get to the target
        // with the other (rp_filter, anti-spoofing). Without agents one probe before the others.
        let second = self.halfway.is_some();
        self.bearing = match pool || own.is_some() && !second {
            true => Bearing::Own,
            false => Bearing::Clients,
        };
        let interceptors = routes.connected();
        // Those that are away have real servers, too.
        let size = match (pool, second == own.is_some()) {
            (false, true) => 1,
            (true, _) | (_, false) => volley::size(interceptors.len() + routes.absent().len()),
        };
        let mut sources: Vec<Endpoint> = Vec::new();
        let client = match self.bearing {
            Bearing::Own => own,
            Bearing::Clients => self.client(engine),
        };
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
        let volley = Volley::begin(
            now,
            volley::Aim {
                target: self.address,
                nat: engine.config().nat,
                bearing: self.bearing,
            },
            first_id,
            &sources,
            interceptors,
        );
        for (id, tuple) in volley.flows() {
            routes.open(id, &tuple);
        }
        self.state = State::Asking(volley);
    }

    /// The address of this host that a probe may bear.
    fn own_address(&mut self, now: Time) -> Option<IpAddr> {
        let (known, until) = self.own;
        if now < until {
            return known;
        }
        let own = own::address_towards(self.address.ip);
        self.own = (own, now + OWN_ADDRESS_BELIEVED);
        own
    }

    /// Whose address the probes of the next volley bear, where they bear a client's: the way back may
    /// differ from client to client, so each volley asks for another one.
    fn client(&mut self, engine: &Engine) -> Option<IpAddr> {
        let kinds = match self.shared {
            true => &ClientKind::ALL[..],
            false => std::slice::from_ref(&self.kind),
        };
        for (service, kind) in self
            .services
            .iter()
            .flat_map(|it| kinds.iter().map(move |kind| (*it, *kind)))
        {
            for client in engine.waiting_clients(service, kind, CLIENTS) {
                if !self.clients.contains(&client) {
                    self.clients.push_back(client);
                }
            }
            // Of one that fell silent perhaps only sessions are left that are open.
            if self.clients.is_empty() && self.stops > 0 {
                self.clients.extend(engine.a_client(service, kind));
            }
        }
        while self.clients.len() > CLIENTS {
            self.clients.pop_front();
        }
        let turn = usize::try_from(self.volleys).unwrap_or(0);
        let turn = turn.checked_rem(self.clients.len())?;
        self.clients.get(turn).copied()
    }

    /// The volley is over. Says whether the target is open now.
    fn conclude(&mut self, now: Time, engine: &mut Engine, routes: &mut RouteInfo) -> bool {
        let State::Asking(volley) = &mut self.state else {
            return false;
        };
        for (id, _) in volley.flows() {
            routes.close(id);
        }
        let clients_own = engine.config().sources == SourcePool::Clients;
        let verdict = volley.verdict(routes, clients_own);
        let round_trip = volley.round_trip();
        let open = verdict.is_open();
        if open && clients_own && self.halfway.is_none() {
            self.halfway = Some(verdict);
            self.state = State::Waiting(now);
            return false;
        }
        // The volley with more probes has more to tell.
        let verdict = match self.halfway.take() {
            Some(first) if open && self.shared => first,
            Some(_) | None => verdict,
        };
        let changed = self.verdict.as_ref() != Some(&verdict);
        if changed || now >= self.said_at + SAY_AGAIN {
            self.said_at = now;
            match (open, verdict.is_doubtful()) {
                (true, false) => tracing::info!("{}: {verdict}", self.name()),
                (true, true) => tracing::warn!("{}: {verdict}", self.name()),
                (false, _) => tracing::warn!("{}: nothing is replayed yet: {verdict}", self.name()),
            }
        }
        let may_have_leaked = verdict.may_have_leaked();
        let explains_silence = verdict.explains_silence();
        self.verdict = Some(verdict);
        if open {
            for service in self.services.iter().filter(|_| explains_silence) {
                engine.tolerate_silence(*service);
            }
            self.open(now, engine, round_trip);
            return true;
        }
        let pause = match may_have_leaked && self.bearing == Bearing::Clients {
            // Each probe may have hit a client.
            true => {
                (FIRST_PAUSE.saturating_mul(2 << self.failed.min(6))).min(LONGEST_CLIENTS_PAUSE)
            }
            false => (FIRST_PAUSE.saturating_mul(1 << self.failed.min(6)) / 2).min(LONGEST_PAUSE),
        };
        self.state = State::Waiting(now + pause);
        // Their sessions would fill the memory that others need.
        if !self.shared && clients_own && self.failed >= REFUSED_AFTER {
            if self.failed == REFUSED_AFTER {
                tracing::warn!(
                    "{}: their sessions are refused until a probe comes back",
                    self.name()
                );
            }
            for service in &self.services {
                engine.refuse_way(now, *service, self.kind);
            }
        }
        false
    }

    fn open(&mut self, now: Time, engine: &mut Engine, round_trip: Duration) {
        self.state = State::Proven;
        self.failed = 0;
        self.opened_at = now;
        for service in &self.services {
            engine.note_round_trip(*service, round_trip);
            engine.set_way_open(now, *service, self.kind, true);
        }
    }

    /// How the log names it.
    fn name(&self) -> String {
        match self.clients_name() {
            Some(clients) => format!("target {}, clients {clients}", self.address),
            None => format!("target {}", self.address),
        }
    }

    /// The kind of clients that it is judged for, where others may be judged otherwise.
    fn clients_name(&self) -> Option<&'static str> {
        (!self.shared && self.bearing == Bearing::Clients).then(|| self.kind.name())
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
        let aim = volley::Aim {
            target: address,
            nat: false,
            bearing: Bearing::Own,
        };
        prober.targets[0].state = State::Asking(Volley::begin(now, aim, 1, &[client], vec![0]));
        // It is the second of two volleys.
        prober.targets[0].halfway = Some(Verdict::Refused { target: address });
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
        let mut targets = prober.targets.iter_mut();
        let outside = targets.find(|target| target.kind == ClientKind::Outside);
        let target = outside.unwrap();
        target.begin(now, &mut prober.next_id, &mut engine, &mut routes, None);
        let (_, tuple, _) = prober.poll_transmit().unwrap();
        assert_eq!(tuple.source.ip, client.ip);
    }
}
