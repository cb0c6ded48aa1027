//! What probes showed: whether a target may be opened, or which hop is missing. `words`: the same for people, with the
//! command that shows or mends it.

mod words;

use std::fmt;
use std::net::IpAddr;

use millrace_capture::SendErrorKind;
use millrace_engine::Misdirection;
use millrace_proto::{Obstacle, Sight, TraceReport};
use millrace_wire::Endpoint;

/// All that is known at the end of a volley.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The target.
    pub target: Endpoint,
    /// The address that an unanswered probe bears, or any; `None` for one of a client's.
    pub client: Option<IpAddr>,
    /// How many probes there were.
    pub probes: usize,
    /// How many came back.
    pub answered: usize,
    /// How many of these were refused with a reset: nobody listens.
    pub refused: usize,
    /// Interceptors through which these came.
    pub refusing: Vec<String>,
    /// Interceptors through which none came back.
    pub silent: Vec<String>,
    /// Interceptors that were asked.
    pub asked: Vec<String>,
    /// Interceptors that are named and not connected.
    pub absent: Vec<String>,
    /// Whether replicas bear the addresses of real clients, rather than of a pool: an answer that
    /// is not diverted would reach one.
    pub clients_own: bool,
    /// How many of the unanswered ones came in at a host that was asked.
    pub came_in: usize,
    /// What the hosts of interceptors saw, by their names.
    pub reports: Vec<(String, &'a TraceReport)>,
    /// Why a probe could not be sent.
    pub unsent: Option<(SendErrorKind, i32)>,
    /// What the target said to this host's own kernel, if it was asked.
    pub knock: Option<Knock>,
    /// Whether probes that bore this host's own address came back just before.
    pub own_came_back: bool,
}

/// What a target says to a connection of this host's own kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// It took it.
    Taken,
    /// It refused it: nothing listens.
    Refused,
    /// Nothing came back.
    Silent,
}

impl Evidence<'_> {
    /// The first host that saw such a thing, and what it saw.
    fn find(&self, what: &dyn Fn(&Sight) -> bool) -> Option<(String, Sight)> {
        self.reports.iter().find_map(|(host, report)| {
            let sight = report.sights.iter().find(|sight| what(sight))?;
            Some((host.clone(), sight.clone()))
        })
    }

    /// Whether a probe went where no known host is: every host of an interceptor has looked, and
    /// fewer came in than are missing. Assistants see answers only.
    fn may_answer_unknown(&self) -> bool {
        let reports = || self.reports.iter().map(|(_, report)| report);
        let all_looked = self.absent.is_empty()
            && self.unsent.is_none()
            && self.reports.len() >= self.asked.len()
            && reports().all(|report| report.problem.is_empty() && !report.assistant);
        all_looked && self.probes > self.answered + self.came_in
    }
}

/// The ends of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    client: Client,
    target: Endpoint,
}

/// The address that a probe bears, unless it is that of a client: that is shown at level debug alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client(Option<IpAddr>);

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(ip) => ip.fmt(f),
            None => f.write_str("CLIENT"),
        }
    }
}

/// What a volley showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Probes came back; interceptors through which none did are named.
    Open {
        /// How many of how many came back.
        answered: (usize, usize),
        /// Interceptors whose real servers refused some of these.
        refusing: Vec<String>,
        /// Interceptors through which none came back.
        silent: Vec<String>,
        /// Interceptors that are named and not connected.
        absent: Vec<String>,
        /// Whether some probes got no answer at all, or were refused.
        doubtful: bool,
    },
    /// Some came back; the others reached no host that is known, so that a real server nobody
    /// named may have answered real clients.
    Partly {
        /// How many of how many came back.
        answered: (usize, usize),
        /// What the others miss.
        missing: Box<Verdict>,
    },
    /// The target's host refuses connections.
    Refused {
        /// The target.
        target: Endpoint,
    },
    /// An answer left towards the client.
    NotDiverted {
        /// The real server.
        host: String,
        /// The device on which it left.
        device: String,
        /// The flow, for the command that shows the route.
        flow: Flow,
    },
    /// The interceptor had the answer and did not return it.
    NotOwned {
        /// The real server.
        host: String,
    },
    /// The SYN came in, and nothing went out.
    NotAnswered {
        /// The real server.
        host: String,
        /// The device on which it came in.
        device: String,
        /// The flow.
        flow: Flow,
        /// What stood in its way, as far as that host can tell.
        obstacle: Obstacle,
    },
    /// The way behind the target leads to the live service again.
    Misdirected(Misdirection),
    /// This host could not send.
    NotSent {
        /// Why.
        kind: SendErrorKind,
        /// The error number.
        errno: i32,
        /// The flow.
        flow: Flow,
    },
    /// The answer came to a host that has the client's address: its kernel is the client's.
    AtClient {
        /// The interceptor there.
        host: String,
        /// The flow.
        flow: Flow,
    },
    /// No host saw the SYN, which bears a client's address, and all saw those that bear this host's.
    SourceDropped {
        /// The interceptors whose hosts looked.
        asked: Vec<String>,
        /// The flow.
        flow: Flow,
    },
    /// No host saw the SYN.
    NotReceived {
        /// The interceptors whose hosts looked.
        asked: Vec<String>,
        /// Those that could not look, and why.
        blind: Vec<String>,
        /// The flow.
        flow: Flow,
    },
    /// Only assistants were asked: they see answers, and saw none.
    NotAtAssistant {
        /// The assistants.
        asked: Vec<String>,
        /// The flow.
        flow: Flow,
        /// What the target said to this host, if it was asked.
        knock: Option<Knock>,
    },
}

