//! The PID file: locked while the daemon lives, so that a stale one is never mistaken for a
//! living daemon and a living one is never overwritten.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::exit::ExitError;

/// A PID is at most 7 digits; anything longer is another kind of file.
const MAX_CONTENT: u64 = 64;

/// How often to try again when another process removes the file at the same moment.
const ATTEMPTS: usize = 10;

/// A PID file that this process holds. Removed when dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    // Holds the lock.
    file: File,
}

impl PidFile {
    /// Writes this process's id to `path`.
    ///
    /// # Errors
    /// Exit code 1: a living process holds it, it is not a PID file, or it cannot be written.
    pub fn create(path: &Path) -> Result<PidFile, ExitError> {
        let shown = path.display();
        for _ in 0..ATTEMPTS {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                // A PID file is often in a directory that others can write to.
                .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
                .open(path)
                .map_err(|error| {
                    ExitError::start(format!(
                        "cannot open the PID file {shown}: {error}; give another -P FILE"
                    ))
                })?;
            let cannot = |error: &dyn std::error::Error| {
                ExitError::caused(format_args!("cannot write the PID file {shown}"), error)
            };
            let locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
            if locked == Err(Errno::WOULDBLOCK) {
                let holder = read(&mut file).unwrap_or_default();
                return Err(ExitError::start(format!(
                    "the PID file {shown} is held by the living process {}: stop that one, or \
                     give another -P FILE",
                    holder.trim()
                )));
            }
            locked.map_err(|error| cannot(&error))?;
            // Its holder may have removed it between our open and our lock.
            let same = fs::symlink_metadata(path).is_ok_and(|named| {
                file.metadata()
                    .is_ok_and(|ours| (ours.dev(), ours.ino()) == (named.dev(), named.ino()))
            });
            if !same {
                continue;
            }
            let content = read(&mut file).map_err(|error| cannot(&error))?;
            if !content.trim().is_empty() && content.trim().parse::<u32>().is_err() {
                return Err(ExitError::start(format!(
                    "{shown} is not a PID file (it holds something else than a number): give \
                     another -P FILE"
                )));
            }
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.seek(SeekFrom::Start(0))?;
                writeln!(file, "{}", std::process::id())
            };
            write(&mut file).map_err(|error| cannot(&error))?;
            return Ok(PidFile {
                path: path.to_owned(),
                file,
            });
        }
        Err(ExitError::start(format!(
            "the PID file {shown} is removed and created by others all the time: give another -P \
             FILE"
        )))
    }
}

fn read(file: &mut File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(MAX_CONTENT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Err(error) = fs::remove_file(&self.path) else {
            return;
        };
        // After --user the directory may be closed to us. An empty file is taken over next time,
        // and names nobody until then.
        let emptied = self.file.set_len(0);
        if error.kind() != std::io::ErrorKind::PermissionDenied || emptied.is_err() {
            tracing::warn!(
                "cannot remove the PID file {}: {error}",
                self.path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("millrace-{name}-{}.pid", std::process::id()))
    }

    #[test]
    fn written_held_refused_to_a_second_and_removed() {
        let path = path("held");
        let held = PidFile::create(&path).unwrap();
        let content = fs::read_to_string(&path).unwrap();
        assert_eq!(content, format!("{}\n", std::process::id()));
        let error = PidFile::create(&path).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("living process {}", std::process::id())),
            "{error}"
        );
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_one_is_taken_over() {
        let path = path("stale");
        fs::write(&path, "999999999\n").unwrap();
        let held = PidFile::create(&path).unwrap();
        let content = fs::read_to_string(&path).unwrap();
        assert_eq!(content, format!("{}\n", std::process::id()));
        drop(held);
    }

    #[test]
    fn another_kind_of_file_and_a_link_are_left_alone() {
        let path = path("other");
        fs::write(&path, "root:x:0:0").unwrap();
        let error = PidFile::create(&path).unwrap_err();
        assert!(error.to_string().contains("is not a PID file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "root:x:0:0");

        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(PidFile::create(&link).is_err());
        fs::remove_file(&path).unwrap();
        fs::remove_file(&link).unwrap();
    }
}
