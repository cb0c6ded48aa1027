//! How a daemon ends: one clear line on stderr, and a code that scripts can act on.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// What stood in the way was the command line, the environment or a configuration file
/// (sysexits.h: EX_USAGE).
pub const USAGE: u8 = 64;

/// What was asked for was done, but not all of it succeeded.
pub const INCOMPLETE: u8 = 2;

/// The options are right, but the daemon cannot start or go on.
pub const FAILURE: u8 = 1;

/// Why a daemon ends, and with which exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitError {
    code: u8,
    message: Message,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Message {
    /// One line for stderr, without the program's name.
    Line(String),
    /// What was asked for (`--help`, `--version`), for stdout.
    Text(String),
    /// Somebody else has said it already.
    Said,
}

impl ExitError {
    /// A wrong option, address or configuration: exit code 64.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::line(USAGE, message)
    }

    /// A start or run-time error: exit code 1.
    pub fn start(message: impl Into<String>) -> Self {
        Self::line(FAILURE, message)
    }

    /// Done, but not all of what was asked for: exit code 2.
    pub fn incomplete(message: impl Into<String>) -> Self {
        Self::line(INCOMPLETE, message)
    }

    /// `what: error`, exit code 1, with every cause of `error`.
    pub fn caused(what: impl fmt::Display, error: &dyn std::error::Error) -> Self {
        Self::start(format!("{what}: {}", causes(error)))
    }

    /// Text that was asked for: stdout, exit code 0.
    pub fn text(text: String) -> Self {
        ExitError {
            code: 0,
            message: Message::Text(text),
        }
    }

    /// Only a code: the line is on stderr already.
    pub(crate) fn said(code: u8) -> Self {
        ExitError {
            code,
            message: Message::Said,
        }
    }

    fn line(code: u8, message: impl Into<String>) -> Self {
        // One line, whatever was put into it: logs and scripts read it by line.
        let message: Vec<_> = message
            .into()
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        ExitError {
            code,
            message: Message::Line(message.join(" ")),
        }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the message where it belongs.
    pub fn report(&self, program: &str) {
        // Nobody is left to be told when stderr or stdout is closed.
        let _ = match &self.message {
            Message::Line(line) => writeln!(io::stderr(), "{program}: {line}"),
            Message::Text(text) => write!(io::stdout(), "{text}"),
            Message::Said => Ok(()),
        };
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.message {
            Message::Line(text) | Message::Text(text) => f.write_str(text),
            Message::Said => write!(f, "exit code {}", self.code),
        }
    }
}

impl std::error::Error for ExitError {}

/// Runs a daemon; reports its error in one line and turns it into an exit code.
pub fn main_with(program: &str, run: impl FnOnce() -> Result<(), ExitError>) -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.report(program);
            ExitCode::from(error.code())
        }
    }
}

/// An error with all its causes, each said once.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_always_one_line() {
        let error = ExitError::usage("first\n\n   second\n");
        assert_eq!(error.to_string(), "first second");
        assert_eq!(error.code(), 64);
    }

    #[test]
    fn causes_are_named_once() {
        let inner = io::Error::other("disk is full");
        let error = ExitError::caused("cannot write /run/x.pid", &inner);
        assert_eq!(error.to_string(), "cannot write /run/x.pid: disk is full");
        assert_eq!(error.code(), 1);
    }
}
