//! First contact: nothing is replayed to a target until the answer to a probe has come back.
//!
//! A probe is a SYN that bears an address of the kind that replicas bear, and a RST once it is
//! answered: the application never sees it. (It may see one connection of this host, which is reset, beside probes that
//! nobody answers: `knock`.) A *volley* of them goes out, so that a director shows
//! several real servers. Probes that stay unanswered are asked after at every interceptor's host,
//! which finds the hop that is missing: see [`verdict`]. A target whose answers leave towards real
//! clients is never opened, nor is one some of whose probes went where no known host is, while these
//! bear addresses of clients. The volley is repeated until it is put right.
//!
//! Where router-agents keep responses from the clients, whichever clients these are, probes bear an address of
//! this host: an answer that is not diverted hits nobody. Once these are back one more bears a client's, which may not get
//! to the target where this host's does. Elsewhere each kind of clients (the live host's own
//! addresses, those in the target's network, others) is judged by itself, by one probe before there are more, since its
//! answers may go another way, and this host's own kernel asks the target beside probes that nobody answers (`knock`); what does not come back is refused. A target that falls silent later
//! ([`millrace_engine::Event::TargetSilent`]) is contacted anew.

pub mod knock;
mod own;
mod table;
mod target;
pub mod verdict;
mod volley;

use std::collections::VecDeque;
use std::time::Duration;

use millrace_capture::SendErrorKind;
use millrace_daemon::readiness::Readiness;
use millrace_engine::{ClientKind, Engine, FlowRef, Misdirection, SourcePool, TargetSilence, Time};
use millrace_proto::TraceReport;
use millrace_wire::{Endpoint, FourTuple, TcpHeader};

use crate::routes::Routes;
use millrace_routes::copier::InterceptorId;
use table::Ready;
pub use table::{ProbeState, ProbeStatus};
use target::{State, Target};
use verdict::Verdict;
use volley::{Bearing, Packet, Volley};

/// How long interceptors that are named and not connected yet are waited for before the first
/// volley: longer than a link takes that comes up at all. A volley that begins with some of them has
/// few probes, and proves little.
const GATHERING: Duration = Duration::from_secs(2);
/// Ids of replicas are larger (a slot map's version is never 0), so a probe's can be told.
const LARGEST_ID: u64 = u32::MAX as u64;

/// The probes of all targets.
#[derive(Debug)]
pub struct Prober {
    targets: Vec<Target>,
    ready: Ready,
    /// Resets of volleys that are over.
    farewells: VecDeque<Packet>,
    next_id: u64,
    /// Since when an answer could have come back.
    open_since: Option<Time>,
    now: Time,
}

