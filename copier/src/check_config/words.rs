//! What will be copied, to where, how much and through what, in words.

use std::time::Duration;

use millrace_engine::{Intensity, SourcePool};
use millrace_notation::address::{Live, Mapping};
use millrace_notation::units;
use millrace_pilot::guard::Action;
use millrace_pilot::ramp::Stage;
use millrace_replay::local;
use millrace_replay::outlet::SendPath;

use crate::options::Options;
use crate::otlp::Clients;
use crate::plan::Plan;

/// Titles and their lines.
pub(super) fn sections(options: &Options, plan: &Plan) -> Vec<(&'static str, Vec<String>)> {
    let all = [
        ("What is copied", services(options)),
        ("Where it comes from", input(options, plan)),
        ("How much", how_much(plan)),
        ("As whom", sources(options, plan)),
        ("How it is sent", sending(options, plan)),
        ("How answers come back", answers(options, plan)),
        ("Limits", limits(options, plan)),
        ("Traces", traces(options, plan)),
    ];
    all.into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .collect()
}

fn services(options: &Options) -> Vec<String> {
    let line = |mapping: &Mapping| {
        let live = match &mapping.live {
            Live::At(ip) => std::net::SocketAddr::new(*ip, mapping.live_port).to_string(),
            Live::Host => format!("port {} of any address of this host", mapping.live_port),
            Live::Pods(pods) => {
                format!(
                    "port {} of the pods of {pods} on this node",
                    mapping.live_port
                )
            }
        };
        format!(
            "connections of clients to {live} go to {} too",
            mapping.target
        )
    };
    let mut lines: Vec<String> = options.services.iter().map(line).collect();
    if options.only_from_syn {
        lines.push("only those whose beginning was seen".to_owned());
    } else {
        lines.push("those that are open already, from their next request on".to_owned());
    }
    lines
}

fn input(options: &Options, plan: &Plan) -> Vec<String> {
    if let Some(feed) = plan.recording() {
        let speed = match feed.speed {
            speed if speed.is_infinite() => "as fast as the target answers".to_owned(),
            1.0 => "at the speed at which it was recorded".to_owned(),
            speed => format!("{speed} times as fast as it was recorded"),
        };
        let mut lines = vec![format!(
            "the recording {}, {speed}",
            options.capture.devices.join(", ")
        )];
        if feed.rounds > 1 {
            lines.push(format!("{} times, one after the other", feed.rounds));
        }
        if let Some(pause) = feed.longest_pause {
            lines.push(format!(
                "pauses longer than {} are shortened to it",
                units::show(pause)
            ));
        }
        return lines;
    }
    let mut lines: Vec<String> = Vec::new();
    if let Some(ring) = plan.ring() {
        lines.push(format!(
            "captured on {}, with a buffer of {} MB in all",
            ring.names(),
            ring.buffer_bytes >> 20
        ));
    }
    if let Some(filter) = &options.capture.filter {
        lines.push(format!("only what the filter '{filter}' lets through"));
    }
    lines
}

fn how_much(plan: &Plan) -> Vec<String> {
    let pilot = &plan.pilot;
    let mut lines = Vec::new();
    match &pilot.ramp {
        None => lines.push(format!(
            "{}{}",
            amount(pilot.intensity),
            times(pilot.factor)
        )),
        Some(ramp) => {
            let mut at = Duration::ZERO;
            let mut before = None;
            for stage in ramp.stages() {
                lines.push(format!(
                    "from {}: {}",
                    units::show(at),
                    stage_in_words(stage, before)
                ));
                at += stage.over;
                before = Some(*stage);
            }
            let end = amount(ramp.end());
            lines.push(format!("and so it stays: {end}{}", times(pilot.factor)));
        }
    }
    for guard in &pilot.guards {
        let action = match guard.action {
            Action::Hold => "the ramp waits",
            Action::StepBack => "it goes back to where the last rise began, or to half",
            Action::Stop => "nothing more is copied until you say so",
        };
        lines.push(format!("when {}>{}: {action}", guard.metric, guard.limit));
    }
    if !pilot.guards.is_empty() {
        lines.push(format!(
            "guards look back {} and judge {} events or more",
            units::show(pilot.window),
            pilot.min_sample
        ));
    }
    lines
}

