//! What is left: for the log and /status.

use std::fmt;

use super::capabilities;
use crate::admin::Section;
use crate::exit::ExitError;

/// Whether the file system is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confinement {
    /// All that was asked for.
    Full,
    /// An older kernel does a part of it.
    Partial,
    /// The kernel has no landlock.
    Unavailable,
    /// Not asked for (`--no-landlock`).
    Off,
}

/// What this process may still do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PrivilegeStatus {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permitted capabilities.
    pub capabilities: Vec<String>,
    /// Whether programs that it starts cannot gain privileges.
    pub no_new_privileges: bool,
    /// The file system.
    pub landlock: Confinement,
}

/// `privileges` in /status.
impl Section for PrivilegeStatus {
    fn status(&self) -> Option<(&'static str, serde_json::Value)> {
        Some(("privileges", serde_json::json!(self)))
    }
}

impl PrivilegeStatus {
    /// Asks the kernel, rather than repeating what was asked for.
    pub(super) fn read(landlock: Confinement) -> Result<Self, ExitError> {
        let no_new_privileges = rustix::thread::no_new_privs()
            .map_err(|error| ExitError::caused("cannot read no_new_privs", &error))?;
        Ok(PrivilegeStatus {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            capabilities: capabilities::permitted()?,
            no_new_privileges,
            landlock,
        })
    }
}

impl fmt::Display for PrivilegeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let capabilities = if self.capabilities.is_empty() {
            "none".to_owned()
        } else {
            self.capabilities.join(", ")
        };
        let landlock = match self.landlock {
            Confinement::Full => "enforced",
            Confinement::Partial => "enforced as far as this kernel can",
            Confinement::Unavailable => "not in this kernel",
            Confinement::Off => "off (--no-landlock)",
        };
        write!(
            f,
            "user {}, group {}, capabilities {capabilities}, no new privileges: {}, landlock: \
             {landlock}",
            self.uid,
            self.gid,
            if self.no_new_privileges { "yes" } else { "no" }
        )
    }
}
