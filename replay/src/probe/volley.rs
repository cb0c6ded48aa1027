//! Some probes to one target, from their first SYN to what they showed.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::SendErrorKind;
use millrace_engine::{FlowRef, Time};
use millrace_proto::trace::MAX_PROBES;
use millrace_proto::{TraceReport, TraceRequest};
use millrace_wire::{Endpoint, Flags, FourTuple, Seq, TcpHeader, TcpOptions};

use super::knock::Knocking;
use super::verdict::{Evidence, Verdict};
use crate::routes::Routes;
use millrace_routes::copier::InterceptorId;

/// Probes for each interceptor: a director that spreads by hash shows each of its real servers
/// with a probability of about 98%.
const PER_INTERCEPTOR: usize = 4;
/// SYNs are sent again after these times while they are unanswered.
const SEND_AGAIN: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(300)];
/// When the interceptors' hosts are asked.
const ASK_AFTER: Duration = Duration::from_millis(400);
/// SYNs that go out while those hosts look, after the question.
/// They may have to look for another copier's probes first.
const SHOW_AGAIN: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(700),
    Duration::from_millis(1400),
    Duration::from_millis(2000),
];
/// How long those hosts look.
const LOOK: Duration = Duration::from_millis(1000);
/// A volley ends this long after the question, whoever has answered.
const END_AFTER: Duration = Duration::from_millis(3000);
/// How soon it is looked again whether the interceptors may be asked.
const TURN: Duration = Duration::from_millis(50);
/// Maximum segment size that a probe offers, as any host on an Ethernet would. Bytes.
const MSS: u16 = 1460;

/// How many probes a volley has.
pub(super) fn size(interceptors: usize) -> usize {
    (PER_INTERCEPTOR * interceptors.max(1)).min(MAX_PROBES)
}

#[derive(Debug)]
struct Probe {
    id: u64,
    tuple: FourTuple,
    iss: Seq,
    answered_by: Option<InterceptorId>,
    refused: bool,
}

/// Whose addresses probes bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bearing {
    /// This host's own, or a pool's: an answer that is not diverted hits no client.
    Own,
    /// Those of clients. Few probes go out.
    Clients,
}

/// What probes are sent to, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub(super) target: Endpoint,
    /// The target's address changes on the way.
    pub(super) nat: bool,
    pub(super) bearing: Bearing,
}

/// A packet to send: its id, ends and header.
pub(super) type Packet = (u64, FourTuple, TcpHeader);

/// The probes of one volley.
#[derive(Debug)]
pub(super) struct Volley {
    aim: Aim,
    probes: Vec<Probe>,
    /// The interceptors that were connected when it began.
    interceptors: Vec<InterceptorId>,
    began: Time,
    /// When the first SYNs went out, and how long the first answer took.
    first_sent: Time,
    round_trip: Option<Duration>,
    /// Steps of the schedule that are behind it.
    step: usize,
    trace: u64,
    /// The probes that hosts were asked after, by the numbers that they go by there.
    asked_after: Vec<u64>,
    reports: Vec<(InterceptorId, TraceReport)>,
    unsent: Option<(SendErrorKind, i32)>,
    /// What the target says to this host's own kernel, once it is asked.
    knocking: Option<Knocking>,
    outgoing: VecDeque<Packet>,
}

/// What is done at one time after the begin of a volley.
#[derive(Clone, Copy)]
enum Step {
    Send,
    Ask,
    End,
}

const SCHEDULE: [(Duration, Step); 8] = [
    (SEND_AGAIN[0], Step::Send),
    (SEND_AGAIN[1], Step::Send),
    (ASK_AFTER, Step::Ask),
    (ASK_AFTER.saturating_add(SHOW_AGAIN[0]), Step::Send),
    (ASK_AFTER.saturating_add(SHOW_AGAIN[1]), Step::Send),
    (ASK_AFTER.saturating_add(SHOW_AGAIN[2]), Step::Send),
    (ASK_AFTER.saturating_add(SHOW_AGAIN[3]), Step::Send),
    (ASK_AFTER.saturating_add(END_AFTER), Step::End),
];

