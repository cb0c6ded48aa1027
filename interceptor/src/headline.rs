//! How an interceptor stands, in one sentence: at /status and in `millrace-interceptor status`.

use millrace_daemon::status::{Headline, State, first_lines};
use serde_json::Value;

use crate::counters::Counters;
use crate::options::Mode;

/// More than one header of so many without an owner, or frame that was lost, is worth a word.
const FEW: u64 = 100;

/// How it stands with so many streams of copiers. `forwards` says why this host would send on what is diverted to it.
pub(crate) fn headline(
    mode: Mode,
    forwards: Option<&str>,
    counters: &Counters,
    streams: usize,
) -> Headline {
    let mut headline = match (forwards, streams, counters.captured) {
        (Some(why), ..) => {
            Headline::new(State::NotWorking, format!("no copier is served: {why}"))
        }
        (None, 0, _) => Headline::new(State::Idle, "no copier is connected")
            .next("name this host with -s of millrace-copier; its `status` says why it does not connect"),
        (None, _, 0) => Headline::new(
            State::Idle,
            format!("{} connected, and no response has come", links(streams)),
        )
        .next(match mode {
            Mode::Sink | Mode::Nfqueue => {
                "`millrace-router-agent status` on this host; `millrace-copier status` says what is not sent, and why"
            }
            Mode::Link => {
                "on the target, `ip route get CLIENT` must lead here; `millrace-copier status` says what is not sent"
            }
        }),
        (None, ..) => Headline::new(
            State::Working,
            format!(
                "returning responses to {}: {} headers of {} frames",
                links(streams),
                counters.returned,
                counters.captured
            ),
        ),
    };
    headline.also = also(counters);
    headline
}

fn links(count: usize) -> String {
    match count {
        1 => "1 stream of a copier".to_owned(),
        _ => format!("{count} streams of copiers"),
    }
}

/// What goes wrong besides.
fn also(counters: &Counters) -> Vec<String> {
    let many = |count: u64| count > 0 && count * FEW >= counters.captured;
    let Counters {
        capture_dropped,
        dropped,
        unowned,
        clients_own,
        flows_over_limit,
        ..
    } = *counters;
    let all = [
        (
            capture_dropped > 0,
            format!(
                "{capture_dropped} frames were lost in capture: give it more CPU time, or a larger buffer (-B)"
            ),
        ),
        (
            dropped > 0,
            format!(
                "{dropped} headers were dropped, since a copier reads too slowly: give the copier more CPU time"
            ),
        ),
        (
            flows_over_limit > 0,
            format!("{flows_over_limit} flows were refused (--max-flows)"),
        ),
        (
            clients_own > 0,
            format!(
                "{clients_own} responses to copies were addressed to this host itself: it was a client, and its kernel reset \
                 them; run millrace-interceptor on a host that is nobody's client"
            ),
        ),
        (
            many(unowned),
            format!(
                "{unowned} headers belong to no copier: other traffic is diverted here, or a copier that owned them is gone"
            ),
        ),
    ];
    all.into_iter()
        .filter_map(|(is, text)| is.then_some(text))
        .collect()
}

/// One screen.
pub(crate) fn screen(status: &Value) -> String {
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let text = |path: &str| {
        status
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let mut screen = first_lines(status);
    screen += &format!("  interceptor version {}\n", text("/version"));
    screen += &format!(
        "  responses   {} frames, {} lost; {} headers returned, {} waiting, {} without an owner, {} dropped\n",
        number("/report/captured"),
        number("/report/capture_dropped"),
        number("/report/returned"),
        number("/report/waiting"),
        number("/report/unowned"),
        number("/report/dropped"),
    );
    screen += &format!(
        "  flows       {} announced now, {} contested, {} over the limit\n",
        number("/report/flows"),
        number("/report/flow_conflicts"),
        number("/report/flows_over_limit"),
    );
    let streams = status
        .pointer("/copiers/connections")
        .and_then(Value::as_array);
    for stream in streams.into_iter().flatten() {
        screen += &format!(
            "    copier {} from {}, link {} of {}\n",
            stream["copier_id"].as_str().unwrap_or_default(),
            stream["address"].as_str().unwrap_or("?"),
            stream["link"].as_u64().unwrap_or(0) + 1,
            stream["links"]
        );
    }
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(forwards: Option<&str>, counters: &Counters, streams: usize) -> Headline {
        headline(Mode::Link, forwards, counters, streams)
    }

    #[test]
    fn the_sentence_says_who_is_served_or_why_nobody_is() {
        let counters = Counters::default();
        assert!(
            said(Some("it forwards"), &counters, 1)
                .sentence
                .ends_with("it forwards")
        );
        assert_eq!(said(None, &counters, 0).sentence, "no copier is connected");
        let silent = said(None, &counters, 2);
        assert_eq!(silent.state, State::Idle);
        assert!(silent.next.unwrap().contains("ip route get CLIENT"));
        let counters = Counters {
            captured: 1000,
            returned: 990,
            capture_dropped: 5,
            unowned: 5,
            ..Counters::default()
        };
        let working = said(None, &counters, 1);
        assert_eq!(
            working.sentence,
            "returning responses to 1 stream of a copier: 990 headers of 1000 frames"
        );
        assert_eq!(
            working.also.len(),
            1,
            "few without an owner are no news: {working:?}"
        );
    }
}
