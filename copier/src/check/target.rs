//! The way to the targets.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_capture::{NextHopConfig, NextHops};
use millrace_daemon::check::Verdict;
use millrace_replay::outlet::SendPath;
use millrace_replay::probe::knock::knock;
use millrace_replay::probe::verdict::Knock;

use super::Subject;
use crate::addresses;

/// How long next hops are waited for, at most.
const PATIENCE: Duration = Duration::from_secs(1);

/// The targets, each once.
fn targets(subject: &Subject) -> Vec<SocketAddr> {
    let services = subject.plan.services.iter();
    let mut targets: Vec<SocketAddr> = services.map(|it| it.target).collect();
    targets.sort_unstable();
    targets.dedup();
    targets
}

pub(super) fn elsewhere(subject: &Subject) -> Verdict {
    let own = addresses::of_this_host();
    let here = targets(subject).into_iter().find(|target| {
        let ip = target.ip();
        own.contains(&ip) || ip.is_loopback()
    });
    let Some(target) = here.filter(|_| subject.plan.local.is_none()) else {
        return Verdict::ok("the targets are other hosts");
    };
    let found =
        format!("target {target} is this host itself: its answers would go to real clients");
    let next = "name a target on another host with -x, or replay a recording with --local";
    // A router-agent tells such answers by their port, and nobody is a client of a pool's addresses.
    let guarded = !subject.plan.router_agents.is_empty();
    match subject.plan.bears_clients_addresses() && !guarded {
        true => Verdict::failure(found, next),
        false => Verdict::warning(found, next),
    }
}

pub(super) fn route(subject: &Subject) -> Verdict {
    if subject.plan.local.is_some() {
        return Verdict::ok("answers are caught on this host");
    }
    let config = match &subject.plan.outlet.way {
        SendPath::Link(config) => config.clone(),
        SendPath::Auto { .. } | SendPath::Routed { .. } => NextHopConfig::any_ethernet(),
    };
    let hops = match NextHops::start(config.clone()) {
        Ok(hops) => hops,
        Err(error) => return Verdict::error(&error),
    };
    let mut other = Vec::new();
    for target in targets(subject) {
        // Where there is no Ethernet there is no neighbour to look for.
        match NextHops::other_than_ethernet(target.ip()) {
            Ok(Some(reason)) if config.device.is_none() => other.push(reason),
            Ok(_) => hops.add(target.ip()),
            Err(error) => return Verdict::error(&error),
        }
    }
    hops.wait_resolved(PATIENCE);
    let unresolved = hops.unresolved();
    if let Some((target, reason)) = unresolved.first() {
        return Verdict::failure(
            format!("no way to {target}: {reason}"),
            format!("`ip route get {target}`"),
        );
    }
    Verdict::ok(match other.first() {
        Some(reason) => format!("through this host's routing: {reason}"),
        None => "the next hop to each target answers".to_owned(),
    })
}

pub(super) fn mtu(subject: &Subject) -> Verdict {
    let largest = subject.plan.outlet.sender.max_packet;
    for target in targets(subject) {
        let Ok(Some((device, mtu))) = NextHops::device_to(target.ip()) else {
            continue;
        };
        if largest > mtu as usize {
            return Verdict::warning(
                format!(
                    "packets of up to {largest} bytes do not fit {device}, which leads to {target} and takes {mtu}"
                ),
                format!("-M {mtu}"),
            );
        }
    }
    Verdict::ok(format!("packets of up to {largest} bytes fit"))
}

pub(super) fn port(subject: &Subject) -> Verdict {
    if subject.plan.local.is_some() {
        return Verdict::ok("answers are caught on this host");
    }
    let asked: Vec<(SocketAddr, Option<Knock>)> = std::thread::scope(|scope| {
        let asked: Vec<_> = targets(subject)
            .into_iter()
            .map(|target| (target, scope.spawn(move || knock(target))))
            .collect();
        let answers = asked.into_iter();
        answers
            .map(|(target, answer)| (target, answer.join().ok().flatten()))
            .collect()
    });
    let refused = |(_, answer): &&(SocketAddr, Option<Knock>)| *answer == Some(Knock::Refused);
    if let Some((target, _)) = asked.iter().find(refused) {
        return Verdict::failure(
            format!("{target} refuses connections"),
            format!(
                "on the target: `ss -ltn 'sport = :{}'`, and its firewall (`nft list ruleset`)",
                target.port()
            ),
        );
    }
    let taken = |(_, answer): &&(SocketAddr, Option<Knock>)| *answer == Some(Knock::Taken);
    let silent = asked.len() - asked.iter().filter(taken).count();
    Verdict::ok(match silent {
        0 => "each target takes connections".to_owned(),
        _ => format!(
            "{silent} of {} targets do not answer this host: first contact will tell",
            asked.len()
        ),
    })
}
