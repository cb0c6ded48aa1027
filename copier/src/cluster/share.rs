//! The share of the source addresses and ports that this copier has taken under a lock in Consul (`-f auto`), so that any
//! number of copiers that start by themselves never use the same.

use std::time::Duration;

use millrace_daemon::boottime::BootTime;
use millrace_daemon::exit::ExitError;
use millrace_engine::Share;
use millrace_fleet::consul::{Kept, Lease, NoSlot, Slot};
use tokio::runtime::Handle;

use crate::options::{Options, ShareOption};

/// Between two tries to take a share.
const AGAIN: Duration = Duration::from_secs(2);

/// Takes a share where `-f auto` asks for one, and names it in the options. Waits for Consul as long as it takes: a copier
/// without a share of its own may send nothing.
///
/// # Errors
/// No cluster is named, or all shares of it are taken.
pub fn take(options: &mut Options) -> Result<Option<Slot>, ExitError> {
    let Some(ShareOption::Auto(of)) = options.intensity.share else {
        return Ok(None);
    };
    // A plan was made of these options: it has one.
    let Some(cluster) = options.cluster_name()? else {
        return Ok(None);
    };
    let client = options.consul.client()?;
    let prefix = cluster.key("shares/");
    let owner = millrace_daemon::listen::host_name();
    let mut said = String::new();
    loop {
        match Slot::take(&client, &prefix, of, &owner) {
            Ok(slot) => {
                options.intensity.share = Share::new(slot.index(), of).map(ShareOption::Given);
                return Ok(Some(slot));
            }
            Err(NoSlot::Full(of)) => {
                return Err(ExitError::start(format!(
                    "-f auto: all {of} shares of cluster {cluster} are taken; stop copiers that are not needed, or name \
                     another number in all of them (-f auto/N)"
                )));
            }
            Err(NoSlot::Consul(failure)) => {
                let why = failure.to_string();
                if said != why {
                    tracing::warn!("-f auto: {why}; a share is asked for again every {AGAIN:?}");
                    said = why;
                }
                std::thread::sleep(AGAIN);
            }
        }
    }
}

/// Keeps a share that was taken, or has none to keep.
#[derive(Debug)]
pub struct Keeper(Option<Kept>);

impl Keeper {
    /// Keeps `slot`.
    pub fn new(slot: Option<Slot>, runtime: &Handle) -> Self {
        if let Some(slot) = &slot {
            tracing::info!(
                "share {} of the sources is this copier's (-f auto)",
                slot.index()
            );
        }
        Self(slot.map(|slot| slot.keep(runtime)))
    }

    /// Whether the sources are this copier's own.
    pub fn claim(&self) -> Claim {
        Claim(self.0.as_ref().map(Kept::lease))
    }

    /// Gives the share back.
    ///
    /// # Errors
    /// It was lost to another copier: whoever supervises this one starts it anew, with another share.
    pub fn end(self, runtime: &Handle) -> Result<(), ExitError> {
        let Some(kept) = self.0 else {
            return Ok(());
        };
        let (lease, share) = (kept.lease(), kept.lease().index());
        if lease.is_lost() {
            return Err(ExitError::start(format!(
                "share {share} of the sources is another copier's now, since Consul had no word of this one: start it \
                 anew, and it takes another share"
            )));
        }
        runtime.block_on(kept.give_back());
        Ok(())
    }
}

/// Whether a copier's sources are its own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Claim(Option<Lease>);

impl Claim {
    /// Whether nobody else can use them at this moment.
    pub fn is_valid(&self) -> bool {
        let lease = self.0.as_ref();
        lease.is_none_or(|lease| lease.is_valid(BootTime::now()))
    }

    /// Whether they are another one's for good.
    pub fn is_lost(&self) -> bool {
        self.0.as_ref().is_some_and(Lease::is_lost)
    }

    /// Why nothing is sent: they may be another one's.
    pub fn obstacle(&self) -> Option<String> {
        let lease = self.0.as_ref()?;
        (!lease.is_valid(BootTime::now())).then(|| {
            format!(
                "share {} of the sources may be another copier's ({})",
                lease.index(),
                lease.trouble()
            )
        })
    }
}
