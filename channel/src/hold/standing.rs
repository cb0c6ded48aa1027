//! What an agent's thread knows of the diverting on its host, for the streams that tell the holders.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millrace_proto::v1;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use millrace_daemon::boottime::BootTime;
use millrace_daemon::incarnation::random_u64;

/// Which host it is, as it was started.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The network namespace of a process.
const NAMESPACE: &str = "/proc/self/ns/net";

/// One life of a host's network: from its start, or that of its network namespace, to its end. No connection
/// outlives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLife {
    /// The kernel's boot_id.
    pub boot_id: String,
    /// The inode of the network namespace.
    pub namespace: u64,
}

impl HostLife {
    /// That in which this process runs.
    pub fn now() -> Self {
        let boot_id = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
        Self {
            boot_id: boot_id.trim().to_owned(),
            namespace: std::fs::metadata(NAMESPACE).map_or(0, |it| it.ino()),
        }
    }
}

/// The agent's word on its host. Cheap to clone; all clones are the same.
#[derive(Clone, Debug)]
pub struct Standing(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Milliseconds of [`BootTime`].
    looked_at: AtomicU64,
    /// Why responses are not diverted as they should be, and how often that has changed.
    trouble: watch::Sender<(String, u64)>,
    /// What operators should know, by holder.
    warnings: watch::Sender<BTreeMap<String, Vec<String>>>,
    life: HostLife,
}

impl Standing {
    /// That of the host and network namespace of this process, just looked at.
    pub fn of_this_host() -> Self {
        Self(Arc::new(Inner {
            looked_at: AtomicU64::new(BootTime::now().ms()),
            trouble: watch::Sender::new((String::new(), random_u64() >> 32)),
            warnings: watch::Sender::default(),
            life: HostLife::now(),
        }))
    }

    /// The host was looked at, or nothing was heard of a change since it was.
    pub fn looked(&self) {
        let now = BootTime::now().ms();
        self.0.looked_at.store(now, Ordering::Relaxed);
    }

    /// Why responses are not diverted as they should be, if they are not. Holders are told at once.
    pub fn say(&self, trouble: Option<&str>) {
        let trouble = trouble.unwrap_or_default();
        self.0.trouble.send_if_modified(|(said, generation)| {
            let new = said != trouble;
            if new {
                trouble.clone_into(said);
                *generation += 1;
            }
            new
        });
    }

    /// What operators should know, one line each, by holder. Each holder whose warnings have changed is told at once.
    pub fn warn(&self, by_holder: BTreeMap<String, Vec<String>>) {
        self.0.warnings.send_if_modified(|said| {
            let new = *said != by_holder;
            if new {
                *said = by_holder;
            }
            new
        });
    }

    pub(super) fn warnings(&self) -> watch::Receiver<BTreeMap<String, Vec<String>>> {
        self.0.warnings.subscribe()
    }

    pub(super) fn changes(&self) -> watch::Receiver<(String, u64)> {
        self.0.trouble.subscribe()
    }

    /// As it goes over the wire.
    pub(super) fn message(&self) -> v1::Standing {
        let looked_at = self.0.looked_at.load(Ordering::Relaxed);
        let ago = BootTime::now().ms().saturating_sub(looked_at);
        let (trouble, generation) = self.0.trouble.borrow().clone();
        v1::Standing {
            trouble,
            looked_ms_ago: u32::try_from(ago).unwrap_or(u32::MAX),
            generation,
            boot_id: self.0.life.boot_id.clone(),
            namespace: self.0.life.namespace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_is_no_change() {
        let standing = Standing::of_this_host();
        let changes = standing.changes();
        let before = standing.message().generation;
        standing.say(None);
        assert!(!changes.has_changed().unwrap());
        standing.say(Some("a rule is in the way"));
        standing.say(Some("a rule is in the way"));
        assert!(changes.has_changed().unwrap());
        let message = standing.message();
        assert_eq!(message.trouble, "a rule is in the way");
        assert_eq!(message.generation, before + 1);
        assert!(message.namespace != 0 && message.boot_id.len() == 36);
    }
}
