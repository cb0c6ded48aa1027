//! Gets what a lab needs from the kernel: as root nothing is missing, as an ordinary user a user namespace
//! of our own gives it, where the kernel allows that.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::error::{Doing, Error, Result};

/// Set in the environment of the process that [`enter`] starts, so that it does so only once.
const ENTERED: &str = "MILLRACE_LAB_ENTERED";

/// Call this first, before any thread is started: a process without root's rights is replaced by itself inside
/// new user, network and mount namespaces, where it may make network namespaces of its own.
///
/// Returns at once for root. In a lab made this way `/run` is private and empty, so that `ip netns` works.
///
/// # Errors
/// When the kernel refuses user namespaces, or `unshare` and `mount` of util-linux are missing.
pub fn enter() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if std::env::var_os(ENTERED).is_some() {
        return Err(Error::Unsupported(
            "still not root inside a user namespace: run the lab as root".to_owned(),
        ));
    }
    let program = std::env::current_exe().doing(|| "finding this program's own file".to_owned())?;
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let failure = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c"])
        .arg("mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"")
        .arg(program)
        .args(arguments)
        .env(ENTERED, "1")
        .exec();
    Err(Error::Io {
        what: "starting 'unshare' for a lab without root's rights (run it as root instead)"
            .to_owned(),
        source: failure,
    })
}

/// Why a lab cannot be made here, or nothing if it can: for tests that skip, loudly, where they cannot run.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some(
            "not root, and not inside a user namespace (see millrace_lab::enter)".to_owned(),
        );
    }
    ["ip", "ethtool"]
        .into_iter()
        .find(|program| crate::command::find(program).is_none())
        .map(|program| format!("the program '{program}' is not installed (lab/install-deps.sh)"))
}
