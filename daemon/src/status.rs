//! How a daemon of this host stands: what each says of itself at its admin port, in one sentence and one screen, and the
//! command `status` that shows it.

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::{ExitError, INCOMPLETE};
use crate::request;

/// From one screen to the next with `--watch`.
const EVERY: Duration = Duration::from_secs(2);
/// Puts the cursor into the corner and clears the screen (ECMA-48).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// How a daemon stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does its work.
    Working,
    /// Nothing keeps it from its work, and nobody asks for it.
    Idle,
    /// Something keeps it from its work.
    NotWorking,
}

/// How a daemon stands, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Headline {
    /// How it stands.
    pub state: State,
    /// The same in words.
    pub sentence: String,
    /// What to do, where something is to be done.
    pub next: Option<String>,
    /// What goes wrong besides, worst first.
    pub also: Vec<String>,
}

impl Headline {
    /// A sentence alone.
    pub fn new(state: State, sentence: impl Into<String>) -> Self {
        Self {
            state,
            sentence: sentence.into(),
            next: None,
            also: Vec::new(),
        }
    }

    /// With what to do.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

/// Options of the command.
#[derive(Debug, Clone, clap::Args)]
pub struct StatusOptions {
    /// Admin port of the daemon; by default where it is unless one is named. Of copiers all that run in this network
    /// namespace are shown.
    #[arg(long, value_name = "ADDR:PORT")]
    pub admin: Option<SocketAddr>,

    /// Show it again every two seconds.
    #[arg(long)]
    pub watch: bool,

    /// Write what /status says as JSON, in a list, one for each daemon.
    #[arg(long, conflicts_with = "watch")]
    pub json: bool,
}

/// What a daemon says of itself, or why it says nothing.
pub type Said = (SocketAddr, Result<Value, String>);

/// What the daemon at this admin port says of itself. `name` is the kind of daemon, as in "copier".
///
/// # Errors
/// Why it says nothing, or that it is something else.
pub fn ask(admin: SocketAddr, name: &str) -> Result<Value, String> {
    let answer = request::get(admin, "/status").map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!(
            "the {name} at {admin} does not answer: it hangs, or its host has no time for it"
        ),
        _ => format!(
            "no {name} answers at {admin}: {error}; is one running in this network namespace, and is that its --admin?"
        ),
    })?;
    let stranger = || format!("what answers at {admin} is no {name}");
    serde_json::from_str(&answer.body).map_err(|_| stranger())
}

/// The command: asks, and shows what was said, once or again and again. `screen` is what is shown of one daemon, whose
/// admin port is given where there are several.
///
/// # Errors
/// Exit code 1 when a daemon does not answer, 2 when something keeps one from its work.
pub fn show(
    options: &StatusOptions,
    ask: impl Fn() -> Vec<Said>,
    screen: impl Fn(&Value, Option<SocketAddr>) -> String,
) -> Result<(), ExitError> {
    loop {
        let all = ask();
        let text = match options.json {
            true => {
                let values: Vec<&Value> = all.iter().flat_map(|(_, status)| status).collect();
                format!("{:#}\n", json!(values))
            }
            false => screens(&all, options.watch, &screen),
        };
        let terminal = options.watch && std::io::stdout().is_terminal();
        let clear = if terminal { CLEAR } else { "" };
        // Whoever reads stdout may have seen enough.
        let mut stdout = std::io::stdout();
        let written = write!(stdout, "{clear}{text}").and_then(|()| stdout.flush());
        if !options.watch || written.is_err() {
            return conclude(all);
        }
        sleep(EVERY);
    }
}

/// What scripts learn of it, by the exit code.
fn conclude(all: Vec<Said>) -> Result<(), ExitError> {
    let mut prevented = false;
    for (_, said) in all {
        let status = said.map_err(ExitError::start)?;
        let state = status.pointer("/headline/state").and_then(Value::as_str);
        // "not_copying", "not_working".
        prevented |= state.is_some_and(|state| state.starts_with("not_"));
    }
    match prevented {
        true => Err(ExitError::said(INCOMPLETE)),
        false => Ok(()),
    }
}

/// A screen for each daemon. What a single one that fails says is left to the end of the command, unless `failures`.
fn screens(
    all: &[Said],
    failures: bool,
    screen: &impl Fn(&Value, Option<SocketAddr>) -> String,
) -> String {
    let one = |(admin, said): &Said| match said {
        Ok(status) => screen(status, (all.len() > 1).then_some(*admin)),
        Err(why) => format!("{why}\n"),
    };
    let failures = failures || all.len() > 1;
    let shown: Vec<String> = all
        .iter()
        .filter(|it| failures || it.1.is_ok())
        .map(one)
        .collect();
    printable(&shown.join("\n"))
}

/// The lines with which each screen begins: the sentence, what is next, and what goes wrong besides.
pub fn first_lines(status: &Value) -> String {
    let text = |path: &str| status.pointer(path).and_then(Value::as_str);
    let mut lines = format!("{}\n", text("/headline/sentence").unwrap_or_default());
    if let Some(next) = text("/headline/next").filter(|next| !next.is_empty()) {
        lines += &format!("  next: {next}\n");
    }
    let also = status.pointer("/headline/also").and_then(Value::as_array);
    for also in also.into_iter().flatten() {
        let also = also["text"].as_str().or(also.as_str()).unwrap_or_default();
        lines += &format!("  also: {also}\n");
    }
    lines
}

/// Text as it may stand on a terminal: a program that answers in place of a daemon may say anything.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_begins_with_the_sentence_and_bears_no_control_characters() {
        let headline = Headline::new(State::NotWorking, "serving \u{1b}[31mnobody").next("mend it");
        let headline = Headline {
            also: vec!["1 frame was lost".to_owned()],
            ..headline
        };
        let status = json!({ "headline": headline });
        let said = [(SocketAddr::from(([127, 0, 0, 1], 1)), Ok(status))];
        let text = screens(&said, false, &|status, admin| {
            assert_eq!(admin, None);
            first_lines(status)
        });
        assert_eq!(
            text,
            "serving  [31mnobody\n  next: mend it\n  also: 1 frame was lost\n"
        );
    }

    #[test]
    fn scripts_learn_by_the_exit_code_whether_a_daemon_works() {
        let admin = SocketAddr::from(([127, 0, 0, 1], 1));
        let of = |states: &[&str]| {
            let status = |state| json!({ "headline": { "state": state } });
            let all = states.iter().map(|state| (admin, Ok(status(state))));
            conclude(all.collect()).map_err(|error| error.code())
        };
        assert_eq!(of(&["copying", "idle", "working"]), Ok(()));
        assert_eq!(of(&["copying", "not_copying"]), Err(2));
        assert_eq!(of(&["not_working"]), Err(2));
        let silent = (admin, Err("no copier answers".to_owned()));
        assert_eq!(conclude(vec![silent]).map_err(|error| error.code()), Err(1));
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_seen_beside_others_and_while_one_watches() {
        let failed = || {
            let admin = SocketAddr::from(([127, 0, 0, 1], 1));
            (admin, Err("no copier answers".to_owned()))
        };
        let shown = |all: &[Said], watch| screens(all, watch, &|_, _| String::new());
        assert_eq!(shown(&[failed()], false), "");
        assert_eq!(shown(&[failed()], true), "no copier answers\n");
        let both = shown(&[failed(), failed()], false);
        assert_eq!(both, "no copier answers\n\nno copier answers\n");
    }
}