impl Prober {
    /// Holds all targets of the engine back until their probes are answered; none with
    /// `enabled` off. Each is a part of the daemon's readiness.
    pub fn new(now: Time, engine: &mut Engine, enabled: bool, readiness: &Readiness) -> Self {
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
            targets.extend(
                kinds
                    .iter()
                    .map(|kind| Target::new(now, address, index, *kind)),
            );
        }
        Self {
            ready: Ready::register(readiness, &targets),
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
    pub fn advance(&mut self, now: Time, engine: &mut Engine, routes: &mut Routes, guarded: bool) {
        self.now = now;
        // An interceptor looks for one volley after the other, so they are asked after in turn.
        let mut asked_after = self.volleys().any(|volley| volley.is_asked_after());
        let mut for_all_kinds = None;
        for target in &mut self.targets {
            match &mut target.state {
                State::Proven | State::GivenUp => {}
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
                    // Where agents hold, or a pool is borne, this host's own address was probed already, or may be
                    // diverted.
                    if !target.shared && target.bearing == Bearing::Clients {
                        volley.knock();
                    }
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
    pub fn on_silence(
        &mut self,
        now: Time,
        engine: &mut Engine,
        silence: &TargetSilence,
        guarded: bool,
    ) {
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
            if !std::mem::replace(&mut said, true) {
                tracing::warn!(
                    "{}: it fell silent: {} of {} packets went unanswered. Its answers may reach real clients, so \
                     nothing is sent until probes show what is wrong",
                    target.name(),
                    silence.unanswered,
                    silence.of
                );
            }
            target.fell_silent(now);
        }
    }

    /// Copies came back as live traffic. Unless these are connections of the target's own, the engine sends it
    /// nothing any more, and nor does this.
    pub fn on_misdirected(
        &mut self,
        target: Endpoint,
        misdirection: Misdirection,
        routes: &mut Routes,
    ) {
        let verdict = Verdict::Misdirected(misdirection);
        if misdirection == Misdirection::TargetIsClient {
            tracing::warn!("target {target}: {verdict}");
            return;
        }
        tracing::error!("target {target}: copying to it is over: {verdict}");
        self.farewells
            .retain(|(_, tuple, _)| tuple.destination != target);
        for target in self.targets.iter_mut().filter(|it| it.address == target) {
            if let State::Asking(volley) = &target.state {
                for (id, _) in volley.flows() {
                    routes.close(id);
                }
            }
            target.state = State::GivenUp;
            target.verdict = Some(verdict.clone());
        }
    }

    /// When [`Prober::advance`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.targets
            .iter()
            .filter_map(|target| match &target.state {
                State::Proven | State::GivenUp => None,
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
                State::GivenUp => ProbeState::Misdirected,
                State::Asking(_) => ProbeState::Asking,
                State::Waiting(_) if target.verdict.is_some() => ProbeState::Failed,
                State::Waiting(_) => ProbeState::Waiting,
            },
            volleys: target.volleys,
            finding: target.verdict.as_ref().map(ToString::to_string),
        };
        self.targets.iter().filter(shown).map(status).collect()
    }

    /// Says which targets nothing can be copied to, as far as is known.
    pub fn show_readiness(&self) {
        self.ready.show(&self.targets);
    }

    fn volleys(&mut self) -> impl Iterator<Item = &mut Volley> {
        self.targets
            .iter_mut()
            .filter_map(|target| match &mut target.state {
                State::Asking(volley) => Some(volley.as_mut()),
                State::Waiting(_) | State::Proven | State::GivenUp => None,
            })
    }
}

/// Whether answers can come back, and through all interceptors that will be there soon.
fn may_begin(open_since: &mut Option<Time>, now: Time, routes: &Routes) -> bool {
    routes.is_open()
        && (now >= *open_since.get_or_insert(now) + GATHERING || routes.absent().is_empty())
}

#[cfg(test)]
mod tests {
    use millrace_engine::{Config, LiveAddress, Service};
    use millrace_wire::{Flags, Seq, TcpPacket};

    use super::verdict::Verdict;
    use super::volley::Bearing;
    use super::*;

    #[test]
    fn every_answered_probe_is_reset_though_its_volley_is_over() {
        let address = Endpoint::new("198.18.9.9".parse().unwrap(), 80);
        let mut engine = Engine::new(Config {
            services: vec![Service {
                live: LiveAddress::Host,
                live_port: 80,
                target: address,
            }],
            ..Config::default()
        });
        let now = Time::from_micros(1_000_000_000);
        let mut routes = Routes::default();
        let mut prober = Prober::new(now, &mut engine, true, &Readiness::new());
        let client = Endpoint::new("198.18.1.1".parse().unwrap(), 4000);
        let aim = volley::Aim {
            target: address,
            nat: false,
            bearing: Bearing::Own,
        };
        prober.targets[0].state =
            State::Asking(Box::new(Volley::begin(now, aim, 1, &[client], vec![0])));
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
            live: LiveAddress::Host,
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
        let mut routes = Routes::default();
        let mut prober = Prober::new(now, &mut engine, true, &Readiness::new());
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
