//! The last known peers on disk, so that a daemon that starts while Consul is away knows them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use millrace_notation::address::{DefaultPort, HostPort};

/// More is no list of ours.
const MAX_SIZE: u64 = 1 << 20;

/// A file with one address in each line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory(PathBuf);

impl Memory {
    /// That of a service, in a directory that must exist.
    pub fn new(directory: &Path, service: &str) -> Self {
        Self(directory.join(format!("{service}.peers")))
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What was kept; empty if nothing ever was.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(&self) -> io::Result<Vec<HostPort>> {
        let text = match fs::metadata(&self.0) {
            Ok(about) if about.is_file() && about.len() <= MAX_SIZE => fs::read_to_string(&self.0)?,
            Ok(_) => return Err(io::Error::other("that is no list of peers")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let lines = text.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| DefaultPort(0).parse(line).map_err(io::Error::other))
            .collect()
    }

    /// Keeps `peers` in place of what was kept. Whoever reads it meanwhile sees the one or the other.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep(&self, peers: &[HostPort]) -> io::Result<()> {
        let mut text = String::new();
        for peer in peers {
            text.push_str(&peer.to_string());
            text.push('\n');
        }
        let new = self.0.with_extension("new");
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        fs::rename(&new, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_and_anything_else_is_refused() {
        let directory = std::env::temp_dir().join(format!("millrace-peers-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let memory = Memory::new(&directory, "millrace-interceptor-web");
        assert_eq!(memory.read().unwrap(), []);
        let peers = DefaultPort(1)
            .parse_list("rs1:7,198.18.0.1,[2001:db8::1]:9")
            .unwrap();
        memory.keep(&peers).unwrap();
        assert_eq!(memory.read().unwrap(), peers);
        memory.keep(&peers[..1]).unwrap();
        assert_eq!(memory.read().unwrap(), peers[..1]);
        for wrong in [&b"a b\n"[..], b"\xff\xfe", &[b'x'; 2 << 20]] {
            fs::write(memory.path(), wrong).unwrap();
            assert!(memory.read().is_err());
        }
        fs::remove_dir_all(&directory).unwrap();
        assert!(memory.keep(&peers).is_err());
    }
}
