//! How a router-agent stands, in one sentence: at /status and in `millrace-router-agent status`.

use millrace_daemon::status::{Headline, State, first_lines};
use serde_json::Value;

use crate::status::Status;

/// Services that are named.
const NAMED: usize = 3;

/// How it stands.
pub(crate) fn headline(status: &Status) -> Headline {
    let holders = status
        .leases
        .iter()
        .filter(|lease| lease.ends_in_seconds.is_none());
    let holders = holders.count();
    let mut headline = match (&status.unsound, status.diverted.as_slice()) {
        (Some(why), _) => Headline::new(
            State::NotWorking,
            format!("responses are not diverted as they should be, and copiers send nothing: {why}"),
        )
        .next("`millrace-router-agent show` says what is installed; what others have changed is mended once it can be"),
        (None, []) => Headline::new(State::Idle, "nothing is diverted: no copier asks for it")
            .next("name this host with --router-agent of millrace-copier; its `status` says why it does not hold"),
        (None, diverted) => {
            let named: Vec<&str> = diverted.iter().take(NAMED).map(String::as_str).collect();
            let more = match diverted.len() > NAMED {
                true => format!(" and {} others", diverted.len() - NAMED),
                false => String::new(),
            };
            let whose = match (holders, status.applied_by_hand) {
                (0, true) => "by hand, until `remove`".to_owned(),
                (0, false) => "for nobody any more: until its lease ends, and its connections".to_owned(),
                (1, _) => "for 1 copier".to_owned(),
                (several, _) => format!("for {several} copiers"),
            };
            Headline::new(
                State::Working,
                format!("diverting {}{more} ({}) {whose}", named.join(", "), status.mode),
            )
        }
    };
    headline.also = also(status);
    headline
}

/// What goes wrong besides.
fn also(status: &Status) -> Vec<String> {
    let mut also: Vec<String> = status.trouble.iter().cloned().collect();
    if status.stopped.packets > 0 {
        also.push(format!(
            "{} packets were stopped on their way to real clients: somebody else's rule leads past those of the agent",
            status.stopped.packets
        ));
    }
    also.extend(status.warnings.iter().cloned());
    also
}

/// One screen.
pub(crate) fn screen(status: &Value) -> String {
    let text = |path: &str| {
        status
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let list = |path: &str| status.pointer(path).and_then(Value::as_array);
    let mut screen = first_lines(status);
    screen += &format!(
        "  router-agent version {}, mode {}\n",
        text("/version"),
        text("/agent/mode")
    );
    screen += &format!(
        "  floor       {} packets and {} ICMP errors stopped\n",
        number("/agent/stopped/packets"),
        number("/agent/stopped/errors")
    );
    for diverted in list("/agent/diverted").into_iter().flatten() {
        screen += &format!("    diverted {}\n", diverted.as_str().unwrap_or_default());
    }
    for lease in list("/agent/leases").into_iter().flatten() {
        let ends = match lease["ends_in_seconds"].as_u64() {
            Some(seconds) => format!("gone, ends in {seconds} s"),
            None => "connected".to_owned(),
        };
        screen += &format!(
            "    holder {}: {ends}\n",
            lease["holder"].as_str().unwrap_or_default()
        );
    }
    screen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_says_what_is_diverted_for_whom_or_why_not() {
        let idle = headline(&Status::default());
        assert_eq!(idle.state, State::Idle);
        assert!(idle.next.unwrap().contains("--router-agent"));
        let mut status = Status {
            mode: "sink".to_owned(),
            diverted: vec!["198.18.5.1:80".to_owned()],
            applied_by_hand: true,
            ..Status::default()
        };
        assert_eq!(
            headline(&status).sentence,
            "diverting 198.18.5.1:80 (sink) by hand, until `remove`"
        );
        status.stopped.packets = 3;
        assert!(headline(&status).also[0].starts_with("3 packets were stopped"));
        status.unsound = Some("a rule is gone".to_owned());
        let unsound = headline(&status);
        assert_eq!(unsound.state, State::NotWorking);
        assert!(unsound.sentence.ends_with("a rule is gone"), "{unsound:?}");
    }
}
