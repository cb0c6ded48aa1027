//! A lab: the namespaces of one experiment, made together and gone together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::command::{check, command, ip_batch};
use crate::error::{Doing, Result};
use crate::host::Host;
use crate::link::Switch;

/// First letters of every namespace of every lab; the maker's process id follows.
const PREFIX: &str = "mr";
/// What a shell reports for a program ended by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;
/// How long the killed processes of one namespace may take to end.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// All labs of this process, for the signal handler.
static LABS: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
static NEXT: AtomicU32 = AtomicU32::new(0);
static SIGNALS: OnceLock<()> = OnceLock::new();

/// Hosts, switches and links of one experiment.
///
/// Dropping it, or SIGINT or SIGTERM to the process, ends every process in its namespaces and removes them.
/// What a killed process left behind is removed when the next lab is made.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    prefix: String,
    directory: PathBuf,
    namespaces: Mutex<Vec<String>>,
}

impl Lab {
    /// An empty lab with a directory of its own for logs and configuration files.
    ///
    /// # Errors
    /// When `ip` is missing, the directory cannot be made, or signals cannot be caught.
    pub fn new() -> Result<Self> {
        sweep()?;
        SIGNALS.get_or_init(|| {
            std::thread::spawn(clean_up_on_signal);
        });
        let pid = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{pid}-{number}-");
        let directory = directory_of(&pid.to_string(), &number.to_string());
        std::fs::create_dir_all(&directory).doing(|| format!("making {}", directory.display()))?;
        let inner = Arc::new(Inner {
            prefix,
            directory,
            namespaces: Mutex::default(),
        });
        let mut labs = LABS.lock();
        labs.retain(|lab| lab.strong_count() > 0);
        labs.push(Arc::downgrade(&inner));
        Ok(Self { inner })
    }

    /// A new host: a namespace with loopback up and no other device.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses the namespace.
    pub fn host(&self, name: &str) -> Result<Host> {
        Host::new(Arc::clone(&self.inner), name)
    }

    /// A new switch without ports.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses the namespace or the bridge.
    pub fn switch(&self, name: &str) -> Result<Switch> {
        Switch::new(self.host(name)?)
    }

    /// Where this lab's logs and configuration files are. Removed with the lab, unless the thread panics.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// The names of all its namespaces, as `ip netns` lists them.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        self.inner.namespaces.lock().clone()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.inner.remove_namespaces();
        if !std::thread::panicking() {
            // Left-over logs harm nobody; there is no one to tell.
            let _ = std::fs::remove_dir_all(&self.inner.directory);
        }
    }
}

impl Inner {
    /// Makes a namespace that goes when the lab goes, and returns its full name.
    pub(crate) fn add_namespace(&self, name: &str) -> Result<String> {
        let full = format!("{}{name}", self.prefix);
        // Under the lock until it is made: a signal in between would otherwise leave it behind.
        let mut namespaces = self.namespaces.lock();
        ip_batch(None, &[format!("netns add {full}")])?;
        namespaces.push(full.clone());
        Ok(full)
    }

    pub(crate) fn forget_namespace(&self, full: &str) {
        let mut namespaces = self.namespaces.lock();
        namespaces.retain(|name| name != full);
        remove_namespace(full);
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn remove_namespaces(&self) {
        let mut namespaces = self.namespaces.lock();
        for name in namespaces.drain(..) {
            remove_namespace(&name);
        }
    }
}

/// Ends all processes of a namespace, waits until they have ended, and removes it. Best effort: it also runs while a
/// process is dying.
fn remove_namespace(name: &str) {
    let deadline = Instant::now() + KILL_WAIT;
    // Until none is left: a process may have forked while a list was being read.
    loop {
        let processes = pids(name);
        if processes.is_empty() || Instant::now() >= deadline {
            break;
        }
        for pid in processes {
            let _ = end(pid, deadline);
        }
    }
    let _ = ip_batch(None, &[format!("netns del {name}")]);
}

/// Kills a process and waits until it has ended; it may stay a zombie until its parent looks.
fn end(pid: Pid, deadline: Instant) -> rustix::io::Result<()> {
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    pidfd_send_signal(&process, Signal::KILL)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let limit = rustix::event::Timespec {
        tv_sec: left.as_secs().cast_signed(),
        tv_nsec: left.subsec_nanos().into(),
    };
    // pidfd_open(2): readable once the process has ended.
    poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit))?;
    Ok(())
}

/// The processes whose network namespace is the named one, this process itself left out.
fn pids(namespace: &str) -> Vec<Pid> {
    let own = std::process::id().to_string();
    command("ip")
        .and_then(|mut ip| check(ip.args(["netns", "pids", namespace])))
        .unwrap_or_default()
        .split_whitespace()
        .filter(|pid| *pid != own)
        .filter_map(|pid| pid.parse().ok().and_then(Pid::from_raw))
        .collect()
}

/// Removes the namespaces of labs whose process is gone: nobody else would after a SIGKILL.
fn sweep() -> Result<()> {
    let listing = check(command("ip")?.args(["netns", "list"]))?;
    for name in listing
        .lines()
        .filter_map(|line| line.split_whitespace().next())
    {
        let Some((pid, number)) = maker(name) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            remove_namespace(name);
            // Of a lab that had no time to remove its namespaces; the logs of a failed test are not of such.
            let _ = std::fs::remove_dir_all(directory_of(pid, number));
        }
    }
    Ok(())
}

/// The process id, and the number of the lab in that process, in a namespace name of ours.
fn maker(namespace: &str) -> Option<(&str, &str)> {
    let (pid, rest) = namespace.strip_prefix(PREFIX)?.split_once('-')?;
    let (number, _) = rest.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    (digits(pid) && digits(number)).then_some((pid, number))
}

fn directory_of(pid: &str, number: &str) -> PathBuf {
    std::env::temp_dir().join(format!("millrace-lab-{pid}-{number}"))
}

/// Runs on a thread for the whole life of the process; ends the process on the first signal.
fn clean_up_on_signal() {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return;
    };
    let caught = runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
        ) else {
            return false;
        };
        tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
        }
    });
    if !caught {
        return;
    }
    let labs = LABS.lock();
    for inner in labs.iter().filter_map(Weak::upgrade) {
        inner.remove_namespaces();
        let _ = std::fs::remove_dir_all(&inner.directory);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the signal asked this process to end; all of its labs are gone"
    )]
    std::process::exit(EXIT_INTERRUPTED);
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_our_own_names_have_a_maker() {
        assert_eq!(maker("mr123-0-live"), Some(("123", "0")));
        assert_eq!(maker("mrx-0-live"), None);
        assert_eq!(maker("other"), None);
        assert_eq!(maker("mr123"), None);
        assert_eq!(maker("mr123-../x-live"), None);
        assert_eq!(maker("mr-0-live"), None);
    }
}