impl Volley {
    pub(super) fn begin(
        now: Time,
        aim: Aim,
        first_id: u64,
        sources: &[Endpoint],
        interceptors: Vec<InterceptorId>,
    ) -> Self {
        let probe = |(id, source): (u64, &Endpoint)| Probe {
            id,
            tuple: FourTuple::new(*source, aim.target),
            // A clock, as RFC 9293 3.4.1 has it: later connections of the flow are above it.
            iss: Seq((now.as_micros() / 4) as u32),
            answered_by: None,
            refused: false,
        };
        let mut volley = Self {
            aim,
            probes: (first_id..).zip(sources).map(probe).collect(),
            interceptors,
            began: now,
            first_sent: now,
            round_trip: None,
            step: 0,
            trace: first_id,
            asked_after: Vec::new(),
            reports: Vec::new(),
            unsent: None,
            knocking: None,
            outgoing: VecDeque::new(),
        };
        volley.send();
        volley
    }

    /// The source and number of each SYN.
    pub(super) fn syns(&self) -> impl Iterator<Item = (Endpoint, Seq)> {
        let syn = |probe: &Probe| (probe.tuple.source, probe.iss);
        self.probes.iter().map(syn)
    }

    /// The probes' flows, under their ids.
    pub(super) fn flows(&self) -> impl Iterator<Item = (u64, FourTuple)> {
        self.probes.iter().map(|probe| (probe.id, probe.tuple))
    }

    /// Does what is due. Says whether the volley is over. The interceptors are asked once they
    /// `may_be_asked`; until then the volley stands still.
    pub(super) fn advance(&mut self, now: Time, routes: &Routes, may_be_asked: bool) -> bool {
        if self.is_complete() {
            return true;
        }
        while let Some((after, step)) = SCHEDULE.get(self.step)
            && let due = self.began + *after
            && now >= due
        {
            // A step that is late, because this process stood still, delays those after it: hosts
            // must have their time to look and to answer.
            self.began = self.began + now.since(due);
            if matches!(step, Step::Ask) && !may_be_asked {
                self.began = self.began + TURN;
                return false;
            }
            self.step += 1;
            match step {
                Step::Send if self.aim.bearing == Bearing::Clients && spared(self.step) => {}
                Step::Send => self.send(),
                Step::Ask => self.ask(routes),
                Step::End => {
                    self.reset_unanswered();
                    return true;
                }
            }
        }
        false
    }

    /// When [`Volley::advance`] is to be called next.
    pub(super) fn due(&self) -> Time {
        if self.is_complete() {
            return self.began;
        }
        let next = SCHEDULE.get(self.step);
        next.map_or(self.began, |(after, _)| self.began + *after)
    }

    pub(super) fn poll_transmit(&mut self) -> Option<Packet> {
        self.outgoing.pop_front()
    }

    /// How long the first answer took, at most: it may be one to a SYN that was sent again.
    pub(super) fn round_trip(&self) -> Duration {
        self.round_trip.unwrap_or_default()
    }

    /// The resets that are still to be sent when the volley is over.
    pub(super) fn take_resets(&mut self) -> impl Iterator<Item = Packet> + use<> {
        let outgoing = std::mem::take(&mut self.outgoing);
        let is_reset = |(_, _, header): &Packet| header.flags.has(Flags::RST);
        outgoing.into_iter().filter(is_reset)
    }

    /// Has this host's own kernel ask the target, too, while interceptors look for the probes.
    pub(super) fn knock(&mut self) {
        if self.is_asked_after() && self.knocking.is_none() {
            self.knocking = Some(Knocking::at(self.aim.target));
        }
    }

    /// Whether interceptors are looking for its probes.
    pub(super) fn is_asked_after(&self) -> bool {
        self.step > ASK_STEP && !self.is_complete()
    }

    /// Takes in an answer. Says whether it is one.
    pub(super) fn on_header(
        &mut self,
        now: Time,
        interceptor: InterceptorId,
        flow: FlowRef,
        header: &TcpHeader,
    ) -> bool {
        let nat = self.aim.nat;
        let is_its = |probe: &&mut Probe| match flow {
            FlowRef::Id(id) => probe.id == id,
            // Behind address translation the target's side is another one. Elsewhere a replica
            // or probe of another target may bear the same source.
            FlowRef::Tuple(tuple) if nat => probe.tuple.source == tuple.source,
            FlowRef::Tuple(tuple) => probe.tuple == tuple,
        };
        let Some(probe) = self.probes.iter_mut().find(is_its) else {
            return false;
        };
        let syn = header.flags.has(Flags::SYN);
        let reset = header.flags.has(Flags::RST);
        let mine = header.ack == probe.iss.add(1);
        if (syn || reset) && mine && probe.answered_by.is_none() {
            probe.answered_by = Some(interceptor);
            self.round_trip.get_or_insert(now.since(self.first_sent));
            probe.refused = reset;
            if syn {
                let reset = reset_of(probe);
                self.outgoing.push_back(reset);
            }
        }
        true
    }

