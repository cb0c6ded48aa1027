//! Options whose values are secrets: nobody on the host may read them in the list of processes, and nothing shows them.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::exit::ExitError;

/// Long names of these options.
pub const SECRETS: [&str; 1] = ["accounts"];

/// What stands in place of a secret.
pub(super) const HIDDEN: &str = "(hidden)";

/// A value that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// Moves the values of a secret option from the command line into the environment, which only this user and root can read
/// (proc(5), `/proc/PID/environ`), by running the same program once more. Returns if there is none on the command line.
/// `flags` are the short options of the program that take no value: they may stand before the secret one, as in `-du`.
///
/// # Errors
/// The program cannot be run again.
pub fn off_the_command_line(
    variable: &str,
    (short, long): (char, &str),
    flags: &str,
) -> Result<(), ExitError> {
    let Some((values, rest)) = split(std::env::args_os(), (short, long), flags) else {
        return Ok(());
    };
    // By its own name, which the list of processes shows; where the file is gone, by what is left of it.
    let program = std::env::current_exe().ok().filter(|path| path.exists());
    let mut again = Command::new(program.unwrap_or_else(|| "/proc/self/exe".into()));
    let mut rest = rest.into_iter();
    if let Some(name) = rest.next() {
        again.arg0(name);
    }
    let error = again.args(rest).env(variable, values).exec();
    Err(ExitError::caused(
        format!("cannot take {long} off the command line"),
        &error,
    ))
}

/// The values, joined by commas, and the arguments without them.
fn split(
    arguments: impl Iterator<Item = OsString>,
    (short, long): (char, &str),
    flags: &str,
) -> Option<(OsString, Vec<OsString>)> {
    let (mut values, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let Some((before, value)) = secret_in(argument.as_bytes(), short, long, flags) else {
            rest.push(argument);
            continue;
        };
        rest.extend(before.map(|before| OsStr::from_bytes(before).to_owned()));
        match value {
            Some(value) => values.push(value.to_owned()),
            // Without a value it is an error, which says so.
            None => match arguments.next() {
                Some(value) => values.push(value.into_vec()),
                None => rest.push(argument),
            },
        }
    }
    let joined = OsString::from_vec(values.join(&b','));
    (!values.is_empty()).then_some((joined, rest))
}

/// Flags in front of the secret option in this argument, and its value, if that is not the next argument.
type Found<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

fn secret_in<'a>(argument: &'a [u8], short: char, long: &str, flags: &str) -> Option<Found<'a>> {
    if argument == long.as_bytes() {
        return Some((None, None));
    }
    if let Some(rest) = argument.strip_prefix(long.as_bytes()) {
        return rest.strip_prefix(b"=").map(|value| (None, Some(value)));
    }
    let cluster = argument.strip_prefix(b"-")?;
    let at = cluster
        .iter()
        .position(|byte| !flags.as_bytes().contains(byte))?;
    if cluster.get(at) != u8::try_from(short).ok().as_ref() {
        return None;
    }
    let value = cluster.get(at + 1..).filter(|value| !value.is_empty());
    let value = value.map(|value| value.strip_prefix(b"=").unwrap_or(value));
    let before = (at > 0).then(|| argument.get(..=at)).flatten();
    Some((before, value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_out_however_it_is_written() {
        let of = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            split(words, ('u', "--accounts"), "dLW").map(|(values, rest)| {
                let rest: Vec<_> = rest.iter().map(|it| it.to_string_lossy()).collect();
                (values.into_string().unwrap(), rest.join(" "))
            })
        };
        for (line, values, rest) in [
            ("c -x 1 -u a@b,c@d -d", "a@b,c@d", "c -x 1 -d"),
            ("c -ua@b", "a@b", "c"),
            ("c -u=a@b -Lu c@d -dLue@f", "a@b,c@d,e@f", "c -L -dL"),
            ("c --accounts=a@b=c --accounts d@e", "a@b=c,d@e", "c"),
        ] {
            assert_eq!(of(line), Some((values.to_owned(), rest.to_owned())));
        }
        for line in ["c -x 1", "c --accounts-file x", "c -u", "c -xu a", "c - u"] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