fn stage_in_words(stage: &Stage, before: Option<Stage>) -> String {
    let Stage { from, to, over } = stage;
    let time = units::show(*over);
    if over.is_zero() {
        amount(*to)
    } else if stage.stays(before) {
        format!("stays for {time}")
    } else if from == to {
        format!("{} for {time}", amount(*to))
    } else {
        format!("from {} to {} within {time}", percent(*from), percent(*to))
    }
}

fn percent(intensity: Intensity) -> String {
    format!("{}%", (intensity.as_ratio() * 1e6).round() / 1e4)
}

/// How often each session is copied that the intensity chooses, in words.
fn times(factor: u16) -> String {
    match factor {
        0 | 1 => String::new(),
        factor => format!(", each of them {factor} times"),
    }
}

/// An intensity in words.
pub(super) fn amount(intensity: Intensity) -> String {
    let ratio = intensity.as_ratio();
    let (whole, part) = (ratio.floor(), ratio.fract());
    let share = format!("{}% of the sessions", (part * 1e6).round() / 1e4);
    match (whole as u64, part > 0.0) {
        (0, false) => "nothing".to_owned(),
        (0, true) => format!("{share}, always the same ones"),
        (1, false) => "every session once".to_owned(),
        (n, false) => format!("every session {n} times"),
        (n, true) => format!("every session {n} times, and {share} once more"),
    }
}

fn sources(options: &Options, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    match (&plan.engine.sources, &options.client_pool) {
        (SourcePool::Ranges(_), Some(pool)) => {
            lines.push(format!(
                "copied connections come from the client pool {pool}"
            ));
        }
        (SourcePool::Ranges(ranges), None) => {
            let shown: Vec<String> = ranges
                .iter()
                .map(|(first, last)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}-{last}"),
                })
                .collect();
            lines.push(format!("copied connections come from {}", shown.join(", ")));
        }
        (SourcePool::Clients, _) => {
            lines.push("copied connections bear their clients' own addresses".to_owned());
        }
    }
    lines.extend(plan.capacity());
    for ip in &options.loopback_clients {
        lines.push(format!(
            "{ip} stands in for clients on this host's loopback address"
        ));
    }
    if options.protocol.read_only {
        let has_module = |place: usize| plan.protocols.each().any(|(it, _)| it == place);
        let services = plan.engine.services.iter().enumerate();
        let others = services.filter(|(place, _)| !has_module(*place));
        let others: Vec<String> = others.map(|(_, it)| it.live_port.to_string()).collect();
        lines.push("nothing that writes is sent to targets of protocol modules".to_owned());
        if !others.is_empty() {
            lines.push(format!(
                "everything is sent of port {}: it has no protocol module, and --read-only is not for it",
                others.join(", ")
            ));
        }
    }
    for (place, kind) in plan.protocols.each() {
        if let Some(service) = plan.engine.services.get(place) {
            lines.push(format!(
                "sessions of port {} are replayed by the protocol module {kind}",
                service.live_port
            ));
        }
    }
    if plan.pilot.intensity > Intensity::ONE && !plan.engine.spread.is_zero() {
        lines.push(format!(
            "the copies of one session begin up to {} apart",
            units::show(plan.engine.spread)
        ));
    }
    lines
}

fn sending(options: &Options, plan: &Plan) -> Vec<String> {
    let past = "past this host's firewall and connection tracking";
    let way = match &plan.outlet.way {
        SendPath::Link(hops) => {
            let device = hops.device.as_deref().unwrap_or_default();
            format!("at the link layer from {device}, {past}")
        }
        SendPath::Auto { .. } => format!(
            "at the link layer, {past}; through its routing if the way to a target leads out of another device than \
             an Ethernet"
        ),
        SendPath::Routed { .. } => "through this host's routing, as packets of its own".to_owned(),
    };
    let order = if plan.engine.gate {
        "each request when the target has answered the one before, after the client's own pause"
    } else {
        "each request when it was captured, without waiting for answers"
    };
    vec![
        way,
        order.to_owned(),
        format!("in packets of at most {} bytes", options.sending.mtu),
    ]
}