    pub(super) fn on_traced(&mut self, interceptor: InterceptorId, report: &TraceReport) {
        // One that came later was asked too: it must not stand for one that is still looking.
        let asked = self.interceptors.contains(&interceptor);
        let known = self.reports.iter().any(|(id, _)| *id == interceptor);
        if report.id == self.trace && asked && !known {
            self.reports.push((interceptor, report.clone()));
        }
    }

    pub(super) fn on_send_failure(&mut self, id: u64, kind: SendErrorKind, errno: i32) {
        if self.probes.iter().any(|probe| probe.id == id) {
            self.unsent = Some((kind, errno));
        }
    }

    /// What it showed, where probes bear addresses of `clients_own` or of a pool. Those with this host's own address may
    /// have come back just before.
    pub(super) fn verdict(
        &self,
        routes: &Routes,
        clients_own: bool,
        own_came_back: bool,
    ) -> Verdict {
        let name = |id: &InterceptorId| routes.name(*id).unwrap_or_else(|| format!("#{id}"));
        let silent = self
            .interceptors
            .iter()
            .filter(|id| !self.probes.iter().any(|p| p.answered_by == Some(**id)));
        let refused = || self.answered().filter(|probe| probe.refused);
        let refusing: BTreeSet<_> = refused().filter_map(|probe| probe.answered_by).collect();
        Verdict::of(&Evidence {
            target: self.aim.target,
            client: self.shown_address(),
            probes: self.probes.len(),
            answered: self.answered().count(),
            refused: refused().count(),
            refusing: refusing.iter().map(name).collect(),
            silent: silent.map(name).collect(),
            asked: self.interceptors.iter().map(name).collect(),
            absent: routes.absent().iter().map(name).collect(),
            clients_own,
            came_in: self.came_in(),
            reports: self
                .reports
                .iter()
                .map(|(id, report)| (name(id), report))
                .collect(),
            unsent: self.unsent,
            knock: self.knocking.as_ref().and_then(Knocking::result),
            own_came_back,
        })
    }

    /// The address of a probe, an unanswered one if there is one, for the commands that show its way.
    fn shown_address(&self) -> Option<IpAddr> {
        let mut probes = self.probes.iter();
        let unanswered = probes.find(|probe| probe.answered_by.is_none());
        let probe = unanswered.or(self.probes.first())?;
        let ip = probe.tuple.source.ip;
        match self.aim.bearing {
            Bearing::Own => Some(ip),
            Bearing::Clients => {
                tracing::debug!("target {}: CLIENT is {ip}", self.aim.target);
                None
            }
        }
    }

    /// How many of the probes that nobody has answered came in at a host. Hosts may have seen others,
    /// which were answered since they were asked.
    fn came_in(&self) -> usize {
        let sights = self.reports.iter().flat_map(|(_, report)| &report.sights);
        let seen: HashSet<u64> = sights
            .filter_map(|sight| self.asked_after.get(usize::try_from(sight.client).ok()?))
            .copied()
            .collect();
        let missing = self.probes.iter().filter(|it| it.answered_by.is_none());
        missing.filter(|probe| seen.contains(&probe.id)).count()
    }

    fn answered(&self) -> impl Iterator<Item = &Probe> {
        self.probes
            .iter()
            .filter(|probe| probe.answered_by.is_some())
    }

    /// All that can be asked for: every probe is answered, or, once hosts were asked, each has said
    /// what it saw.
    fn is_complete(&self) -> bool {
        if self.step < SCHEDULE.len() && self.step > ASK_STEP {
            return self.reports.len() >= self.interceptors.len().max(1);
        }
        self.answered().count() == self.probes.len()
    }

    fn send(&mut self) {
        for probe in self.probes.iter().filter(|it| it.answered_by.is_none()) {
            let header = TcpHeader {
                seq: probe.iss,
                ack: Seq(0),
                flags: Flags::SYN,
                window: u16::MAX,
                urgent: 0,
                options: TcpOptions {
                    mss: Some(MSS),
                    sack_permitted: true,
                    ..TcpOptions::default()
                },
            };
            self.outgoing.push_back((probe.id, probe.tuple, header));
        }
    }

