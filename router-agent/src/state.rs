//! What the kernel cannot tell after a kill: the settings that were there before ours, what was
//! applied by hand and so has no lease, and what was diverted if somebody has removed our rules since.
//!
//! The file is written whole, under another name, synchronised and renamed, before the change that
//! it remembers; what is diverted after it. A file that cannot be read is put aside and said so: routes and rules are read
//! back from the kernel in any case.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::need::{Need, Selectors};
use millrace_channel::hold::HostLife;

/// Largest file that is read. Bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A kernel setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its value before.
    pub before: String,
    /// The value that was set.
    pub set: String,
}

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Kernel settings, by key.
    #[serde(default)]
    pub settings: BTreeMap<String, Changed>,
    /// What was applied by hand, until it is removed by hand.
    #[serde(default)]
    pub by_hand: Option<Need>,
    /// What was diverted last.
    #[serde(default)]
    pub diverted: Diverted,
}

/// What was diverted, and in which life of the host: its connections ended with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diverted {
    /// The host and its network, as they were started.
    pub host: HostLife,
    /// What was diverted.
    pub selectors: Selectors,
}

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {error}{}", path.display(), self.cure())]
pub struct StateError {
    what: &'static str,
    path: PathBuf,
    error: io::Error,
}

impl StateError {
    /// What mends it, where that is known.
    fn cure(&self) -> String {
        let directory = self.path.parent().unwrap_or(&self.path).display();
        match self.error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                format!("; make room (`df -h {directory}`), or name another --state-dir")
            }
            _ => String::new(),
        }
    }
}

/// The file, and the lock that keeps two agents from working on one host at a time.
#[derive(Debug)]
pub struct StateFile {
    directory: PathBuf,
    _lock: Option<File>,
    state: State,
}

/// The directory's only agent, or who it is.
#[derive(Debug)]
pub enum Opened {
    /// This process.
    Ours(StateFile),
    /// Another process, with this id if it is known.
    Taken(Option<u32>),
}

impl StateFile {
    /// Opens the directory, made if need be, for this process alone.
    ///
    /// # Errors
    /// When it cannot be made or written.
    pub fn open(directory: &Path) -> Result<Opened, StateError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |error| StateError { what, path, error }
        };
        fs::create_dir_all(directory).map_err(failed("cannot make", directory))?;
        let path = directory.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("cannot open", &path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = fs::read_to_string(&path).ok();
            return Ok(Opened::Taken(pid.and_then(|it| it.trim().parse().ok())));
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed("cannot write", &path))?;
        Ok(Opened::Ours(StateFile {
            directory: directory.to_owned(),
            _lock: Some(lock),
            state: load(directory),
        }))
    }

    /// Only looks: what is remembered, without the lock.
    pub fn peek(directory: &Path) -> State {
        load(directory)
    }

    /// A file for planning alone: what it holds is read, and cannot be written.
    pub fn read_only(directory: &Path) -> StateFile {
        StateFile {
            directory: directory.to_owned(),
            _lock: None,
            state: load(directory),
        }
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Remembers something else, on disk when this returns.
    ///
    /// # Errors
    /// When it cannot be written; then the old state stays.
    pub fn replace(&mut self, state: State) -> Result<(), StateError> {
        let path = self.directory.join("state.json");
        let failed = |error| StateError {
            what: "cannot write",
            path: path.clone(),
            error,
        };
        if state == self.state {
            return Ok(());
        }
        let text = serde_json::to_string_pretty(&state)
            .map_err(|error| failed(io::Error::other(error)))?;
        let new = self.directory.join("state.json.new");
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(&self.directory)?.sync_all()
        };
        write().map_err(failed)?;
        self.state = state;
        Ok(())
    }
}

fn load(directory: &Path) -> State {
    let path = directory.join("state.json");
    let text = match fs::metadata(&path) {
        Ok(data) if data.len() > MAX_BYTES => Err("it is too large".to_owned()),
        Ok(_) => fs::read_to_string(&path).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return State::default(),
        Err(error) => Err(error.to_string()),
    };
    let parsed = text.and_then(|text| serde_json::from_str(&text).map_err(|it| it.to_string()));
    parsed.unwrap_or_else(|error| {
        let aside = directory.join("state.json.unreadable");
        // If it cannot be put aside, it is overwritten by the next state.
        let _ = fs::rename(&path, &aside);
        tracing::warn!(
            "{} cannot be read ({error}): it is now {}; routes and rules are read back from the \
             kernel, but kernel settings that were changed are not restored, and what was applied \
             by hand is removed like a lease whose holder is gone",
            path.display(),
            aside.display()
        );
        State::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let pid = std::process::id();
        let directory = std::env::temp_dir().join(format!("millrace-state-{pid}-{name}"));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    fn ours(directory: &Path) -> StateFile {
        match StateFile::open(directory).unwrap() {
            Opened::Ours(file) => file,
            Opened::Taken(pid) => panic!("taken by {pid:?}"),
        }
    }

    #[test]
    fn what_is_remembered_is_there_after_a_restart() {
        let directory = directory("kept");
        let mut state = State::default();
        state.settings.insert(
            "net/ipv4/conf/eth0/rp_filter".to_owned(),
            Changed {
                before: "1".to_owned(),
                set: "2".to_owned(),
            },
        );
        ours(&directory).replace(state.clone()).unwrap();
        assert_eq!(ours(&directory).state(), &state);
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_unreadable_file_is_put_aside() {
        let directory = directory("broken");
        for broken in ["", "{", "7", "{\"settings\": 3}"] {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("state.json"), broken).unwrap();
            assert_eq!(ours(&directory).state(), &State::default(), "{broken}");
            assert!(directory.join("state.json.unreadable").exists());
            fs::remove_dir_all(&directory).unwrap();
        }
    }

    #[test]
    fn a_second_agent_is_told_who_the_first_is() {
        let directory = directory("taken");
        let first = ours(&directory);
        match StateFile::open(&directory).unwrap() {
            Opened::Taken(pid) => assert_eq!(pid, Some(std::process::id())),
            Opened::Ours(_) => panic!("two agents at a time"),
        }
        drop(first);
        drop(ours(&directory));
        fs::remove_dir_all(&directory).unwrap();
    }
}
