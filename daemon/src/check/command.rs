//! The command `check` of a daemon.

use std::fmt::Write;
use std::io::Write as _;

use serde_json::json;

use super::suite::SKIP;
use super::{Checked, Level, Suite};
use crate::exit::{ExitError, FAILURE};

/// What the command has besides the daemon's own options.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Check")]
pub struct CheckOptions {
    /// Write the findings as JSON, in a list.
    #[arg(long)]
    pub json: bool,

    /// Make these checks alone, separated by commas.
    #[arg(long, value_name = "CHECK,...", value_delimiter = ',')]
    pub only: Vec<String>,
}

impl<T: Sync> Suite<T> {
    /// Makes all checks, or those that are wanted, and prints what they found.
    ///
    /// # Errors
    /// Exit code 1 if one failed, 64 for a name that is no check's; code 0 with the text otherwise.
    pub fn command(
        &self,
        subject: &T,
        options: &CheckOptions,
        skip: &[String],
    ) -> Result<(), ExitError> {
        self.know(&options.only, "--only")?;
        self.know(skip, SKIP)?;
        let only = &options.only;
        let checked = self.run_at_once(subject, skip, |check| {
            only.is_empty() || only.iter().any(|name| name == check.name)
        });
        let text = match options.json {
            true => format!("{:#}\n", json!(checked)),
            false => text(&checked),
        };
        // Whoever reads stdout may have seen enough.
        let _ = write!(std::io::stdout(), "{text}");
        let failed = checked.iter().any(|it| it.verdict.level == Level::Failure);
        match failed {
            true => Err(ExitError::said(FAILURE)),
            false => Ok(()),
        }
    }
}

/// The findings, a line each and one for what mends them, then how many there are of each kind.
fn text(checked: &[Checked]) -> String {
    let width = checked.iter().map(|it| it.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    // A string takes whatever is written.
    for Checked { name, verdict } in checked {
        let _ = writeln!(
            text,
            "{:<8} {name:<width$}  {}",
            word(verdict.level),
            verdict.found
        );
        if let Some(next) = &verdict.next {
            let _ = writeln!(text, "{:<8} {:<width$}  next: {next}", "", "");
        }
    }
    let levels = [Level::Ok, Level::Skipped, Level::Warning, Level::Failure];
    let counts = levels.map(|level| {
        let count = checked
            .iter()
            .filter(|it| it.verdict.level == level)
            .count();
        (level, count)
    });
    let counts = counts
        .iter()
        .filter(|(level, count)| *count > 0 || *level == Level::Ok);
    let counts: Vec<String> = counts
        .map(|(level, count)| format!("{count} {}", word(*level)))
        .collect();
    let _ = writeln!(text, "{} checks: {}", checked.len(), counts.join(", "));
    text
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Skipped => "skipped",
        Level::Warning => "warning",
        Level::Failure => "failure",
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn each_finding_has_its_line_and_what_mends_it_another() {
        let one = |name, verdict| Checked { name, verdict };
        let checked = [
            one("route", Verdict::ok("over eth0")),
            one("conntrack", Verdict::failure("92% full", "raise it")),
        ];
        assert_eq!(
            text(&checked),
            "ok       route      over eth0\n\
             failure  conntrack  92% full\n                    next: raise it\n\
             2 checks: 1 ok, 1 failure\n"
        );
    }
}
