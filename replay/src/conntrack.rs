//! Connection tracking of the live host. Copies that go through the kernel's routing are connections to it that never
//! get an answer: each holds a place in its table for minutes, and a full table drops what real clients send.

use std::path::Path;
use std::time::Duration;

use millrace_daemon::exit::ExitError;
use tokio::time::{MissedTickBehavior, interval};

/// Where the kernel tells, for this network namespace; not there while nothing has loaded the module.
const DIRECTORY: &str = "/proc/sys/net/netfilter";
/// How often the table is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// From this fullness on it is said, in percent, and once more after it was below the other.
const FULL: u64 = 80;
const EMPTIER: u64 = 70;

/// How full the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    count: u64,
    max: u64,
}

impl Table {
    /// That of this host; `None` if it tracks no connections.
    pub fn of_this_host() -> Option<Self> {
        Self::read(Path::new(DIRECTORY)).filter(|table| table.count > 0)
    }

    fn read(directory: &Path) -> Option<Self> {
        let number = |name: &str| {
            let text = std::fs::read_to_string(directory.join(name)).ok()?;
            text.trim().parse().ok()
        };
        Some(Self {
            count: number("nf_conntrack_count")?,
            max: number("nf_conntrack_max")?,
        })
    }

    /// In percent; a maximum of 0 is none.
    pub fn fullness(self) -> u64 {
        self.count * 100 / self.max.max(1) * u64::from(self.max > 0)
    }

    /// Beyond its maximum real clients are dropped.
    pub fn is_nearly_full(self) -> bool {
        self.fullness() >= FULL
    }
}

/// Refuses to send through the kernel's routing on a host that tracks connections.
///
/// # Errors
/// It does, with what to do (exit code 1).
pub(crate) fn refuse(why_routed: &str) -> Result<(), ExitError> {
    if Table::of_this_host().is_none() {
        return Ok(());
    }
    Err(ExitError::start(format!(
        "this host tracks connections, and copies would fill its table, at the cost of real clients: they are sent \
         through the kernel's routing, since {why_routed}. Send at the link layer (-o DEV); or exempt what goes to \
         the target (`iptables -t raw -I OUTPUT -p tcp -d TARGET --dport PORT -j CT --notrack`) and say so with \
         --allow-conntrack"
    )))
}

/// Says when the table fills up, for as long as the copier runs.
pub async fn watch() {
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        looks.tick().await;
        let Some(table) = Table::read(Path::new(DIRECTORY)) else {
            continue;
        };
        let fullness = table.fullness();
        if table.is_nearly_full() && !said {
            said = true;
            tracing::warn!(
                "connection tracking of this host is {fullness}% full ({} of {}): beyond that real clients are \
                 dropped. Exempt copies from it, or raise net.netfilter.nf_conntrack_max",
                table.count,
                table.max
            );
        }
        said &= fullness >= EMPTIER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fullness_is_that_of_the_kernels_numbers() {
        let directory = std::env::temp_dir().join(format!("millrace-ct-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        assert_eq!(Table::read(&directory), None, "no such module");
        std::fs::write(directory.join("nf_conntrack_count"), "1700\n").unwrap();
        std::fs::write(directory.join("nf_conntrack_max"), "2000\n").unwrap();
        assert_eq!(Table::read(&directory).unwrap().fullness(), 85);
        std::fs::write(directory.join("nf_conntrack_max"), "0\n").unwrap();
        assert_eq!(Table::read(&directory).unwrap().fullness(), 0);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