    fn ask(&mut self, routes: &Routes) {
        let unanswered = || self.probes.iter().filter(|it| it.answered_by.is_none());
        self.asked_after = unanswered().map(|probe| probe.id).collect();
        let request = TraceRequest {
            id: self.trace,
            clients: unanswered()
                .map(|probe| probe.tuple.source.into())
                .collect(),
            wait: LOOK,
        };
        routes.trace(&request);
    }

    /// A real server may hold a half-open connection whose answer was lost on the way.
    fn reset_unanswered(&mut self) {
        let unanswered = self.probes.iter().filter(|it| it.answered_by.is_none());
        let resets: Vec<_> = unanswered.map(reset_of).collect();
        self.outgoing.extend(resets);
    }
}

/// Whether probes that bear clients' addresses are not repeated at the step before this one. They go out three times:
/// at once, a moment later, and while hosts look.
const fn spared(step: usize) -> bool {
    !matches!(step, 2 | 4)
}

/// Place in the schedule of the first step after the question.
const ASK_STEP: usize = 2;

/// Ends a half-open connection at the target (RFC 9293 3.10.7.4: the sequence number is the one
/// that is expected next).
fn reset_of(probe: &Probe) -> Packet {
    let header = TcpHeader {
        seq: probe.iss.add(1),
        ack: Seq(0),
        flags: Flags::RST,
        window: 0,
        urgent: 0,
        options: TcpOptions::default(),
    };
    (probe.id, probe.tuple, header)
}

#[cfg(test)]
mod tests {
    use millrace_proto::Sight;

    use super::*;

    const START: Time = Time::from_micros(1_000_000_000);

    fn volley() -> Volley {
        let target = Endpoint::new("198.18.9.9".parse().unwrap(), 80);
        let source = |port| Endpoint::new("198.18.1.1".parse().unwrap(), port);
        Volley::begin(
            START,
            Aim {
                target,
                nat: false,
                bearing: Bearing::Own,
            },
            7,
            &[source(1000), source(1001)],
            vec![0, 1],
        )
    }

    /// One after whose probes hosts were asked.
    fn asked_after() -> Volley {
        let mut volley = volley();
        while !volley.is_asked_after() {
            volley.advance(volley.due(), &Routes::default(), true);
        }
        volley
    }

    fn sent(volley: &mut Volley) -> Vec<(u64, Flags)> {
        std::iter::from_fn(|| volley.poll_transmit())
            .map(|(id, _, header)| (id, header.flags))
            .collect()
    }

    fn answer(volley: &Volley, id: u64, flags: Flags) -> TcpHeader {
        let probe = volley.probes.iter().find(|probe| probe.id == id).unwrap();
        TcpHeader {
            seq: Seq(99),
            ack: probe.iss.add(1),
            flags,
            window: 1000,
            urgent: 0,
            options: TcpOptions::default(),
        }
    }

    #[test]
    fn an_answered_probe_is_reset_and_never_completes_a_handshake() {
        let mut volley = volley();
        assert_eq!(sent(&mut volley), [(7, Flags::SYN), (8, Flags::SYN)]);
        let header = answer(&volley, 7, Flags::SYN | Flags::ACK);
        assert!(volley.on_header(START, 0, FlowRef::Id(7), &header));
        assert_eq!(sent(&mut volley), [(7, Flags::RST)]);
        let routes = Routes::default();
        assert!(!volley.advance(START, &routes, true));
        let header = answer(&volley, 8, Flags::SYN | Flags::ACK);
        assert!(volley.on_header(START, 1, FlowRef::Id(8), &header));
        assert!(volley.advance(START, &routes, true), "all have answered");
        let verdict = volley.verdict(&routes, true, false);
        assert!(verdict.is_open() && !verdict.is_doubtful(), "{verdict}");
    }

    #[test]
    fn the_round_trip_is_that_of_the_first_answer_and_never_too_short() {
        let mut volley = volley();
        let routes = Routes::default();
        assert_eq!(volley.round_trip(), Duration::ZERO);
        // As on a way that takes 401 ms: SYNs are sent again just before.
        let at = START + Duration::from_millis(401);
        volley.advance(at, &routes, true);
        let header = answer(&volley, 7, Flags::SYN | Flags::ACK);
        volley.on_header(at, 0, FlowRef::Id(7), &header);
        assert_eq!(volley.round_trip(), Duration::from_millis(401));
        let header = answer(&volley, 8, Flags::SYN | Flags::ACK);
        volley.on_header(at + Duration::from_secs(1), 1, FlowRef::Id(8), &header);
        assert_eq!(volley.round_trip(), Duration::from_millis(401));
    }

