//! What goes wrong while others go on.

use millrace_channel::link::LinkStatus;
use millrace_notation::address::Mapping;

use super::causes::SILENT;
use super::remedies;
use super::window::Recent;
use super::words::{NAMED, count, down, percent, unproven};
use super::{Facts, Remark};
use crate::report::Report;
use crate::sockets::{nobody, ports};
use millrace_replay::probe::ProbeState;

/// So many of a hundred are worth a word.
const PERCENT: u64 = 1;

/// What goes wrong besides.
pub(super) fn also(facts: &Facts<'_>) -> Vec<Remark> {
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
    let doubts = facts.known.iter().filter(|known| !known.unknown);
    let mut doubts: Vec<&String> = doubts.filter_map(|known| known.doubt.as_ref()).collect();
    doubts.dedup();
    all.extend(doubts.into_iter().map(|why| {
        let text = format!("interceptors and router-agents stay as they were known last: {why}");
        told("consul", text)
    }));
    all.extend(facts.pods.iter().filter_map(|service| {
        let why = service.doubt.as_ref()?;
        let text = match service.pods.is_empty() {
            true => format!("the pods of {} are not known: {why}", service.service),
            false => format!(
                "the pods of {} stay as they were known last: {why}",
                service.service
            ),
        };
        Some(told(&service.service, text))
    }));
    all.extend(facts.mute.map(|why| {
        let text = format!(
            "guards of the cluster's plan act for this copier alone, which cannot write there: {why}"
        );
        told("plan", text)
    }));
    all.extend(limited(report).map(|text| told("intensity", text)));
    all.extend(mute(facts));
    all.extend(reasons(recent));
    all.extend(encrypted(recent));
    all.extend(swallowed(facts));
    all.extend(facts.room.clone().map(|text| Remark {
        about: "report".to_owned(),
        text,
        // The check of the start has said it.
        is_news: false,
    }));
    for agent in facts.agents {
        let text = |warning: &String| format!("router-agent {}: {warning}", agent.address);
        let warnings = agent.warnings.iter();
        all.extend(warnings.map(|it| told(&agent.address, text(it))));
    }
    all
}

/// This copier's own limit, where it copies less than the cluster's plan says.
fn limited(report: &Report) -> Option<String> {
    let plan = report.intensity.plan.as_ref()?;
    (report.intensity.now < plan.now).then(|| {
        format!(
            "this copier copies {}, less than the {} of the cluster's plan: its own -n, -r, --intensity, --guard or \
             `ctl` without --cluster says so",
            percent(report.intensity.now),
            percent(plan.now)
        )
    })
}

/// Services of which nothing came, where others have clients.
fn mute(facts: &Facts<'_>) -> Vec<Remark> {
    let Facts { report, .. } = facts;
    let seen = |at: usize| report.sessions.seen.get(at).copied().unwrap_or(false);
    if report.recording.is_some() || report.duration_seconds < SILENT {
        return Vec::new();
    }
    let services = facts.services.iter().enumerate();
    let without_pods = |service: &Mapping| {
        let name = service.live_text();
        let mut known = facts.pods.iter();
        known.any(|it| it.service == name && it.pods.is_empty())
    };
    let mute: Vec<Mapping> = services
        .filter(|(at, service)| !seen(*at) && !without_pods(service))
        .map(|(_, service)| service.clone())
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

/// A way that takes less than is sent.
fn swallowed(facts: &Facts<'_>) -> Option<Remark> {
    let Recent {
        black_holes,
        opened,
        ..
    } = facts.recent;
    let target = facts.services.first()?.target;
    // What a ping carries beside the headers of IP and ICMP.
    let (largest, headers) = match target.is_ipv4() {
        true => (1472, 28),
        false => (1452, 48),
    };
    (*black_holes > 0 && black_holes * 100 >= opened * PERCENT).then(|| Remark {
        about: "mtu".to_owned(),
        text: format!(
            "{} went on with smaller packets alone, after time-outs: the target was away for a moment, or the way to it does not \
             take the largest;              `ping -M do -s {largest} {}` tells; the size with which it is answered, and {headers} more, is the MTU to copy \
             with (-M)",
            count(*black_holes, "copied connection"),
            target.ip()
        ),
        is_news: true,
    })
}
