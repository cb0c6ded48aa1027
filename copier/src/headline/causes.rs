//! What keeps a copier from copying, the first cause first: what an operator has decided, then the way to the target
//! from its near end to its far one, and last what comes from clients and what becomes of it.

use std::collections::BTreeMap;

use super::remarks::also;
use super::remedies;
use super::window::Recent;
use super::words::{delivered, down, other_way, percent, rate, unproven};
use super::{Cause, Facts, Headline, State};
use crate::pods::{ServicePods, are_all_in_pods};
use crate::sockets::{known_obstacle, nobody, ports, where_to_look};
use millrace_pilot::Mode;
use millrace_replay::probe::ProbeState;

/// Without a packet for so long, somebody must look, in seconds.
pub(super) const SILENT: f64 = 10.0;
/// Without an acknowledgement for so long, too, in seconds.
const STALLED: f64 = 10.0;
/// Reasons for which copied connections do not come about.
const NEVER_OPENED: [&str; 2] = ["refused", "timeout"];

/// Why nothing is copied, and what to do.
type Why = (Cause, String, Option<String>);

/// How things stand.
pub(super) fn headline(facts: &Facts<'_>) -> Headline {
    let causes: [fn(&Facts<'_>) -> Option<Why>; 13] = [
        starting, plan, planned, decided, share, pods, links, held_back, agents, targets, silence,
        stalled, refusal,
    ];
    let mut also = also(facts);
    if let Some((cause, sentence, next)) = causes.iter().find_map(|cause| cause(facts)) {
        // What is next is not said again.
        also.retain(|it| next.as_ref().is_none_or(|next| !it.text.contains(next)));
        return Headline {
            state: match cause {
                Cause::Starting => State::Idle,
                _ => State::NotCopying,
            },
            cause: Some(cause),
            sentence,
            next,
            also,
        };
    }
    let live = facts.report.recording.is_none();
    let idle = idle(facts).filter(|_| live);
    let next = idle.as_ref().and_then(|_| unseen(facts));
    Headline {
        state: if idle.is_some() {
            State::Idle
        } else {
            State::Copying
        },
        cause: None,
        sentence: idle.unwrap_or_else(|| copying(facts)),
        next,
        also,
    }
}

/// What keeps clients' packets from coming by, where this host knows it and none came since the start.
fn unseen(facts: &Facts<'_>) -> Option<String> {
    if facts.report.packets.client_segments > 0 {
        return None;
    }
    let here = (facts.listeners)()?;
    known_obstacle(facts.services, &here)?;
    Some(nobody(facts.services, &here))
}

/// Whether no service is at this host, and none of their pods is on this node.
fn is_without_pods(facts: &Facts<'_>) -> bool {
    are_all_in_pods(facts.services)
        && !facts.pods.is_empty()
        && facts.pods.iter().all(|it| it.pods.is_empty())
}

/// Pods that are not known, and never were.
fn pods(facts: &Facts<'_>) -> Option<Why> {
    let lost = |it: &&ServicePods| it.doubt.is_some() && it.pods.is_empty();
    let service = facts
        .pods
        .iter()
        .find(lost)
        .filter(|_| is_without_pods(facts))?;
    let why = service.doubt.as_deref().unwrap_or_default();
    Some(not_copying(
        Cause::Pods,
        &format!("the pods of {} are not known: {why}", service.service),
        service.cure.as_deref(),
    ))
}

/// Why there is nothing to copy at the moment, though nothing keeps the copier from it.
fn idle(facts: &Facts<'_>) -> Option<String> {
    let Facts { report, recent, .. } = facts;
    let ports = ports(facts.services);
    let seconds = recent.seconds;
    if let Some(first) = facts.pods.first().filter(|_| is_without_pods(facts)) {
        return Some(format!(
            "nothing to copy: no pod of {} is on node {}",
            first.service, first.node
        ));
    }
    if recent.client_segments == 0 {
        return Some(format!(
            "nothing to copy: no packet of a client for {ports} was seen in {seconds:.0} s"
        ));
    }
    let begun = recent.sessions + recent.opened + recent.delivered_bytes + report.replicas.open;
    if begun > 0 {
        return None;
    }
    let why = if recent.unchosen > 0 {
        "the intensity leaves all of them out (-r)"
    } else if recent.unopened > 0 {
        "their handshakes are not completed in what is captured: both directions must come by here (-i)"
    } else {
        "connections that were open before are picked up at their next request (with -O they are not)"
    };
    Some(format!(
        "nothing is copied yet: of {ports} packets of clients come by, and no session has begun in {seconds:.0} s: {why}"
    ))
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
    format!(
        "{verb} {} of {}: {:.1} sessions/s, {}, {}",
        percent(report.intensity.now * times),
        services.join(","),
        recent.sessions as f64 / seconds,
        rate(recent.captured_bytes as f64 / seconds),
        delivered(
            recent,
            report.bytes.backlog * u64::from(report.intensity.factor.max(1))
        ),
    )
}

fn not_copying(cause: Cause, why: &str, next: Option<&str>) -> Why {
    let sentence = format!("not copying: {why}");
    (cause, sentence, next.map(str::to_owned))
}

fn starting(facts: &Facts<'_>) -> Option<Why> {
    let yet = facts.report.duration_seconds <= 0.0;
    yet.then(|| (Cause::Starting, "starting".to_owned(), None))
}

fn decided(facts: &Facts<'_>) -> Option<Why> {
    let Facts { report, .. } = facts;
    let intensity = &report.intensity;
    match intensity.mode {
        Mode::Stopped => {
            let decision = intensity.decisions.last();
            let what = decision.map_or("a guard has stopped it", |decision| &decision.what);
            Some(not_copying(
                Cause::Stopped,
                &format!("stopped by a guard ({what})"),
                Some("`millrace-copier ctl resume`, once the target is well"),
            ))
        }
        Mode::Paused => Some((
            Cause::Operator,
            format!(
                "no new session is copied: paused by the operator; {} open {} on",
                report.replicas.open,
                if report.replicas.open == 1 {
                    "copy goes"
                } else {
                    "copies go"
                }
            ),
            Some("`millrace-copier ctl resume`".to_owned()),
        )),
        Mode::Held if intensity.now <= 0.0 => Some((
            Cause::Stopped,
            "no new session is copied: a guard holds the ramp at 0%".to_owned(),
            Some("`millrace-copier ctl intensity` shows the guard".to_owned()),
        )),
        Mode::Running if intensity.now <= 0.0 => Some(match &intensity.ramp {
            Some(ramp) => (
                Cause::Operator,
                format!(
                    "no new session is copied: the ramp {} is at 0%",
                    ramp.stages
                ),
                None,
            ),
            None => (
                Cause::Operator,
                "no new session is copied: the intensity is 0".to_owned(),
                Some("`millrace-copier ctl intensity 100%`".to_owned()),
            ),
        }),
        Mode::Running | Mode::Held => None,
    }
}

fn share(facts: &Facts<'_>) -> Option<Why> {
    let why = facts.unowned?;
    Some(not_copying(
        Cause::Share,
        why,
        Some("it goes on by itself once Consul confirms the share"),
    ))
}

fn plan(facts: &Facts<'_>) -> Option<Why> {
    let why = facts.unplanned?;
    Some(not_copying(
        Cause::Plan,
        why,
        Some("it goes on by itself once Consul answers"),
    ))
}

/// What the cluster's plan leaves of it.
fn planned(facts: &Facts<'_>) -> Option<Why> {
    let plan = facts.report.intensity.plan.as_ref()?;
    if plan.edition == 0 {
        return Some((
            Cause::Operator,
            "no new session is copied: the cluster has no plan yet (--follow-plan)".to_owned(),
            Some(format!("`{} intensity 100%`", facts.plan_command)),
        ));
    }
    let last = plan.changes.last();
    let last = last.map_or(String::new(), |it| format!(": {} ({})", it.what, it.by));
    let resume = Some(format!("`{} resume`", facts.plan_command));
    match plan.mode {
        Mode::Stopped => Some((
            match plan.changes.last() {
                Some(change) if change.guard => Cause::Stopped,
                Some(_) | None => Cause::Operator,
            },
            format!("not copying: the cluster's plan is stopped{last}"),
            resume,
        )),
        Mode::Paused => Some((
            Cause::Operator,
            format!("no new session is copied: the cluster's plan is paused{last}"),
            resume,
        )),
        Mode::Running | Mode::Held if plan.now <= 0.0 => Some((
            match plan.mode {
                Mode::Held => Cause::Stopped,
                Mode::Running | Mode::Paused | Mode::Stopped => Cause::Operator,
            },
            format!("no new session is copied: the cluster's plan is at 0%{last}"),
            None,
        )),
        Mode::Running | Mode::Held => None,
    }
}

fn held_back(facts: &Facts<'_>) -> Option<Why> {
    let why = facts.report.held_back.as_ref()?;
    Some(not_copying(Cause::HeldBack, why, None))
}

fn links(facts: &Facts<'_>) -> Option<Why> {
    let [known, _] = facts.known;
    if known.unknown {
        let why = known.doubt.as_deref().unwrap_or_default();
        let why = format!("no interceptor is known ({why})");
        return Some(not_copying(Cause::Interceptors, &why, None));
    }
    let first = facts.links.first()?;
    if facts.links.iter().any(|link| link.connected) {
        return None;
    }
    // Any other error names what to do by itself.
    let nobody = first.last_error.contains("refuses the connection");
    Some(not_copying(
        Cause::Interceptors,
        &format!("no interceptor is connected ({})", down(first)),
        nobody.then_some("start millrace-interceptor there, or name another one with -s"),
    ))
}

fn agents(facts: &Facts<'_>) -> Option<Why> {
    let [_, known] = facts.known;
    if known.unknown {
        let why = known.doubt.as_deref().unwrap_or_default();
        let why = format!("no router-agent is known ({why})");
        return Some(not_copying(Cause::RouterAgents, &why, None));
    }
    let agent = facts.agents.iter().find(|agent| !agent.held)?;
    let why = [&agent.trouble, &agent.last_error]
        .into_iter()
        .find(|why| !why.is_empty());
    let why = why.map_or("no answer yet", String::as_str);
    Some(not_copying(
        Cause::RouterAgents,
        &format!(
            "router-agent {} does not keep responses from real clients ({why})",
            agent.address
        ),
        Some("`millrace-router-agent show` there says what is installed"),
    ))
}

fn targets(facts: &Facts<'_>) -> Option<Why> {
    let Facts { report, .. } = facts;
    let targets = &report.targets;
    if targets.is_empty() || targets.iter().any(|it| it.state == ProbeState::Open) {
        return None;
    }
    let known = [
        ProbeState::Misdirected,
        ProbeState::Failed,
        ProbeState::Asking,
        ProbeState::Waiting,
    ];
    let found = known.into_iter().find_map(|state| {
        // One with a finding is not asked for the first time.
        let some = targets.iter().filter(|it| it.state == state);
        some.max_by_key(|it| it.finding.is_some())
    })?;
    let waits = found.state == ProbeState::Waiting;
    if waits && report.replicas.silent_targets == 0 {
        // For a first client; other causes say why none comes.
        return None;
    }
    Some(not_copying(
        Cause::FirstContact,
        &unproven(found),
        other_way(found),
    ))
}

/// No packet since the start.
fn silence(facts: &Facts<'_>) -> Option<Why> {
    let Facts { report, .. } = facts;
    if report.recording.is_some()
        || report.packets.client_segments > 0
        || report.duration_seconds < SILENT
        || is_without_pods(facts)
    {
        return None;
    }
    // Pods may have come long after the start.
    let since = facts.pods.iter().filter_map(|it| it.since).min();
    let seconds = match since.filter(|_| are_all_in_pods(facts.services)) {
        Some(since) => since.elapsed().as_secs_f64(),
        None => report.duration_seconds,
    };
    if seconds < SILENT {
        return None;
    }
    let why = format!(
        "no packet of a client for {} was seen in {seconds:.0} s",
        ports(facts.services),
    );
    let next = match are_all_in_pods(facts.services) {
        true => Some(format!(
            "{}; where they pass by devices that no route names, as with Cilium: -i any",
            where_to_look(facts.services)
        )),
        false => (facts.listeners)().map(|here| nobody(facts.services, &here)),
    };
    Some(not_copying(Cause::Silence, &why, next.as_deref()))
}

/// Targets that took something take nothing any more.
fn stalled(facts: &Facts<'_>) -> Option<Why> {
    let seconds = facts.recent.stalled_seconds;
    if seconds < STALLED {
        return None;
    }
    let why = format!("the targets have acknowledged nothing for {seconds:.0} s");
    Some(not_copying(
        Cause::Stalled,
        &why,
        Some("are they up, and do their answers still come back to an interceptor?"),
    ))
}

/// Nothing connects.
fn refusal(facts: &Facts<'_>) -> Option<Why> {
    let Recent {
        opened,
        established,
        delivered_bytes,
        aborted,
        refused,
        ..
    } = facts.recent;
    if *established > 0 || *delivered_bytes > 0 {
        return None;
    }
    let first = |counts: &BTreeMap<String, u64>, remedy: fn(&str) -> Option<&'static str>| {
        let known = counts
            .iter()
            .filter_map(|(reason, count)| Some((*count, reason.clone(), remedy(reason)?)));
        known.max()
    };
    let failed = aborted
        .iter()
        .filter(|(reason, _)| NEVER_OPENED.contains(&reason.as_str()))
        .map(|(reason, count)| (reason.clone(), *count))
        .collect();
    if *opened > 0
        && let Some((count, reason, means)) = first(&failed, remedies::of_abort)
        && count <= *opened
    {
        let why =
            format!("no copied connection comes about: {count} of {opened} ended as `{reason}`");
        return Some(not_copying(Cause::Refused, &why, Some(means)));
    }
    let (count, reason, means) = first(refused, remedies::of_refusal)?;
    if *opened > 0 {
        return None;
    }
    let why = format!("no session is taken: {count} refused as `{reason}`");
    Some(not_copying(Cause::Refused, &why, Some(means)))
}

