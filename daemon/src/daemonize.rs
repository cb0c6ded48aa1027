//! Going to the background (`-d`), without fork: the daemon starts itself again, in a session of
//! its own, and the first process stays until the second is up or has failed.
//!
//! So the shell that started a daemon gets its exit code and its error line. The working directory
//! is kept: paths in the options stay right.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::exit::ExitError;
use crate::service_manager::ServiceManager;

/// Set in the environment of the second process.
const MARKER: &str = "MILLRACE_BACKGROUND";

/// What the second process writes to its stdout, a pipe to the first, once it is up.
const READY: &[u8] = b"ready\n";

/// Who this process is, after [`launch`].
#[derive(Debug)]
pub enum Launch {
    /// The first process; the daemon is up in the background. Return success.
    Parent,
    /// The daemon, in the background or the foreground.
    Run(Startup),
}

/// Tells whoever waits for the start how it went. An error before [`Startup::ready`] needs no
/// call: it is printed by [`crate::exit::main_with`] as always and its code is passed on.
#[derive(Debug)]
pub struct Startup {
    background: bool,
    manager: ServiceManager,
}

/// Goes to the background if `daemon` is set.
///
/// # Errors
/// When the process cannot start itself again, or the daemon failed to start (its line is on
/// stderr already).
pub fn launch(daemon: bool) -> Result<Launch, ExitError> {
    if std::env::var_os(MARKER).is_some() {
        return become_background();
    }
    if !daemon {
        return Ok(Launch::Run(Startup {
            background: false,
            manager: ServiceManager::find(),
        }));
    }
    start_background()
}

fn become_background() -> Result<Launch, ExitError> {
    rustix::process::setsid().map_err(|error| {
        ExitError::caused(
            "cannot start a session of its own in the background",
            &error,
        )
    })?;
    Ok(Launch::Run(Startup {
        background: true,
        manager: ServiceManager::find(),
    }))
}

fn start_background() -> Result<Launch, ExitError> {
    let cannot = |error: io::Error| ExitError::caused("cannot go to the background (-d)", &error);
    let mut arguments = std::env::args_os();
    // Not the path we were started with: it may be relative, or replaced by an upgrade.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let mut child = command
        .args(arguments)
        .env(MARKER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(cannot)?;
    let mut said = Vec::new();
    if let Some(pipe) = child.stdout.take() {
        // Bounded: nothing but READY is ever sent. Ends early when the daemon dies.
        let limit = u64::try_from(READY.len()).unwrap_or(u64::MAX);
        pipe.take(limit).read_to_end(&mut said).map_err(cannot)?;
    }
    if said == READY {
        return Ok(Launch::Parent);
    }
    let status = child.wait().map_err(cannot)?;
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        // It ended in order before it was up: nothing to report.
        Some(0) => Ok(Launch::Parent),
        Some(code) => Err(ExitError::said(code)),
        None => Err(ExitError::start(format!(
            "the daemon was killed while it started ({status}): see its log, and dmesg"
        ))),
    }
}

impl Startup {
    /// Whether this process is in the background.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// The service manager that waits for the start, if there is one.
    pub fn manager(&self) -> ServiceManager {
        self.manager.clone()
    }

    /// Everything is up: the service manager is told; the first process may go, and nothing reads this one's output any
    /// more.
    pub fn ready(self) {
        self.manager.ready();
        if !self.background {
            return;
        }
        // The first process may have been killed; the daemon goes on all the same.
        let mut stdout = io::stdout();
        let _ = stdout.write_all(READY).and_then(|()| stdout.flush());
        match OpenOptions::new().read(true).write(true).open("/dev/null") {
            Ok(null) => quiet(&null),
            Err(error) => tracing::warn!("cannot open /dev/null: {error}"),
        }
    }
}

fn quiet(null: &File) {
    let closed = rustix::stdio::dup2_stdout(null).and_then(|()| rustix::stdio::dup2_stderr(null));
    if let Err(error) = closed {
        tracing::warn!("cannot detach from the terminal: {error}");
    }
}
