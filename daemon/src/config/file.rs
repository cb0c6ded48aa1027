//! The configuration file: TOML whose keys are long option names.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::Command;
use toml::de::{DeTable, DeValue};

use super::NOT_IN_FILE;
use crate::exit::ExitError;

/// Much more than anybody writes by hand. Bytes.
const MAX_FILE: u64 = 1 << 20;

/// One option in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) value: String,
    /// `FILE:LINE`
    pub(super) place: String,
}

/// Reads the file and checks every key against the options that there are.
pub(super) fn read(path: &Path, command: &Command) -> Result<Vec<Entry>, ExitError> {
    let shown = path.display();
    let cannot = |error: std::io::Error| {
        ExitError::usage(format!(
            "cannot read the configuration file {shown}: {error}"
        ))
    };
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if text.len() as u64 > MAX_FILE {
        return Err(ExitError::usage(format!(
            "the configuration file {shown} is larger than {MAX_FILE} bytes"
        )));
    }
    parse(&shown.to_string(), &text, command)
}

fn parse(file: &str, text: &str, command: &Command) -> Result<Vec<Entry>, ExitError> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = place(file, text, error.span().map_or(0, |span| span.start));
        ExitError::usage(format!("{place}: {}", error.message()))
    })?;
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let place = place(file, text, key.span().start);
        let key = key.get_ref().as_ref();
        let known = command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            .any(|long| long == key);
        if NOT_IN_FILE.contains(&key) {
            return Err(ExitError::usage(format!(
                "{place}: '{key}' cannot stand in a configuration file"
            )));
        }
        if !known {
            return Err(ExitError::usage(unknown(&place, key, command)));
        }
        let value = flat(value.get_ref()).ok_or_else(|| {
            ExitError::usage(format!(
                "{place}: '{key}' must be a text, a number, true or false, or a list of texts and \
                 numbers"
            ))
        })?;
        entries.push(Entry {
            key: key.to_owned(),
            value,
            place,
        });
    }
    Ok(entries)
}

fn unknown(place: &str, key: &str, command: &Command) -> String {
    let mut best: Option<(usize, &str)> = None;
    for long in command
        .get_arguments()
        .filter_map(|argument| argument.get_long())
    {
        if NOT_IN_FILE.contains(&long) {
            continue;
        }
        let distance = distance(key, long);
        if best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, long));
        }
    }
    match best {
        Some((distance, nearest)) if distance <= nearest.len().div_ceil(2) => {
            format!("{place}: there is no option '{key}'; did you mean '{nearest}'?")
        }
        Some(_) | None => format!("{place}: there is no option '{key}'; --help lists them"),
    }
}

/// A value as it would stand on the command line.
fn flat(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Integer(number) => match number.radix() {
            10 => Some(number.as_str().replace('_', "")),
            radix => i64::from_str_radix(&number.as_str().replace('_', ""), radix)
                .ok()
                .map(|number| number.to_string()),
        },
        DeValue::Float(number) => Some(number.as_str().replace('_', "")),
        DeValue::Array(items) => {
            let items = items.iter().map(|item| match item.get_ref() {
                DeValue::Array(_) => None,
                inner => flat(inner),
            });
            items
                .collect::<Option<Vec<_>>>()
                .map(|items| items.join(","))
        }
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

fn place(file: &str, text: &str, offset: usize) -> String {
    let before = text.as_bytes().iter().take(offset);
    let line = before.filter(|byte| **byte == b'\n').count() + 1;
    format!("{file}:{line}")
}

/// Levenshtein's distance, in characters.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(left);
        for (to, above) in b.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(from != *to))
                .min(above + 1)
                .min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("log-levl", "log-level", 1),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
