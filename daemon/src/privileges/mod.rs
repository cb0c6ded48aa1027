//! Giving up what a daemon does not need once its sockets are open: user, capabilities, the file
//! system.
//!
//! Linux keeps all of this for each thread (capabilities(7), landlock(7)): [`reduce`] is called
//! while there is one thread, and those that start later inherit it.

mod capabilities;
mod confinement;
mod files;
mod status;
mod user;

use std::path::{Path, PathBuf};

use crate::exit::ExitError;
use crate::options::CommonOptions;

pub use capabilities::Capability;
pub use status::{Confinement, PrivilegeStatus};
pub use user::{User, UserError};

/// What a daemon still needs afterwards, besides what [`CommonOptions`] name (log, PID file,
/// certificates, configuration).
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Capabilities.
    pub keep: Vec<Capability>,
    /// Whether programs that the daemon starts get these capabilities, too (ambient set).
    pub for_children: bool,
    /// Files, which exist, that the user of `--user` must be able to write.
    pub own: Vec<PathBuf>,
    /// Files or directories that are read.
    pub read: Vec<PathBuf>,
    /// Files or directories in which files are written, made and removed.
    pub write: Vec<PathBuf>,
}

/// Gives the directory of --state-dir to the user of --user, who writes there later.
///
/// # Errors
/// There is no such user, or the directory cannot be given away.
pub fn hand_over(directory: &Path, options: &CommonOptions) -> Result<(), ExitError> {
    let Some(name) = &options.user else {
        return Ok(());
    };
    let (uid, gid) = User::find(name)?.ids();
    rustix::fs::chown(directory, Some(uid), Some(gid)).map_err(|error| {
        ExitError::start(format!(
            "cannot give {} to user {name}: {error}; give another --state-dir",
            directory.display()
        ))
    })
}

/// Gives up everything but `needs`. Call it before the first thread is started, after logging is
/// and what only root may open.
///
/// A process that is not root cannot switch users; it keeps to what it has, without more.
///
/// # Errors
/// Exit code 64 when `--user` cannot be used, 1 when the kernel refuses a step that it must not.
pub fn reduce(options: &CommonOptions, needs: &Needs) -> Result<PrivilegeStatus, ExitError> {
    let threads = std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    if threads != 1 {
        return Err(ExitError::start(format!(
            "{threads} threads run before privileges are given up; please report this"
        )));
    }
    let root = rustix::process::geteuid().is_root();
    let user = match &options.user {
        Some(text) => Some(User::find(text)?),
        None => None,
    };
    if let (Some(user), false) = (&user, root) {
        return Err(ExitError::usage(format!(
            "--user {}: only root can become another user; start it as root, or leave --user out",
            user.name
        )));
    }
    // While we may still open all of it.
    let paths = files::Paths::new(options, needs);
    let confinement = (!options.no_landlock)
        .then(|| confinement::prepare(&paths))
        .transpose()?;
    if let Some(user) = &user {
        paths.hand_over(user)?;
    }
    capabilities::limit_bounding_set(&needs.keep)?;
    if let Some(user) = &user {
        user.become_it()?;
    }
    capabilities::keep_only(&needs.keep, needs.for_children)?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| ExitError::caused("cannot set no_new_privs", &error))?;
    let confinement = match confinement {
        Some(prepared) => prepared.enforce()?,
        None => Confinement::Off,
    };
    if user.is_some() {
        paths.check()?;
    }
    let status = PrivilegeStatus::read(confinement)?;
    tracing::info!("privileges given up: {status}");
    if status.uid == 0 && user.is_none() {
        tracing::info!("still user root, without its capabilities: --user NAME gives that up, too");
    }
    Ok(status)
}
