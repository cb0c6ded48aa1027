//! What keeps a copier from copying, the first cause first: what an operator has decided, then the way to the target
//! from its near end to its far one.

use std::fmt::Write;

use millrace_fleet::address::Mapping;

use super::listeners::Listeners;
use super::remedies;
use super::window::Recent;
use super::{Facts, Headline, State};
use crate::control::Mode;
use crate::probe::{ProbeState, ProbeStatus};
use crate::units::shown;

/// Without a packet for so long, somebody must look, in seconds.
pub(super) const SILENT: f64 = 10.0;
/// So many copies of a hundred that end for one reason are worth a word.
const PERCENT: u64 = 1;

/// Why nothing is copied, and what to do.
type Cause = (String, Option<String>);

/// How things stand.
pub(super) fn headline(facts: &Facts<'_>) -> Headline {
    let causes: [fn(&Facts<'_>) -> Option<Cause>; 6] =
        [decided, links, agents, targets, silence, refusal];
    let also = also(facts);
    if let Some((why, next)) = causes.iter().find_map(|cause| cause(facts)) {
        return Headline {
            state: State::NotCopying,
            sentence: format!("not copying: {why}"),
            next,
            also,
        };
    }
    let live = facts.report.recording.is_none();
    let state = match facts.recent.client_segments {
        0 if live => State::Idle,
        _ => State::Copying,
    };
    Headline {
        state,
        sentence: match state {
            State::Idle => format!(
                "nothing to copy: no client has sent anything to {} for {:.0} s",
                ports(facts.services),
                facts.recent.seconds
            ),
            State::Copying | State::NotCopying => copying(facts),
        },
        next: None,
        also,
    }
}

/// What goes on.
fn copying(facts: &Facts<'_>) -> String {
    let Facts { report, recent, .. } = facts;
    let services: Vec<String> = facts.services.iter().map(ToString::to_string).collect();
    let seconds = recent.seconds.max(1.0);
    let times = f64::from(report.intensity.factor.max(1));
    let verb = match report.recording {
        Some(_) => "replaying",
        None => "copying",
    };
    let mut text = format!(
        "{verb} {:.0}% of {}: {:.0} sessions/s, {:.1} MB/s of clients, fidelity {}",
        report.intensity.now * times * 100.0,
        services.join(","),
        recent.sessions as f64 / seconds,
        recent.captured_bytes as f64 / seconds / 1e6,
        report.fidelity(),
    );
    if report.turn_lag.count > 0 {
        // A string takes whatever is written.
        let _ = write!(text, ", lag p99 {:.1} ms", report.turn_lag.p99 as f64 / 1e3);
    }
    text
}

fn decided(facts: &Facts<'_>) -> Option<Cause> {
    let intensity = &facts.report.intensity;
    let resume = || Some("`millrace-copier ctl resume`, once the target is well".to_owned());
    match intensity.mode {
        Mode::Stopped => {
            let decision = intensity.decisions.last();
            let what = decision.map_or("a guard has stopped it", |decision| &decision.what);
            Some((format!("stopped by a guard ({what})"), resume()))
        }
        Mode::Paused => {
            let next = "`millrace-copier ctl resume`".to_owned();
            Some(("paused by the operator".to_owned(), Some(next)))
        }
        Mode::Running | Mode::Held if intensity.now <= 0.0 => {
            let next = intensity
                .ramp
                .is_none()
                .then(|| "`millrace-copier ctl intensity 100%`".to_owned());
            Some(("the intensity is 0".to_owned(), next))
        }
        Mode::Running | Mode::Held => None,
    }
}

fn links(facts: &Facts<'_>) -> Option<Cause> {
    let first = facts.links.first()?;
    if facts.links.iter().any(|link| link.connected) {
        return None;
    }
    let why = match first.last_error.as_str() {
        "" => "no answer yet",
        error => error,
    };
    let next = "start millrace-interceptor there (its log says where it listens), or name another one with -s";
    Some((
        format!("no interceptor is connected ({}: {why})", first.address),
        Some(next.to_owned()),
    ))
}

fn agents(facts: &Facts<'_>) -> Option<Cause> {
    let agent = facts.agents.iter().find(|agent| !agent.held)?;
    let why = [&agent.trouble, &agent.last_error]
        .into_iter()
        .find(|why| !why.is_empty());
    let why = why.map_or("no answer yet", String::as_str);
    let next = "`millrace-router-agent show` there says what is installed";
    Some((
        format!(
            "router-agent {} does not keep responses from real clients ({why})",
            agent.address
        ),
        Some(next.to_owned()),
    ))
}

fn targets(facts: &Facts<'_>) -> Option<Cause> {
    let targets = &facts.report.targets;
    if targets.is_empty() || targets.iter().any(|it| it.state == ProbeState::Open) {
        return None;
    }
    let in_state = |state| targets.iter().find(|it| it.state == state);
    let known = [
        ProbeState::Misdirected,
        ProbeState::Failed,
        ProbeState::Asking,
    ];
    let target = known.into_iter().find_map(in_state)?;
    Some((unproven(target), None))
}

fn unproven(target: &ProbeStatus) -> String {
    let name = &target.target;
    match (&target.finding, target.state) {
        (Some(finding), ProbeState::Failed | ProbeState::Misdirected) => {
            format!("{name}: {finding}")
        }
        (None, ProbeState::Failed) => format!("no probe of {name} came back"),
        (None, ProbeState::Misdirected) => format!("{name} leads to the live service again"),
        (_, ProbeState::Waiting) => format!("{name} is not known yet: no client has come"),
        (_, ProbeState::Asking | ProbeState::Open) => {
            format!("first contact with {name} is under way")
        }
    }
}

/// No packet since the start.
fn silence(facts: &Facts<'_>) -> Option<Cause> {
    let Facts { report, .. } = facts;
    if report.recording.is_some()
        || report.packets.client_segments > 0
        || report.duration_seconds < SILENT
    {
        return None;
    }
    let seconds = report.duration_seconds;
    let why = format!(
        "no packet of a client for {} was seen in {seconds:.0} s",
        ports(facts.services)
    );
    Some((why, Some(nobody(facts.services))))
}

/// What this host says of services of which no packet comes.
pub(super) fn nobody(services: &[Mapping]) -> String {
    let here = Listeners::read();
    let known = services
        .iter()
        .find_map(|it| here.of(it.live_ip, it.live_port));
    let capture =
        "check -x and -i: `tcpdump -ni any tcp port PORT` shows where clients' packets come by";
    match known {
        Some(known) => format!("{known}; {capture}"),
        None => format!(
            "{capture}; a container has devices of its own, and a proxy speaks to it from this host (-i lo)"
        ),
    }
}

/// Nothing connects.
fn refusal(facts: &Facts<'_>) -> Option<Cause> {
    let Recent {
        sessions,
        opened,
        established,
        aborted,
        refused,
        ..
    } = facts.recent;
    let most = |counts: &std::collections::BTreeMap<String, u64>| {
        let most = counts.iter().max_by_key(|(_, count)| **count);
        most.map(|(reason, count)| (reason.clone(), *count))
    };
    if *established > 0 {
        return None;
    }
    if let Some((reason, count)) = most(aborted).filter(|_| *opened > 0) {
        let means = remedies::of_abort(&reason)?;
        return Some((
            format!("none of {opened} copied connections was opened: {count} `{reason}`"),
            Some(means.to_owned()),
        ));
    }
    let (reason, count) =
        most(refused).filter(|_| *sessions + refused.values().sum::<u64>() > 0)?;
    let means = remedies::of_refusal(&reason).filter(|_| *opened == 0)?;
    Some((
        format!("no session is taken: {count} refused, `{reason}`"),
        Some(means.to_owned()),
    ))
}

/// What goes wrong besides.
fn also(facts: &Facts<'_>) -> Vec<String> {
    let Facts { report, recent, .. } = facts;
    let mut all = Vec::new();
    if recent.dropped > 0 {
        all.push(format!(
            "capture lost {} frames in {:.0} s: give the copier more CPU time or a larger buffer (-B)",
            recent.dropped, recent.seconds
        ));
    }
    let open = report.targets.iter().any(|it| it.state == ProbeState::Open);
    let wrong = [ProbeState::Failed, ProbeState::Misdirected];
    let failed = report
        .targets
        .iter()
        .filter(|it| open && wrong.contains(&it.state));
    all.extend(failed.map(|target| {
        let clients = target.clients.map(|kind| format!(" for clients {kind}"));
        format!(
            "nothing is sent{}: {}",
            clients.unwrap_or_default(),
            unproven(target)
        )
    }));
    let away = facts.links.iter().filter(|link| !link.connected).count();
    if away > 0 && away < facts.links.len() {
        all.push(format!(
            "{away} of {} links to interceptors are down",
            facts.links.len()
        ));
    }
    all.extend(worth_a_word(recent));
    if report.sessions.encrypted > 0 {
        all.push(encrypted(
            report.sessions.encrypted,
            report.sessions.captured,
        ));
    }
    for agent in facts.agents {
        all.extend(
            agent
                .warnings
                .iter()
                .map(|it| format!("{}: {it}", agent.address)),
        );
    }
    all
}

/// Reasons for which more than a few copies end or sessions are refused, in words.
pub(super) fn worth_a_word(recent: &Recent) -> Vec<String> {
    let all = recent.opened.max(recent.sessions).max(1);
    let many = |count: u64| count * 100 >= all * PERCENT;
    let aborted = recent.aborted.iter().filter(|(_, count)| many(**count));
    let aborted = aborted.filter_map(|(reason, count)| {
        let means = remedies::of_abort(reason)?;
        Some(format!(
            "{count} copied connections ended as `{reason}`: {means}"
        ))
    });
    let refused = recent.refused.iter().filter(|(_, count)| many(**count));
    let refused = refused.filter_map(|(reason, count)| {
        let means = remedies::of_refusal(reason)?;
        Some(format!(
            "{count} sessions were refused as `{reason}`: {means}"
        ))
    });
    aborted.chain(refused).collect()
}

/// Sessions that begin with TLS, in words.
pub(super) fn encrypted(count: u64, of: u64) -> String {
    format!(
        "{count} of {of} sessions begin with TLS: no target can read a copy, since its keys are agreed upon anew; copy where \
         the traffic is plain, behind the proxy that ends TLS"
    )
}

/// The live ports, for people.
pub(super) fn ports(services: &[Mapping]) -> String {
    let mut ports: Vec<String> = services.iter().map(|it| it.live_port.to_string()).collect();
    ports.dedup();
    match ports.as_slice() {
        [only] => format!("port {only}"),
        several => format!("ports {}", several.join(", ")),
    }
}

/// A share for people.
pub(super) fn delivered(recent: &Recent) -> String {
    match recent.wanted_bytes {
        0 => "nothing wanted".to_owned(),
        wanted => shown((recent.delivered_bytes as f64 / wanted as f64).min(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use millrace_fleet::hold::HoldStatus;
    use millrace_fleet::link::LinkStatus;

    use super::*;
    use crate::report::{Counts, Report};

    fn target(state: ProbeState, finding: Option<&str>) -> ProbeStatus {
        ProbeStatus {
            target: "198.18.2.20:80".to_owned(),
            clients: None,
            state,
            volleys: 1,
            finding: finding.map(str::to_owned),
        }
    }

    fn link(connected: bool) -> LinkStatus {
        LinkStatus {
            address: "198.18.2.30:36524".to_owned(),
            connected,
            last_error: "connection refused".to_owned(),
            ..LinkStatus::default()
        }
    }

    /// A copier that copies, changed.
    fn said(
        change: impl FnOnce(&mut Report, &mut Vec<LinkStatus>, &mut Vec<HoldStatus>),
    ) -> Headline {
        let services: Vec<Mapping> = vec!["80-198.18.2.20:80".parse().unwrap()];
        let mut report = Report {
            duration_seconds: 20.0,
            fidelity: 1.0,
            fidelity_low: 1.0,
            targets: vec![target(ProbeState::Open, None)],
            ..Report::default()
        };
        report.intensity.now = 1.0;
        report.packets.client_segments = 100;
        report.sessions.captured = 40;
        report.replicas.opened = 40;
        report.replicas.established = 40;
        let (mut links, mut agents) = (vec![link(true)], Vec::new());
        change(&mut report, &mut links, &mut agents);
        let recent = super::super::window::Window::default().recent(&report);
        headline(&Facts {
            services: &services,
            report: &report,
            recent: &recent,
            links: &links,
            agents: &agents,
        })
    }

    #[test]
    fn a_copier_that_copies_says_how_much() {
        let headline = said(|_, _, _| {});
        assert_eq!(headline.state, State::Copying);
        assert!(
            headline
                .sentence
                .starts_with("copying 100% of 80-198.18.2.20:80: 2 sessions/s"),
            "{headline:?}"
        );
        assert_eq!((headline.next, headline.also.len()), (None, 0));
    }

    #[test]
    fn each_cause_is_named_and_the_first_one_first() {
        let cause = |headline: Headline, words: &str| {
            assert_eq!(headline.state, State::NotCopying, "{headline:?}");
            assert!(headline.sentence.contains(words), "{headline:?}");
        };
        cause(
            said(|_, links, _| links[0].connected = false),
            "no interceptor is connected (198.18.2.30:36524: connection refused)",
        );
        cause(
            said(|report, links, _| {
                links[0].connected = false;
                report.intensity.mode = Mode::Paused;
            }),
            "paused by the operator",
        );
        cause(
            said(|report, _, _| report.intensity.now = 0.0),
            "the intensity is 0",
        );
        cause(
            said(|_, _, agents| {
                agents.push(HoldStatus {
                    trouble: "a rule is gone".to_owned(),
                    ..HoldStatus::default()
                });
            }),
            "a rule is gone",
        );
        cause(
            said(|report, _, _| {
                report.targets = vec![target(ProbeState::Failed, Some("not diverted"))];
            }),
            "198.18.2.20:80: not diverted",
        );
        cause(
            said(|report, _, _| {
                report.packets.client_segments = 0;
                report.targets = vec![target(ProbeState::Waiting, None)];
            }),
            "no packet of a client for port 80 was seen in 20 s",
        );
        cause(
            said(|report, _, _| {
                report.replicas.established = 0;
                report.replicas.aborted = Counts::from([("refused", 40)]);
            }),
            "none of 40 copied connections was opened: 40 `refused`",
        );
        cause(
            said(|report, _, _| {
                report.replicas.established = 0;
                report.replicas.opened = 0;
                report.sessions.refused = Counts::from([("sources", 40)]);
            }),
            "no session is taken: 40 refused, `sources`",
        );
    }

    #[test]
    fn what_goes_wrong_besides_is_said_and_a_few_are_not() {
        let headline = said(|report, links, _| {
            report.capture.dropped = 7;
            report.replicas.aborted = Counts::from([("timeout", 3), ("shutdown", 9)]);
            report
                .targets
                .push(target(ProbeState::Failed, Some("lost at the router")));
            links.push(link(false));
        });
        assert_eq!(headline.state, State::Copying);
        let [lost, target, links, timeout] = headline.also.as_slice() else {
            panic!("{headline:?}");
        };
        assert!(lost.contains("7 frames") && target.contains("lost at the router"));
        assert!(links.contains("1 of 2 links") && timeout.contains("3 copied connections"));
        let few = said(|report, _, _| {
            report.replicas.opened = 1000;
            report.replicas.aborted = Counts::from([("timeout", 3)]);
        });
        assert_eq!(few.also, [] as [String; 0]);
    }
}