    #[test]
    fn a_forged_answer_does_not_open_a_target() {
        let mut volley = volley();
        let mut header = answer(&volley, 7, Flags::SYN | Flags::ACK);
        header.ack = header.ack.add(1);
        volley.on_header(START, 0, FlowRef::Id(7), &header);
        assert_eq!(volley.answered().count(), 0);
    }

    #[test]
    fn an_answer_to_the_same_source_from_another_target_is_not_a_probes() {
        let mut volley = volley();
        let header = answer(&volley, 7, Flags::SYN | Flags::ACK);
        let mut tuple = volley.probes[0].tuple;
        tuple.destination.port += 1;
        assert!(!volley.on_header(START, 0, FlowRef::Tuple(tuple), &header));
        volley.aim.nat = true;
        assert!(volley.on_header(START, 0, FlowRef::Tuple(tuple), &header));
    }

    #[test]
    fn a_volley_waits_for_its_turn_to_be_asked_after() {
        let mut volley = volley();
        let routes = Routes::default();
        for _ in 0..100 {
            assert!(!volley.advance(volley.due(), &routes, false));
            assert!(!volley.is_asked_after());
        }
        volley.advance(volley.due(), &routes, true);
        assert!(volley.is_asked_after());
    }

    #[test]
    fn an_interceptor_that_came_later_does_not_stand_for_one_that_is_still_looking() {
        let mut volley = asked_after();
        let report = TraceReport {
            id: volley.trace,
            ..TraceReport::default()
        };
        for interceptor in [0, 2] {
            volley.on_traced(interceptor, &report);
        }
        assert!(volley.is_asked_after(), "1 has not said what it saw");
        volley.on_traced(1, &report);
        assert!(!volley.is_asked_after());
    }

    #[test]
    fn a_volley_of_a_process_that_stood_still_leaves_hosts_their_time_all_the_same() {
        let mut volley = volley();
        let routes = Routes::default();
        let later = START + Duration::from_secs(60);
        assert!(!volley.advance(later, &routes, true));
        let (mut asked_at, mut over) = (later, false);
        while !over {
            let was_asked_after = volley.is_asked_after();
            let due = volley.due();
            over = volley.advance(due, &routes, true);
            if !was_asked_after {
                asked_at = due;
            }
            assert!(!over || due >= asked_at + END_AFTER);
        }
    }

    #[test]
    fn silence_is_repeated_asked_after_and_ends_with_resets() {
        let mut volley = volley();
        let routes = Routes::default();
        sent(&mut volley);
        let mut syns = 0;
        let mut over = false;
        for _ in 0..SCHEDULE.len() {
            over = volley.advance(volley.due(), &routes, true);
            let packets = sent(&mut volley);
            if over {
                assert_eq!(packets, [(7, Flags::RST), (8, Flags::RST)]);
                break;
            }
            syns += packets.len();
        }
        assert!(over, "a volley is bounded");
        assert_eq!(syns, 12, "six times two, after the first");
        assert!(!volley.verdict(&routes, true, false).is_open());
    }

    #[test]
    fn a_probe_that_came_in_and_is_answered_late_does_not_stand_for_one_that_went_elsewhere() {
        let mut volley = asked_after();
        let routes = Routes::default();
        for interceptor in [0, 1] {
            let sight = Sight {
                client: 0,
                syn_device: "eth0".to_owned(),
                ..Sight::default()
            };
            let report = TraceReport {
                id: volley.trace,
                sights: vec![sight],
                ..TraceReport::default()
            };
            volley.on_traced(interceptor, &report);
        }
        assert_eq!(volley.came_in(), 1);
        let header = answer(&volley, 7, Flags::SYN | Flags::ACK);
        volley.on_header(START, 0, FlowRef::Id(7), &header);
        assert_eq!(volley.came_in(), 0);
        let verdict = volley.verdict(&routes, true, false);
        assert!(matches!(verdict, Verdict::Partly { .. }), "{verdict}");
        assert!(volley.verdict(&routes, false, false).is_open());
    }

    #[test]
    fn a_target_that_resets_every_probe_is_refusing() {
        let mut volley = volley();
        for id in [7, 8] {
            let header = answer(&volley, id, Flags::RST | Flags::ACK);
            volley.on_header(START, 0, FlowRef::Id(id), &header);
        }
        let verdict = volley.verdict(&Routes::default(), true, false);
        assert!(matches!(verdict, Verdict::Refused { .. }), "{verdict}");
        assert!(!verdict.is_open());
    }
}
