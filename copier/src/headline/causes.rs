//! What keeps a copier from copying, the first cause first: what an operator has decided, then the way to the target
//! from its near end to its far one.

use std::collections::BTreeMap;

use millrace_fleet::address::Mapping;
use millrace_fleet::link::LinkStatus;

use super::listeners::Listeners;
use super::remedies;
use super::window::Recent;
use super::{Cause, Facts, Headline, Remark, State};
use crate::control::Mode;
use crate::probe::{ProbeState, ProbeStatus};
use crate::units::shown;

/// Without a packet for so long, somebody must look, in seconds.
const SILENT: f64 = 10.0;
/// Without an acknowledgement for so long, too, in seconds.
const STALLED: f64 = 10.0;
/// So many of a hundred are worth a word.
const PERCENT: u64 = 1;
/// Parts of one kind that are named.
const NAMED: usize = 3;
/// Reasons for which copied connections do not come about.
const NEVER_OPENED: [&str; 2] = ["refused", "timeout"];

/// Why nothing is copied, and what to do.
type Why = (Cause, String, Option<String>);

/// How things stand.
pub(super) fn headline(facts: &Facts<'_>) -> Headline {
    let causes: [fn(&Facts<'_>) -> Option<Why>; 9] = [
        starting, decided, held_back, links, agents, targets, silence, stalled, refusal,
    ];
    let also = also(facts);
    if let Some((cause, sentence, next)) = causes.iter().find_map(|cause| cause(facts)) {
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
    Headline {
        state: if idle.is_some() {
            State::Idle
        } else {
            State::Copying
        },
        cause: None,
        sentence: idle.unwrap_or_else(|| copying(facts)),
        next: None,
        also,
    }
}

/// Why there is nothing to copy at the moment, though nothing keeps the copier from it.
fn idle(facts: &Facts<'_>) -> Option<String> {
    let Facts { report, recent, .. } = facts;
    let ports = ports(facts.services);
    let seconds = recent.seconds;
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
        delivered(recent),
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

fn held_back(facts: &Facts<'_>) -> Option<Why> {
    let why = facts.report.held_back.as_ref()?;
    Some(not_copying(Cause::HeldBack, why, None))
}

fn links(facts: &Facts<'_>) -> Option<Why> {
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

/// A link that is down, and why.
fn down(link: &LinkStatus) -> String {
    match link.last_error.as_str() {
        "" => format!("{}: no answer yet", link.address),
        error if error.contains(&link.address) => error.to_owned(),
        error => format!("{}: {error}", link.address),
    }
}

fn agents(facts: &Facts<'_>) -> Option<Why> {
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
    Some(not_copying(Cause::FirstContact, &unproven(found), None))
}

fn unproven(target: &ProbeStatus) -> String {
    let name = &target.target;
    match (&target.finding, target.state) {
        (Some(finding), ProbeState::Failed | ProbeState::Misdirected | ProbeState::Asking) => {
            format!("{name}: {finding}")
        }
        (None, ProbeState::Failed) => format!("no probe of {name} came back"),
        (None, ProbeState::Misdirected) => format!("{name} leads to the live service again"),
        (_, ProbeState::Waiting) => format!("{name} fell silent, and is asked again"),
        (_, ProbeState::Asking | ProbeState::Open) => {
            format!("first contact with {name} is under way")
        }
    }
}

/// No packet since the start.
fn silence(facts: &Facts<'_>) -> Option<Why> {
    let Facts { report, .. } = facts;
    if report.recording.is_some()
        || report.packets.client_segments > 0
        || report.duration_seconds < SILENT
    {
        return None;
    }
    let why = format!(
        "no packet of a client for {} was seen in {:.0} s",
        ports(facts.services),
        report.duration_seconds
    );
    let next = (facts.listeners)().map(|here| nobody(facts.services, &here));
    Some(not_copying(Cause::Silence, &why, next.as_deref()))
}

/// Why no packet of these services may come.
fn nobody(services: &[Mapping], here: &Listeners) -> String {
    let known = services
        .iter()
        .find_map(|it| here.of(it.live_ip, it.live_port));
    let port = services.first().map_or(0, |it| it.live_port);
    let capture = format!(
        "check -x and -i: `tcpdump -ni any tcp port {port}` shows where clients' packets come by"
    );
    match known {
        Some(known) => format!("{known}; {capture}"),
        None => format!(
            "{capture}; a container has devices of its own, and a proxy speaks to it from this host (-i lo)"
        ),
    }
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

/// What goes wrong besides.
fn also(facts: &Facts<'_>) -> Vec<Remark> {
    let Facts { report, recent, .. } = facts;
    let told = |about: &str, text: String| Remark {
        about: about.to_owned(),
        text,
        is_news: false,
    };
    let mut all = Vec::new();
    if recent.dropped > 0 {
        let text = format!(
            "capture lost {} in {:.0} s: give the copier more CPU time or a larger buffer (-B)",
            count(recent.dropped, "frame"),
            recent.seconds
        );
        all.push(told("capture", text));
    }
    let open = report.targets.iter().any(|it| it.state == ProbeState::Open);
    let wrong = [ProbeState::Failed, ProbeState::Misdirected];
    let failed = report.targets.iter();
    let failed = failed.filter(|it| open && wrong.contains(&it.state));
    all.extend(failed.take(NAMED).map(|target| {
        let clients = target.clients.map(|kind| format!(" for clients {kind}"));
        let clients = clients.unwrap_or_default();
        told(
            &target.target,
            format!("nothing is sent{clients}: {}", unproven(target)),
        )
    }));
    if facts.links.iter().any(|link| link.connected) {
        let away = facts.links.iter().filter(|link| !link.connected);
        let text = |link: &LinkStatus| format!("an interceptor is away: {}", down(link));
        all.extend(away.take(NAMED).map(|link| told(&link.address, text(link))));
    }
    all.extend(mute(facts));
    all.extend(reasons(recent));
    all.extend(encrypted(recent));
    for agent in facts.agents {
        let text = |warning: &String| format!("router-agent {}: {warning}", agent.address);
        let warnings = agent.warnings.iter();
        all.extend(warnings.map(|it| told(&agent.address, text(it))));
    }
    all
}

/// Services of which nothing came, where others have clients.
fn mute(facts: &Facts<'_>) -> Vec<Remark> {
    let Facts { report, .. } = facts;
    let seen = |at: usize| report.sessions.seen.get(at).copied().unwrap_or(false);
    if report.recording.is_some() || report.duration_seconds < SILENT {
        return Vec::new();
    }
    let services = facts.services.iter().enumerate();
    let mute: Vec<Mapping> = services
        .filter(|(at, _)| !seen(*at))
        .map(|(_, service)| *service)
        .collect();
    if mute.is_empty() || mute.len() == facts.services.len() {
        return Vec::new();
    }
    let Some(here) = (facts.listeners)() else {
        // In a moment.
        return Vec::new();
    };
    let text = format!(
        "no connection to {} was seen since the start: {}",
        ports(&mute),
        nobody(&mute, &here)
    );
    vec![Remark {
        about: "services".to_owned(),
        text,
        is_news: true,
    }]
}

/// Reasons for which more than a few copies end or sessions are refused.
fn reasons(recent: &Recent) -> Vec<Remark> {
    let all = recent.opened.max(recent.sessions).max(1);
    // What first contact says of the target is its cause.
    let many = |reason: &str, count: u64| {
        count * 100 >= all * PERCENT && !["unproven", "misdirected"].contains(&reason)
    };
    let remark = |kind: &str, reason: &String, text: String| Remark {
        about: format!("{kind}.{reason}"),
        text,
        is_news: true,
    };
    let aborted = recent
        .aborted
        .iter()
        .filter(|(reason, n)| many(reason, **n));
    let aborted = aborted.filter_map(|(reason, n)| {
        let means = remedies::of_abort(reason)?;
        let copies = count(*n, "copied connection");
        Some(remark(
            "aborted",
            reason,
            format!("{copies} ended as `{reason}`: {means}"),
        ))
    });
    let refused = recent
        .refused
        .iter()
        .filter(|(reason, n)| many(reason, **n));
    let refused = refused.filter_map(|(reason, n)| {
        let means = remedies::of_refusal(reason)?;
        let sessions = count(*n, "session");
        Some(remark(
            "refused",
            reason,
            format!("{sessions} refused as `{reason}`: {means}"),
        ))
    });
    aborted.chain(refused).collect()
}

/// Sessions that begin with TLS.
fn encrypted(recent: &Recent) -> Option<Remark> {
    let Recent {
        encrypted,
        sessions,
        ..
    } = recent;
    (*encrypted > 0 && encrypted * 100 >= sessions * PERCENT).then(|| Remark {
        about: "tls".to_owned(),
        text: format!(
            "{encrypted} of the last {} with TLS: no target can read a copy of these, since their keys are agreed upon anew; \
             copy where the traffic is plain, behind the proxy that ends TLS",
            match sessions {
                1 => "session began".to_owned(),
                _ => format!("{sessions} sessions began"),
            }
        ),
        is_news: true,
    })
}

/// The live ports, for people.
fn ports(services: &[Mapping]) -> String {
    let mut ports: Vec<u16> = services.iter().map(|it| it.live_port).collect();
    ports.sort_unstable();
    ports.dedup();
    let named: Vec<String> = ports.iter().take(NAMED).map(ToString::to_string).collect();
    let more = ports.len() - named.len();
    match (named.as_slice(), more) {
        ([only], 0) => format!("port {only}"),
        (several, 0) => format!("ports {}", several.join(", ")),
        (several, more) => format!("ports {} and {more} others", several.join(", ")),
    }
}

/// So many of these, for people.
fn count(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// A share in percent, for people.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent < 1.0 && percent > 0.0 {
        true => format!("{percent:.2}%"),
        false => format!("{percent:.0}%"),
    }
}

/// Bytes in a second, for people.
fn rate(bytes: f64) -> String {
    match bytes < 1e6 {
        true => format!("{:.1} kB/s", bytes / 1e3),
        false => format!("{:.1} MB/s", bytes / 1e6),
    }
}

/// The share that was delivered lately, for people.
fn delivered(recent: &Recent) -> String {
    match recent.wanted_bytes {
        0 => format!("nothing to deliver in the last {:.0} s", recent.seconds),
        wanted => format!(
            "{} delivered in the last {:.0} s",
            shown((recent.delivered_bytes as f64 / wanted as f64).min(1.0)),
            recent.seconds
        ),
    }
}

#[cfg(test)]
mod tests {
    use millrace_fleet::hold::HoldStatus;

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
            report: &report,
            recent: &recent,
            links: &links,
            agents: &agents,
            listeners: &|| Some(std::sync::Arc::default()),
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
            report.replicas.opened = 1000;
            report.sessions.captured = 1000;
            report.sessions.encrypted = 3;
            report.replicas.aborted = Counts::from([("timeout", 3)]);
        });
        assert_eq!(few.also, []);
    }
}
