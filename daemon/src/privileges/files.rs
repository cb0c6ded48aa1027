//! The files that a daemon goes on using: handed over before the switch, checked after it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, OFlags, access, fchown};

use super::{Needs, User};
use crate::exit::ExitError;
use crate::options::CommonOptions;

/// All of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    /// Read at any time.
    pub(super) read: Vec<PathBuf>,
    /// Written, made or removed within.
    pub(super) write: Vec<PathBuf>,
    /// Written by name later.
    own: Vec<PathBuf>,
    /// Read by name later.
    must_read: Vec<PathBuf>,
    /// Read at SIGHUP.
    config: Option<PathBuf>,
    /// In these, a file is made again when logs are rotated.
    log_dir: Option<PathBuf>,
}

impl Paths {
    pub(super) fn new(options: &CommonOptions, needs: &Needs) -> Self {
        let mut paths = Paths {
            read: needs.read.clone(),
            write: needs.write.clone(),
            own: needs.own.clone(),
            must_read: needs
                .read
                .iter()
                .filter(|it| it.is_file())
                .cloned()
                .collect(),
            config: None,
            log_dir: options.log_file.as_deref().map(directory),
        };
        let certificates = [&options.ca, &options.cert, &options.key];
        for file in certificates.into_iter().flatten() {
            paths.must_read.push(file.clone());
            // What replaces a file is another one: it is the directory that counts.
            paths.read.push(directory(file));
            // Behind symbolic links, where renewing programs keep their files.
            if let Ok(real) = file.canonicalize() {
                paths.read.push(directory(&real));
            }
        }
        paths.config.clone_from(&options.config);
        paths.read.extend(options.config.as_deref().map(directory));
        paths.own.extend(options.log_file.clone());
        paths.own.extend(options.pid_file.clone());
        let written = paths.own.iter().map(|file| directory(file));
        paths.write.extend(written);
        paths
    }

    /// Gives the files to `user`: regular ones, and only those with one name.
    pub(super) fn hand_over(&self, user: &User) -> Result<(), ExitError> {
        for path in self.own.iter().filter(|path| is_file(path)) {
            let given = open(path).and_then(|file| {
                let about = file.metadata()?;
                if about.is_file() && about.nlink() == 1 {
                    let (uid, gid) = user.ids();
                    fchown(&file, Some(uid), Some(gid))?;
                }
                Ok(())
            });
            given.map_err(|error| {
                ExitError::start(format!(
                    "cannot give {} to user {}: {error}; name another file, or chown it",
                    path.display(),
                    user.name
                ))
            })?;
        }
        Ok(())
    }

    /// As the new user: what could not be used hours later is said now.
    pub(super) fn check(&self) -> Result<(), ExitError> {
        for path in &self.must_read {
            if let Err(error) = File::open(path) {
                let uid = rustix::process::geteuid().as_raw();
                return Err(ExitError::start(format!(
                    "user {uid} (--user) cannot read {}, which is opened again later: {error}; \
                     give it the right, as by chgrp and chmod 640",
                    path.display()
                )));
            }
        }
        for path in self.own.iter().filter(|path| !is_special(path)) {
            if let Err(error) = OpenOptions::new().append(true).open(path) {
                let uid = rustix::process::geteuid().as_raw();
                return Err(ExitError::start(format!(
                    "user {uid} (--user) cannot write {}: {error}; put it into a directory that \
                     this user may enter",
                    path.display()
                )));
            }
        }
        if let Some(config) = &self.config
            && let Err(error) = File::open(config)
        {
            tracing::warn!(
                "user {} (--user) cannot read {}: {error}; SIGHUP will change nothing",
                rustix::process::geteuid().as_raw(),
                config.display()
            );
        }
        if let Some(dir) = &self.log_dir
            && access(dir, Access::WRITE_OK | Access::EXEC_OK).is_err()
        {
            tracing::warn!(
                "user {} (--user) cannot make files in {}: after a rotation of the log, SIGHUP \
                 will find no new file unless the rotation makes one for this user",
                rustix::process::geteuid().as_raw(),
                dir.display()
            );
        }
        Ok(())
    }
}

/// A file itself, and no link to one: who may change the link could have us give away any file.
fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|it| it.is_file())
}

/// A terminal, a pipe or `/dev/null`: they are nobody's to give.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| !it.is_file() && !it.is_dir())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
}

/// The directory that a file is in.
fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) => parent.to_owned(),
        None => PathBuf::from("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_bare_name_is_here() {
        for (file, expected) in [
            ("a.log", "."),
            ("x/a.log", "x"),
            ("/a.log", "/"),
            ("/", "/"),
        ] {
            assert_eq!(directory(Path::new(file)), Path::new(expected), "{file}");
        }
    }
}
