//! Where Millrace's own programs are.

use std::path::{Path, PathBuf};

use crate::error::{Doing, Error, Result};

/// The file of one of the workspace's binaries: beside the program that runs, or, for a test (which cargo puts
/// into `deps/`), one directory up.
///
/// # Errors
/// [`Error::NoBinary`] when it has not been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().doing(|| "finding this program's own file".to_owned())?;
    let directories = own.ancestors().skip(1).take(2);
    directories
        .map(|directory: &Path| directory.join(name))
        .find(|file| file.is_file())
        .ok_or(Error::NoBinary {
            name: name.to_owned(),
            beside: own,
        })
}