fn answers(options: &Options, plan: &Plan) -> Vec<String> {
    if let Some(local) = &plan.local {
        return vec![match &local.way {
            local::CatchBy::Tun => "this host catches them itself, in a tun device".to_owned(),
            local::CatchBy::Shield(_) => {
                "this host catches them itself; an nftables table keeps its own TCP \
                               from answering them"
                    .to_owned()
            }
            local::CatchBy::Pool(_) => {
                "this host catches them itself: the network must bring what is sent to \
                             the client pool to it"
                    .to_owned()
            }
        }];
    }
    let mut lines = vec![format!(
        "their headers through {}, over {} each, {}",
        plan.interceptors,
        match plan.connections {
            1 => "one connection".to_owned(),
            n => format!("{n} connections"),
        },
        if options.common.insecure {
            "in plain text"
        } else {
            "encrypted and authenticated"
        }
    )];
    lines.push(match &plan.claim {
        Some(_) => "they know them by the addresses of the client pool".to_owned(),
        None => "they are told of each copied connection".to_owned(),
    });
    if plan.router_agents.is_empty() {
        lines.push("the routes that keep them from real clients are somebody else's".to_owned());
    } else {
        lines.push(format!(
            "{} keep them from real clients while this copier lives",
            plan.router_agents
        ));
    }
    lines.push(match plan.probe {
        true => "nothing is copied to a target before a probe's answer has come back".to_owned(),
        false => "without a probe".to_owned(),
    });
    lines
}

fn limits(options: &Options, plan: &Plan) -> Vec<String> {
    let limits = &options.limits;
    let buffer = plan.ring().map_or(0, |ring| ring.buffer_bytes as u64);
    let memory = (plan.pressure.memory + buffer) >> 20;
    let mut lines = vec![format!(
        "{memory} MB of memory; {} s without an answer end a copy, {} s of silence a session; at the end \
         open ones get {} s",
        limits.answer_timeout, limits.idle_timeout, limits.grace
    )];
    if let Some(most) = limits.max_cpu {
        lines.push(format!("at most {most}% of a core"));
    }
    if let Some(most) = limits.max_new_sessions {
        lines.push(format!("at most {most} new sessions a second"));
    }
    if let Some(most) = limits.max_open {
        lines.push(format!("at most {most} sessions at the same time"));
    }
    if let Some(rate) = limits.max_bandwidth {
        lines.push(format!("at most {rate} bytes of payload a second"));
    }
    lines
}

fn traces(options: &Options, plan: &Plan) -> Vec<String> {
    let Some(traces) = &plan.traces else {
        return Vec::new();
    };
    let addresses = match traces.clients {
        Clients::None => "no client addresses",
        Clients::Hashed => "a hash of client addresses",
        Clients::Plain => "client addresses",
    };
    vec![format!(
        "a span for each turn of {} of the sessions goes to {}, with {addresses}",
        percent(options.otlp.share()),
        traces.collector.url()
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_stays_only_at_the_level_before_it() {
        let ramp: millrace_pilot::ramp::Ramp =
            "50%,hold:5m,10%..10%/5m,10%..20%/1m".parse().unwrap();
        let mut before = None;
        let mut words = Vec::new();
        for stage in ramp.stages() {
            words.push(stage_in_words(stage, before));
            before = Some(*stage);
        }
        let said = [
            "50% of the sessions, always the same ones",
            "stays for 5m",
            "10% of the sessions, always the same ones for 5m",
            "from 10% to 20% within 60s",
        ];
        assert_eq!(words, said);
    }

    #[test]
    fn amounts_in_words() {
        for (ratio, words) in [
            (0.0, "nothing"),
            (0.2, "20% of the sessions, always the same ones"),
            (1.0, "every session once"),
            (
                2.5,
                "every session 2 times, and 50% of the sessions once more",
            ),
            (1000.0, "every session 1000 times"),
        ] {
            assert_eq!(amount(Intensity::from_ratio(ratio)), words);
        }
    }
}
