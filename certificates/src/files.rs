//! Files of certificates and keys.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::{Error, Result};

/// Rights of what everybody may read.
pub(crate) const PUBLIC: u32 = 0o644;
/// Rights of keys.
pub(crate) const SECRET: u32 = 0o600;

/// Makes a directory, unless it is there.
pub(crate) fn make_directory(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)
        .map_err(|source| failed(format!("making the directory {}", dir.display()), source))
}

/// Waits until nobody else changes a directory, and keeps others from it until this is dropped.
pub(crate) fn lock(dir: &Path) -> Result<File> {
    let lock = || {
        let directory = File::open(dir)?;
        directory.lock()?;
        Ok(directory)
    };
    lock().map_err(|source| failed(format!("locking {}", dir.display()), source))
}

/// What is in a file, unless there is none. What cannot be read is no reason to make another one.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(format!("reading {}", path.display()), source)),
    }
}

/// Puts a file in the place of another at once. It has its rights from the beginning.
pub(crate) fn replace(path: &Path, content: &str, mode: u32) -> Result<()> {
    let fresh = path.with_extension("fresh");
    let write = || {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|source| failed(format!("writing {}", path.display()), source))
}

fn failed(what: String, source: io::Error) -> Error {
    Error::Io { what, source }
}
