//! clap's errors, which are paragraphs, as the one line that a daemon gives.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::exit::ExitError;

/// One line; `place` tells where an option comes from that is not on the command line.
pub(super) fn explain<'a>(
    error: &clap::Error,
    command: &Command,
    place: impl Fn(&str) -> Option<&'a str>,
) -> ExitError {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return ExitError::text(error.to_string());
    }
    if let Some(missing) = missing(error, command) {
        return ExitError::usage(format!("missing: {missing} (--help lists the options)"));
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

/// The options that must be given and are not, with their letters.
fn missing(error: &clap::Error, command: &Command) -> Option<String> {
    let Some(ContextValue::Strings(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let with_letter = |shown: &String| {
        let long = shown
            .strip_prefix("--")
            .and_then(|rest| rest.split([' ', '=']).next());
        let argument = command
            .get_arguments()
            .find(|argument| long.is_some() && argument.get_long() == long);
        match argument.and_then(clap::Arg::get_short) {
            Some(letter) => format!("-{letter}, {shown}"),
            None => shown.clone(),
        }
    };
    let missing: Vec<String> = shown.iter().map(with_letter).collect();
    (error.kind() == ErrorKind::MissingRequiredArgument).then(|| missing.join(" and "))
}
