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
///
/// # Errors
/// The program cannot be run again.
pub fn off_the_command_line(variable: &str, short: &str, long: &str) -> Result<(), ExitError> {
    let Some((values, rest)) = split(std::env::args_os(), short, long) else {
        return Ok(());
    };
    let mut rest = rest.into_iter();
    let mut again = Command::new("/proc/self/exe");
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
    short: &str,
    long: &str,
) -> Option<(OsString, Vec<OsString>)> {
    let (mut values, mut rest) = (Vec::new(), Vec::new());
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        let value = if bytes == short.as_bytes() || bytes == long.as_bytes() {
            arguments.next()
        } else {
            let joined = bytes.strip_prefix(long.as_bytes());
            let joined = joined.and_then(|rest| rest.strip_prefix(b"="));
            let joined = joined.or_else(|| bytes.strip_prefix(short.as_bytes()));
            joined.map(|value| OsStr::from_bytes(value).to_owned())
        };
        match value {
            Some(value) => values.push(value.into_vec()),
            None => rest.push(argument),
        }
    }
    let joined = OsString::from_vec(values.join(&b','));
    (!values.is_empty()).then_some((joined, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_taken_out_however_it_is_written() {
        let of = |line: &str| {
            let words = line.split(' ').map(OsString::from);
            split(words, "-u", "--accounts").map(|(values, rest)| {
                let rest: Vec<_> = rest.iter().map(|it| it.to_string_lossy()).collect();
                (values.into_string().unwrap(), rest.join(" "))
            })
        };
        for (line, values, rest) in [
            ("c -x 1 -u a@b,c@d -d", "a@b,c@d", "c -x 1 -d"),
            ("c -ua@b", "a@b", "c"),
            ("c --accounts=a@b=c --accounts d@e", "a@b=c,d@e", "c"),
        ] {
            assert_eq!(of(line), Some((values.to_owned(), rest.to_owned())));
        }
        for line in ["c -x 1", "c --accounts-file x", "c -u"] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
