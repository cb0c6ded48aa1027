//! Parts and figures in words.

use millrace_channel::link::LinkStatus;
use millrace_engine::ClientKind;

use super::window::Recent;
use millrace_notation::units::shown;
use millrace_replay::probe::{ProbeState, ProbeStatus};

/// Parts of one kind that are named.
pub(super) const NAMED: usize = 3;

/// A link that is down, and why.
pub(super) fn down(link: &LinkStatus) -> String {
    match link.last_error.as_str() {
        "" => format!("{}: no answer yet", link.address),
        error if error.contains(&link.address) => error.to_owned(),
        error => format!("{}: {error}", link.address),
    }
}

pub(super) fn unproven(target: &ProbeStatus) -> String {
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

/// What helps where a target's answers to some clients go another way than those to others.
pub(super) fn other_way(target: &ProbeStatus) -> Option<&'static str> {
    (target.clients == Some(ClientKind::Segment.name())).then_some(
        "the target answers clients of its own network without a router, past the assistant: run \
         millrace-router-agent on the target (--router-agent), or copy with addresses of a pool (-c)",
    )
}

/// So many of these, for people.
pub(super) fn count(count: u64, what: &str) -> String {
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
pub(super) fn rate(bytes: f64) -> String {
    match bytes < 1e6 {
        true => format!("{:.1} kB/s", bytes / 1e3),
        false => format!("{:.1} MB/s", bytes / 1e6),
    }
}

/// The share that was delivered lately, for people. `under_way` bytes may still be.
pub(super) fn delivered(recent: &Recent, under_way: u64) -> String {
    let (wanted, got) = (recent.wanted_bytes, recent.delivered_bytes);
    let lately = format!("in the last {:.0} s", recent.seconds);
    if wanted == 0 {
        return format!("nothing to deliver {lately}");
    }
    let share = shown((got as f64 / wanted as f64).min(1.0));
    match wanted.saturating_sub(got) {
        0 => format!("{share} delivered {lately}"),
        rest if rest <= under_way => format!("{share} delivered {lately}, the rest is under way"),
        _ => format!("{share} delivered {lately}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_not_lost() {
        let lately = |wanted_bytes, delivered_bytes, under_way| {
            let recent = Recent {
                seconds: 5.0,
                wanted_bytes,
                delivered_bytes,
                ..Recent::default()
            };
            delivered(&recent, under_way)
        };
        assert_eq!(lately(0, 0, 0), "nothing to deliver in the last 5 s");
        assert_eq!(lately(9, 9, 0), "1.000000 delivered in the last 5 s");
        let young = lately(100, 0, 100);
        assert_eq!(
            young,
            "0.000000 delivered in the last 5 s, the rest is under way"
        );
        assert_eq!(lately(100, 50, 49), "0.500000 delivered in the last 5 s");
    }
}
