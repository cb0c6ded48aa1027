//! Checks: what would keep a daemon from its work, or hurt others, found out before it runs. Each has a name, says what
//! it found, and names the command that mends it.
//!
//! - `suite`: runs the checks of a daemon, at its start or for the command `check`.
//! - `command`: the options of that command, and what it prints.
//! - [`document`]: the same checks as docs/checks.md lists them.
//! - [`host`]: those that daemons share.

mod command;
pub mod document;
pub mod host;
mod suite;

pub use command::CheckOptions;
pub use suite::{Checked, Suite};

use serde::Serialize;

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// By the command, and by the daemon when it starts: a failure keeps it from starting.
    Start,
    /// By the command alone: it takes time, or the daemon itself tries what is looked at and says why it failed.
    Command,
}

/// One check of a daemon. `T` is what it looks at: the options of the daemon, and what follows from them.
#[derive(Debug)]
pub struct Check<T> {
    /// Its name, for `--only`, `--skip` and the documents: letters of the alphabet and dashes.
    pub name: &'static str,
    /// What it looks at, and what goes wrong otherwise: a sentence for the documents.
    pub about: &'static str,
    /// When it is made.
    pub when: When,
    /// Looks, without changing anything.
    pub look: fn(&T) -> Verdict,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing is wrong.
    Ok,
    /// It was not looked at: the operator wants it so, or something else must be mended first.
    Skipped,
    /// Something will go wrong for some, or later.
    Warning,
    /// It cannot work, or would hurt others.
    Failure,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How bad it is.
    pub level: Level,
    /// The evidence.
    pub found: String,
    /// What mends it: a command where there is one.
    pub next: Option<String>,
}

impl Verdict {
    /// Nothing is wrong, and why that is known.
    pub fn ok(found: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            found: found.into(),
            next: None,
        }
    }

    /// It was not looked at, and why.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self {
            level: Level::Skipped,
            ..Self::ok(why)
        }
    }

    /// Something will go wrong for some, or later.
    pub fn warning(found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            found: found.into(),
            next: Some(next.into()),
        }
    }

    /// It cannot work, or would hurt others.
    pub fn failure(found: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            level: Level::Failure,
            ..Self::warning(found, next)
        }
    }

    /// A failure whose own words say what mends it.
    pub fn error(error: &dyn std::fmt::Display) -> Self {
        Self {
            level: Level::Failure,
            ..Self::ok(error.to_string())
        }
    }
}