impl Verdict {
    /// What the evidence shows; the gravest finding first.
    pub fn of(evidence: &Evidence<'_>) -> Self {
        let flow = Flow {
            client: Client(evidence.client),
            target: evidence.target,
        };
        if let Some((host, sight)) = evidence.find(&|sight| !sight.leaked_device.is_empty()) {
            let device = sight.leaked_device;
            return Self::NotDiverted { host, device, flow };
        }
        if evidence.refused > 0 && evidence.refused == evidence.answered {
            let target = evidence.target;
            return Self::Refused { target };
        }
        let answered = (evidence.answered, evidence.probes);
        let all = evidence.answered >= evidence.probes;
        let missing = Self::missing(evidence, flow);
        if evidence.answered == 0 {
            return missing;
        }
        if evidence.clients_own && evidence.may_answer_unknown() {
            return Self::Partly {
                answered,
                missing: Box::new(missing),
            };
        }
        Self::Open {
            answered,
            refusing: evidence.refusing.clone(),
            silent: evidence.silent.clone(),
            absent: evidence.absent.clone(),
            doubtful: !all || evidence.refused > 0,
        }
    }

    /// Which hop the probes that did not come back miss.
    fn missing(evidence: &Evidence<'_>, flow: Flow) -> Self {
        let is_client = |sight: &Sight| sight.obstacle == Obstacle::ClientHere;
        if let Some((host, _)) = evidence.find(&|sight| sight.captured && is_client(sight)) {
            return Self::AtClient { host, flow };
        }
        if let Some((host, _)) = evidence.find(&|sight| sight.captured) {
            return Self::NotOwned { host };
        }
        if let Some((host, sight)) = evidence.find(&|sight| !sight.syn_device.is_empty()) {
            return Self::NotAnswered {
                host,
                device: sight.syn_device,
                flow,
                obstacle: sight.obstacle,
            };
        }
        if let Some((kind, errno)) = evidence.unsent {
            return Self::NotSent { kind, errno, flow };
        }
        let all_assistants = evidence.reports.iter().all(|(_, report)| report.assistant);
        let asked = evidence.asked.clone();
        if !evidence.reports.is_empty() && all_assistants {
            let knock = evidence.knock;
            return Self::NotAtAssistant { asked, flow, knock };
        }
        let unable = evidence
            .reports
            .iter()
            .filter(|(_, report)| !report.problem.is_empty())
            .map(|(host, report)| format!("{host}: {}", report.problem));
        let has_said = |host: &String| evidence.reports.iter().any(|(name, _)| name == host);
        let silent = asked.iter().filter(|host| !has_said(host));
        let silent = silent.map(|host| format!("{host}: it has not said what it saw"));
        let blind: Vec<String> = unable.chain(silent).collect();
        // A client's probe that came back took the way, too; and one may have gone to a real server that nobody asked.
        let all_asked = evidence.answered == 0 && evidence.absent.is_empty() && blind.is_empty();
        if evidence.own_came_back && all_asked {
            return Self::SourceDropped { asked, flow };
        }
        Self::NotReceived { asked, blind, flow }
    }

