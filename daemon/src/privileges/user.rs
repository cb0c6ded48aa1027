//! The user that a daemon becomes (`--user NAME[:GROUP]`).

use std::ffi::CString;

use nix::unistd;
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::{
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::exit::ExitError;

/// A user that exists on this host, and its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name, as given.
    pub name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// No user of that name.
    #[error(
        "--user {text}: this host has no user '{name}' (getent passwd {name}): make it, or name another"
    )]
    NoUser {
        /// What was given.
        text: String,
        /// The name in it.
        name: String,
    },
    /// No group of that name.
    #[error(
        "--user {text}: this host has no group '{name}' (getent group {name}): make it, or name another"
    )]
    NoGroup {
        /// What was given.
        text: String,
        /// The name in it.
        name: String,
    },
    /// The name service failed.
    #[error("--user {text}: cannot look it up: {error}")]
    LookUp {
        /// What was given.
        text: String,
        /// Why.
        error: nix::errno::Errno,
    },
}

impl From<UserError> for ExitError {
    fn from(error: UserError) -> Self {
        ExitError::usage(error.to_string())
    }
}

impl User {
    /// Looks up `NAME` or `NAME:GROUP`. Without a group it gets the user's own groups.
    ///
    /// # Errors
    /// [`UserError`]
    pub fn find(text: &str) -> Result<User, UserError> {
        let (name, group) = match text.split_once(':') {
            Some((name, group)) => (name, Some(group)),
            None => (text, None),
        };
        let failed = |error| UserError::LookUp {
            text: text.to_owned(),
            error,
        };
        let user = unistd::User::from_name(name)
            .map_err(failed)?
            .ok_or_else(|| UserError::NoUser {
                text: text.to_owned(),
                name: name.to_owned(),
            })?;
        let (gid, groups) = match group {
            None => {
                let c_name = CString::new(name).map_err(|_| failed(nix::errno::Errno::EINVAL))?;
                let groups = unistd::getgrouplist(&c_name, user.gid).map_err(failed)?;
                (user.gid, groups)
            }
            Some(group) => {
                let gid = unistd::Group::from_name(group)
                    .map_err(failed)?
                    .ok_or_else(|| UserError::NoGroup {
                        text: text.to_owned(),
                        name: group.to_owned(),
                    })?
                    .gid;
                (gid, vec![gid])
            }
        };
        Ok(User {
            name: name.to_owned(),
            uid: Uid::from_raw(user.uid.as_raw()),
            gid: Gid::from_raw(gid.as_raw()),
            groups: groups
                .into_iter()
                .map(|gid| Gid::from_raw(gid.as_raw()))
                .collect(),
        })
    }

    /// Who owns what is handed over.
    pub fn ids(&self) -> (Uid, Gid) {
        (self.uid, self.gid)
    }

    /// The calling thread becomes this user, and keeps its permitted capabilities for now.
    pub(super) fn become_it(&self) -> Result<(), ExitError> {
        let cannot = |what: &str| {
            let text = format!("cannot become user {} ({what})", self.name);
            move |error: Errno| ExitError::caused(text, &error)
        };
        set_keep_capabilities(true).map_err(cannot("keep capabilities"))?;
        set_thread_groups(&self.groups).map_err(cannot("setgroups"))?;
        set_thread_res_gid(self.gid, self.gid, self.gid).map_err(cannot("setresgid"))?;
        set_thread_res_uid(self.uid, self.uid, self.uid).map_err(cannot("setresuid"))?;
        set_keep_capabilities(false).map_err(cannot("keep capabilities"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_or_named() {
        let root = User::find("root").unwrap();
        assert_eq!((root.uid, root.gid), (Uid::ROOT, Gid::ROOT));
        assert!(root.groups.contains(&Gid::ROOT));
        let error = User::find("no-such-user:root").unwrap_err().to_string();
        assert!(
            error.starts_with("--user no-such-user:root: this host has no user"),
            "{error}"
        );
        let error = User::find("root:no-such-group").unwrap_err().to_string();
        assert!(error.contains("no group 'no-such-group'"), "{error}");
        let error = ExitError::from(User::find("a\0b").unwrap_err());
        assert_eq!(error.code(), 64);
    }
}
