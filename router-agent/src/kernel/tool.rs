//! Programs of the system that change the firewall: found where administrators' programs are, and
//! given their input.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Administrators' programs may be outside of a daemon's PATH.
pub(super) fn command(program: &str) -> Command {
    let directories = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
    let file = directories
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|file| file.is_file());
    Command::new(file.unwrap_or_else(|| program.into()))
}

/// Runs `program` with `lines` as its input. `package` is the one of Debian that has it.
///
/// # Errors
/// What it said, in one line.
pub(super) fn feed(
    program: &str,
    arguments: &[&str],
    lines: &str,
    package: &str,
) -> io::Result<()> {
    let mut child = command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => io::Error::other(format!(
                "{program} is not installed (Debian: apt-get install {package})"
            )),
            _ => error,
        })?;
    if let Some(mut input) = child.stdin.take() {
        // A refused write means that it has ended: its own message, below, says why.
        let _ = input.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(said.trim().replace('\n', "; ")))
}