    /// Whether sessions may be replayed.
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. })
    }

    /// Whether it names somebody whose part in the answers is missing though nothing leaks.
    pub fn explains_silence(&self) -> bool {
        match self {
            Self::Open {
                refusing,
                silent,
                absent,
                ..
            } => !(refusing.is_empty() && silent.is_empty() && absent.is_empty()),
            _ => false,
        }
    }

    /// Whether answers may have gone to real clients, if probes bore their addresses.
    pub const fn may_have_leaked(&self) -> bool {
        matches!(
            self,
            Self::NotDiverted { .. }
                | Self::AtClient { .. }
                | Self::SourceDropped { .. }
                | Self::NotReceived { .. }
                | Self::NotAtAssistant { .. }
                | Self::Partly { .. }
        )
    }

    /// Whether the answers take the right way, and only the application is not there.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether an operator should look, though sessions are replayed.
    pub const fn is_doubtful(&self) -> bool {
        matches!(self, Self::Open { doubtful: true, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(sight: Sight) -> TraceReport {
        TraceReport {
            sights: vec![sight],
            ..TraceReport::default()
        }
    }

    fn verdict(answered: usize, reports: &[(&str, TraceReport)]) -> Verdict {
        Verdict::of(&evidence(answered, reports))
    }

    fn evidence<'a>(answered: usize, reports: &'a [(&str, TraceReport)]) -> Evidence<'a> {
        Evidence {
            target: Endpoint::new("198.18.9.9".parse().unwrap(), 80),
            client: Some("198.18.1.1".parse().unwrap()),
            probes: 4,
            answered,
            refused: 0,
            refusing: Vec::new(),
            silent: Vec::new(),
            asked: vec!["rs1".to_owned(), "rs2".to_owned()],
            absent: Vec::new(),
            clients_own: true,
            came_in: reports.iter().map(|(_, report)| report.sights.len()).sum(),
            reports: reports
                .iter()
                .map(|(host, report)| ((*host).to_owned(), report))
                .collect(),
            unsent: None,
            knock: None,
            own_came_back: false,
        }
    }

    fn came_in() -> Sight {
        Sight {
            syn_device: "eth0".to_owned(),
            ..Sight::default()
        }
    }

    #[test]
    fn each_missing_hop_is_named_with_a_command_that_shows_it() {
        let leak = Sight {
            leaked_device: "eth0".to_owned(),
            ..came_in()
        };
        let captured = Sight {
            captured: true,
            ..came_in()
        };
        for (reports, hop, command) in [
            (vec![], "not received", "tcpdump -ni any 'host 198.18.1.1"),
            (
                vec![("rs1", report(came_in()))],
                "not answered",
                "ss -ltn 'sport = :80'",
            ),
            (
                vec![("rs1", report(came_in())), ("rs2", report(leak))],
                "not diverted",
                "ip route get 198.18.1.1 from 198.18.9.9 ipproto tcp sport 80",
            ),
            (
                vec![("rs1", report(captured))],
                "not owned",
                "curl -s http://127.0.0.1:36531/status",
            ),
        ] {
            let verdict = verdict(0, &reports);
            let line = verdict.to_string();
            assert!(!verdict.is_open(), "{line}");
            assert!(line.starts_with(hop), "{line}");
            assert!(line.contains(command), "{line}");
            assert!(!line.contains('\n'));
        }
    }

    #[test]
    fn a_host_that_said_nothing_is_not_said_to_have_seen_nothing() {
        let line = verdict(0, &[("rs1", TraceReport::default())]).to_string();
        assert!(
            line.ends_with("(could not look: rs2: it has not said what it saw)"),
            "{line}"
        );
    }

    #[test]
    fn one_real_server_that_answers_a_client_keeps_the_target_closed() {
        let leak = Sight {
            leaked_device: "eth0".to_owned(),
            ..came_in()
        };
        assert!(verdict(4, &[]).is_open());
        assert!(!verdict(3, &[("rs2", report(leak))]).is_open());
    }

    #[test]
    fn a_probe_that_went_to_no_known_host_keeps_the_target_closed_where_clients_keep_their_addresses()
     {
        let nothing = TraceReport::default;
        let reports = [("rs1", nothing()), ("rs2", nothing())];
        let of = |answered, change: &dyn Fn(&mut Evidence<'_>)| {
            let mut evidence = evidence(answered, &reports);
            change(&mut evidence);
            Verdict::of(&evidence)
        };
        let line = of(3, &|_| {}).to_string();
        assert!(
            line.starts_with("3 of 4 probes came back; the others: not received"),
            "{line}"
        );
        assert!(!of(3, &|_| {}).is_open());
        // One of two that are missing came in at a known host; the other did not.
        let came_in = [("rs1", report(came_in())), ("rs2", nothing())];
        assert!(!Verdict::of(&evidence(2, &came_in)).is_open());

        let doubtful = |verdict: &Verdict| verdict.is_open() && verdict.is_doubtful();
        assert!(doubtful(&Verdict::of(&evidence(3, &came_in))));
        // Addresses of a pool are nobody's.
        assert!(doubtful(&of(3, &|it| it.clients_own = false)));
        let absent = of(3, &|it| it.absent = vec!["rs3".to_owned()]);
        assert!(doubtful(&absent) && absent.to_string().ends_with("not connected: rs3"));
        assert!(doubtful(&of(3, &|it| drop(it.reports.pop()))));
        assert!(of(4, &|_| {}).is_open());
    }

    #[test]
    fn a_real_server_that_refuses_beside_others_that_do_not_is_named() {
        let mut evidence = evidence(4, &[]);
        evidence.refused = 2;
        evidence.refusing = vec!["rs2".to_owned()];
        let verdict = Verdict::of(&evidence);
        assert!(verdict.is_open() && verdict.is_doubtful());
        assert_eq!(
            verdict.to_string(),
            "first contact: 4 of 4 probes came back, refused by the real servers of rs2, where \
             nothing listens"
        );
    }

    #[test]
    fn an_assistant_that_saw_nothing_is_no_proof_that_nothing_came() {
        let nothing = TraceReport {
            assistant: true,
            ..TraceReport::default()
        };
        let reports = [("assistant", nothing)];
        for (knock, words, command) in [
            (None, "not diverted or not received", "tcpdump -ni any"),
            (
                Some(Knock::Taken),
                "not diverted: 198.18.9.9:80 takes connections of this host",
                "`ip route get 198.18.1.1 from 198.18.9.9 ipproto tcp sport 80` must lead to rs1",
            ),
            (
                Some(Knock::Silent),
                "not answered: no answer to a client came",
                "nft list ruleset",
            ),
            (Some(Knock::Refused), "refused", "ss -ltn 'sport = :80'"),
        ] {
            let mut evidence = evidence(0, &reports);
            evidence.knock = knock;
            let line = Verdict::of(&evidence).to_string();
            assert!(line.starts_with(words) && line.contains(command), "{line}");
        }
    }

    #[test]
    fn what_a_host_knows_of_the_obstacle_is_said_instead_of_guessed() {
        for (obstacle, command) in [
            (Obstacle::NoAddress, "`ip address add 198.18.9.9/32 dev lo`"),
            (
                Obstacle::ReversePath,
                "`sysctl -w net/ipv4/conf/eth0/rp_filter=2`",
            ),
            (Obstacle::Backlog, "backlog"),
            (
                Obstacle::NoRoute,
                "`ip route get 198.18.1.1 from 198.18.9.9`",
            ),
            (Obstacle::Firewall, "`nft list ruleset`"),
        ] {
            let sight = Sight {
                obstacle,
                ..came_in()
            };
            let line = verdict(0, &[("rs1", report(sight))]).to_string();
            assert!(
                line.starts_with("not answered") && line.contains(command),
                "{line}"
            );
            let others = [
                "rp_filter",
                "nft list",
                "address add",
                "backlog",
                "way back",
            ];
            let named = others.iter().filter(|it| line.contains(**it)).count();
            assert_eq!(named, 1, "{line}");
        }
    }

    #[test]
    fn a_way_that_takes_this_hosts_own_address_and_no_clients_drops_sources() {
        let nothing = TraceReport::default;
        let reports = [("rs1", nothing()), ("rs2", nothing())];
        let mut evidence = evidence(0, &reports);
        evidence.own_came_back = true;
        evidence.silent = vec!["rs1".to_owned(), "rs2".to_owned()];
        let line = Verdict::of(&evidence).to_string();
        assert!(line.starts_with("sources dropped"), "{line}");
        assert!(
            line.contains("`tcpdump -ni any 'host 198.18.1.1 and tcp port 80'`"),
            "{line}"
        );
        // One that has not looked may have seen it.
        evidence.reports.pop();
        let line = Verdict::of(&evidence).to_string();
        assert!(line.starts_with("not received"), "{line}");
    }

    #[test]
    fn an_answer_that_came_to_the_clients_own_host_is_not_said_to_be_another_copiers() {
        let sight = Sight {
            captured: true,
            obstacle: Obstacle::ClientHere,
            ..Sight::default()
        };
        let verdict = verdict(0, &[("assistant", report(sight))]);
        let line = verdict.to_string();
        assert!(line.starts_with("not returned"), "{line}");
        assert!(verdict.may_have_leaked(), "its kernel saw it");
    }
}