#[cfg(test)]
mod tests {
    use millrace_channel::hold::HoldStatus;
    use millrace_channel::link::LinkStatus;
    use millrace_notation::address::Mapping;

    use super::*;
    use crate::cluster::fleet::Known;
    use crate::report::{Counts, Report};
    use millrace_replay::probe::ProbeStatus;

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
            last_error: "198.18.2.30:36524 refuses the connection".to_owned(),
            ..LinkStatus::default()
        }
    }

    /// A copier that copies, changed.
    fn said(
        change: impl FnOnce(&mut Report, &mut Vec<LinkStatus>, &mut Vec<HoldStatus>),
    ) -> Headline {
        let services = ["80-198.18.2.20:80", "81-198.18.2.20:81"];
        let services = services.map(|service| service.parse::<Mapping>().unwrap());
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
        report.sessions.seen = vec![true, true];
        report.replicas.opened = 40;
        report.replicas.established = 40;
        report.bytes.wanted = 4000;
        report.bytes.delivered = 4000;
        let (mut links, mut agents) = (vec![link(true)], Vec::new());
        change(&mut report, &mut links, &mut agents);
        let recent = super::super::window::Window::default().recent(&report);
        headline(&Facts {
            services: &services,
            pods: &[],
            report: &report,
            recent: &recent,
            links: &links,
            agents: &agents,
            known: &[Known::default(), Known::default()],
            unowned: None,
            unplanned: None,
            mute: None,
            plan_command: "",
            listeners: &|| Some(std::sync::Arc::default()),
            room: &None,
        })
    }

    #[test]
    fn a_copier_that_copies_says_how_much() {
        let headline = said(|_, _, _| {});
        assert_eq!(
            headline.sentence,
            "copying 100% of 80-198.18.2.20:80,81-198.18.2.20:81: 2.0 sessions/s, 0.0 kB/s, 1.000000 delivered in the last 20 s"
        );
        assert_eq!(headline.state, State::Copying);
        assert_eq!((headline.next, headline.also.len()), (None, 0));
    }

    #[test]
    fn each_cause_is_named_and_the_first_one_first() {
        let cause = |headline: Headline, cause: Cause, words: &str| {
            assert_eq!(headline.state, State::NotCopying, "{headline:?}");
            assert_eq!(headline.cause, Some(cause), "{headline:?}");
            assert!(headline.sentence.contains(words), "{headline:?}");
        };
        let away = said(|_, links, _| links[0].connected = false);
        assert!(away.next.as_ref().unwrap().starts_with("start millrace"));
        cause(
            away,
            Cause::Interceptors,
            "no interceptor is connected (198.18.2.30:36524 refuses the connection)",
        );
        let other = said(|_, links, _| {
            links[0].connected = false;
            links[0].last_error = "this host forwards packets".to_owned();
        });
        assert_eq!(other.next, None);
        cause(other, Cause::Interceptors, "30:36524: this host forwards");
        cause(
            said(|report, links, _| {
                links[0].connected = false;
                report.intensity.mode = Mode::Paused;
                report.replicas.open = 3;
            }),
            Cause::Operator,
            "paused by the operator; 3 open copies go on",
        );
        cause(
            said(|report, _, _| report.intensity.now = 0.0),
            Cause::Operator,
            "the intensity is 0",
        );
        cause(
            said(|report, _, _| report.held_back = Some("it is ending".to_owned())),
            Cause::HeldBack,
            "it is ending",
        );
        cause(
            said(|_, _, agents| {
                agents.push(HoldStatus {
                    trouble: "a rule is gone".to_owned(),
                    ..HoldStatus::default()
                });
            }),
            Cause::RouterAgents,
            "a rule is gone",
        );
        for state in [ProbeState::Failed, ProbeState::Asking] {
            cause(
                said(|report, _, _| {
                    report.targets = vec![target(state, Some("not diverted"))];
                }),
                Cause::FirstContact,
                "198.18.2.20:80: not diverted",
            );
        }
        cause(
            said(|report, _, _| {
                report.targets = vec![target(ProbeState::Waiting, None)];
                report.replicas.silent_targets = 1;
            }),
            Cause::FirstContact,
            "fell silent",
        );
        cause(
            said(|report, _, _| {
                report.packets.client_segments = 0;
                report.targets = vec![target(ProbeState::Waiting, None)];
            }),
            Cause::Silence,
            "no packet of a client for ports 80, 81 was seen in 20 s",
        );
        cause(
            said(|report, _, _| {
                report.replicas.established = 0;
                report.bytes.delivered = 0;
                report.replicas.aborted = Counts::from([("refused", 40), ("target_closed", 99)]);
            }),
            Cause::Refused,
            "no copied connection comes about: 40 of 40 ended as `refused`",
        );
        cause(
            said(|report, _, _| {
                report.replicas.established = 0;
                report.replicas.opened = 0;
                report.bytes.delivered = 0;
                report.sessions.refused = Counts::from([("sources", 40), ("max_open", 99)]);
            }),
            Cause::Refused,
            "no session is taken: 40 refused as `sources`",
        );
    }

    #[test]
    fn a_connection_that_is_refused_beside_long_ones_that_go_on_is_no_standstill() {
        let headline = said(|report, _, _| {
            report.replicas.established = 0;
            report.replicas.opened = 1;
            report.replicas.aborted = Counts::from([("refused", 1)]);
        });
        assert_eq!(headline.state, State::Copying, "{headline:?}");
    }

    #[test]
    fn what_goes_wrong_besides_is_said_and_a_few_are_not() {
        let headline = said(|report, links, _| {
            report.capture.dropped = 7;
            report.replicas.aborted = Counts::from([("timeout", 3), ("shutdown", 9)]);
            report.sessions.seen = vec![true];
            report.sessions.encrypted = 20;
            let failed = target(ProbeState::Failed, Some("lost at the router"));
            report.targets.push(failed);
            links.push(link(false));
        });
        assert_eq!(headline.state, State::Copying);
        let texts: Vec<&str> = headline.also.iter().map(|it| it.text.as_str()).collect();
        let [lost, target, link, mute, timeout, tls] = texts.as_slice() else {
            panic!("{headline:?}");
        };
        assert!(lost.contains("7 frames") && target.contains("lost at the router"));
        assert!(link.contains("refuses the connection") && timeout.contains("3 copied"));
        let words = "no connection to port 81 was seen since the start: nothing on this host listens on port 81";
        assert!(mute.starts_with(words), "{mute}");
        assert!(tls.starts_with("20 of the last 40 sessions began with TLS"));
        let few = said(|report, _, _| {
            report.packets.black_holes = 9;
            report.replicas.opened = 1000;
            report.sessions.captured = 1000;
            report.sessions.encrypted = 3;
            report.replicas.aborted = Counts::from([("timeout", 3)]);
        });
        assert_eq!(few.also, []);
        let swallowed = said(|report, _, _| report.packets.black_holes = 9);
        let texts: Vec<&str> = swallowed.also.iter().map(|it| it.text.as_str()).collect();
        let words = "9 copied connections went on with smaller packets alone";
        assert!(
            matches!(texts.as_slice(), [it] if it.starts_with(words)),
            "{texts:?}"
        );
    }
}
