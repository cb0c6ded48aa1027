//! clap's errors, which are paragraphs, as the one line that a daemon gives.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::ExitError;

/// One line; `place` tells where an option comes from that is not on the command line.
pub(super) fn explain<'a>(
    error: &clap::Error,
    place: impl Fn(&str) -> Option<&'a str>,
) -> ExitError {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return ExitError::text(error.to_string());
    }
    let rendered = error.to_string();
    let mut words: Vec<&str> = Vec::new();
    for line in rendered
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if line.starts_with("Usage:") || line.starts_with("For more information") {
            break;
        }
        words.push(line.strip_prefix("error: ").unwrap_or(line));
    }
    let line = words.join(" ").replace(" tip: ", "; ");
    let origin = match error.get(ContextKind::InvalidArg) {
        // `--name <VALUE>` or `-n, --name <VALUE>`
        Some(ContextValue::String(shown)) => shown
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix("--"))
            .and_then(|word| place(word.split('=').next().unwrap_or(word))),
        Some(_) | None => None,
    };
    ExitError::usage(match origin {
        Some(place) => format!("{place}: {line}"),
        None => format!("{line} (--help lists the options)"),
    })
}
