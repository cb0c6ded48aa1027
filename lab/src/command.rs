//! Running the system's own tools and reading what they say.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::error::{Doing, Error, Result};

/// Where Debian keeps administrators' programs, which an ordinary user's `PATH` leaves out.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin";

/// The file of a program that is installed, or nothing.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = std::env::split_paths(&path)
        .chain(std::env::split_paths(SYSTEM_DIRECTORIES))
        .map(|directory| directory.join(program));
    candidates.into_iter().find(|file| file.is_file())
}

/// A command for an installed program.
pub(crate) fn command(program: &str) -> Result<Command> {
    if program.contains('/') {
        return Ok(Command::new(program));
    }
    find(program)
        .map(Command::new)
        .ok_or_else(|| Error::NoProgram {
            program: program.to_owned(),
        })
}

/// Runs a command to its end, with nothing on its standard input.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .doing(|| format!("running {}", words(command)))
}

/// As [`run`], but a failing command is an error with what it wrote to standard error. Returns its standard output.
pub(crate) fn check(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    succeed(command, &output)
}

/// Runs many `ip` commands in one process: in the namespace, or outside of all of the lab's.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut ip = command("ip")?;
    if let Some(namespace) = namespace {
        ip.args(["-n", namespace]);
    }
    ip.args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = ip.spawn().doing(|| "starting ip".to_owned())?;
    if let Some(mut input) = child.stdin.take() {
        // A refused write means that ip has ended: its own message, below, says why.
        let _ = input.write_all(lines.join("\n").as_bytes());
    }
    let output = child
        .wait_with_output()
        .doing(|| "waiting for ip".to_owned())?;
    succeed(&ip, &output)
        .map(drop)
        .map_err(|error| match error {
            Error::Command {
                command,
                status,
                message,
            } => Error::Command {
                command: format!("{command} with '{}'", lines.join("; ")),
                status,
                message,
            },
            other => other,
        })
}

fn succeed(command: &Command, output: &Output) -> Result<String> {
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: words(command),
        status: output.status.to_string(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// The command line as one would type it, for messages.
pub(crate) fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
