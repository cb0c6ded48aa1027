//! The checks of a daemon as docs/checks.md lists them.

use std::fmt::Write;

use super::{Suite, When};

/// The table of a daemon's checks in Markdown.
pub fn table<T>(suite: &Suite<T>) -> String {
    let mut text = format!(
        "## {}\n\n| check | looks at | at start |\n|---|---|---|\n",
        suite.program
    );
    for check in suite.checks {
        let start = match check.when {
            When::Start => "yes",
            When::Command => "",
        };
        // A string takes whatever is written.
        let _ = writeln!(text, "| `{}` | {} | {start} |", check.name, check.about);
    }
    text
}
