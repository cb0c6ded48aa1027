//! Kernel settings on which diverting depends: checked, and with `--manage-sysctl` set and restored.
//!
//! - `rp_filter` (kernel documentation, networking/ip-sysctl): strict filtering drops copied
//!   packets whose source would be answered over another device. The larger value of `all` and the
//!   device counts, so 2 (loose) on the device decides.
//! - `arp_ignore` and `arp_announce`: a real server that holds the VIP on its loopback device must
//!   not answer ARP for it, or clients reach it past the director.

use std::net::IpAddr;

use serde::Serialize;

use crate::host::HostConfig;
use crate::kernel::model::{Link, Snapshot};
use crate::kernel::{Answer, Kernel, KernelError, Lookup};
use crate::need::Selectors;
use crate::plan::ours;

/// Addresses for documentation (RFC 5737): they stand for any client.
pub const ANY_CLIENT_V4: [[u8; 4]; 3] = [[192, 0, 2, 1], [198, 51, 100, 1], [203, 0, 113, 1]];

/// A setting that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// With slashes: `net/ipv4/conf/eth0/rp_filter`.
    pub key: String,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub wanted: String,
    /// What happens otherwise.
    pub why: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            key,
            found,
            wanted,
            why,
        } = self;
        write!(
            f,
            "{key} is {found}: {why}; mend it with: sysctl -w {key}={wanted}"
        )
    }
}

/// What is not as it should be for these selectors.
///
/// # Errors
/// When a setting cannot be read, or the kernel cannot be asked.
pub fn findings(
    host: &HostConfig,
    kernel: &mut Kernel,
    snapshot: &Snapshot,
    selectors: &Selectors,
) -> Result<Vec<Finding>, KernelError> {
    let mut findings = Vec::new();
    let sources = sources(selectors);
    for link in ingress(host, snapshot) {
        if !sources.is_empty() {
            findings.extend(reverse_path(kernel, link, &sources)?);
        }
        if held_on_loopback(snapshot, selectors) {
            findings.extend(arp(kernel, link)?);
        }
    }
    Ok(findings)
}

/// Addresses that stand for those of IPv4 replicas; reverse path filtering is of IPv4 alone.
fn sources(selectors: &Selectors) -> Vec<IpAddr> {
    let mut sources: Vec<IpAddr> = selectors
        .iter()
        .filter(|selector| selector.is_ipv4())
        .filter_map(|selector| match selector.to {
            Some(to) => Some(to.first()),
            None => ANY_CLIENT_V4.first().map(|octets| (*octets).into()),
        })
        .collect();
    sources.sort_unstable();
    sources.dedup();
    sources
}

/// Devices on which copied packets may come in.
fn ingress<'a>(host: &'a HostConfig, snapshot: &'a Snapshot) -> impl Iterator<Item = &'a Link> {
    let carries = |link: &Link| {
        let mut addresses = snapshot.addresses.iter();
        addresses.any(|address| address.link == link.index && address.ip.is_ipv4())
    };
    snapshot
        .links
        .iter()
        .filter(move |link| link.up && !link.loopback && !ours::link(host, link) && carries(link))
}

fn held_on_loopback(snapshot: &Snapshot, selectors: &Selectors) -> bool {
    let services = selectors.iter().filter_map(|selector| selector.service);
    services.filter(|service| service.is_ipv4()).any(|service| {
        let mut holding = snapshot.addresses.iter().filter(|it| it.ip == service.ip());
        holding.any(|it| snapshot.link_at(it.link).is_some_and(|link| link.loopback))
    })
}

/// The larger of the values for all devices and for one.
fn effective(kernel: &Kernel, device: &str, name: &str) -> Result<u32, KernelError> {
    let mut largest = 0;
    for part in ["all", device] {
        let value = kernel.setting(&key(part, name))?;
        largest = largest.max(value.and_then(|it| it.parse().ok()).unwrap_or(0));
    }
    Ok(largest)
}

fn key(device: &str, name: &str) -> String {
    format!("net/ipv4/conf/{device}/{name}")
}

fn reverse_path(
    kernel: &mut Kernel,
    link: &Link,
    sources: &[IpAddr],
) -> Result<Option<Finding>, KernelError> {
    let strict = match effective(kernel, &link.name, "rp_filter")? {
        0 => return Ok(None),
        value => value == 1,
    };
    for source in sources {
        let back = kernel.lookup(&Lookup::to(*source))?;
        if back == Answer::NoRoute {
            return Ok(Some(Finding {
                key: key(&link.name, "rp_filter"),
                found: "on, here or for all".to_owned(),
                wanted: "0".to_owned(),
                why: format!(
                    "this host has no route to addresses such as {source}, so that copied packets from them are dropped \
                     (for all it must be 0, too)"
                ),
            }));
        }
        if !strict {
            continue;
        }
        let same = matches!(back, Answer::Out { link: out, .. } if out == link.index);
        if !same {
            return Ok(Some(Finding {
                key: key(&link.name, "rp_filter"),
                found: "1 (strict), here or for all".to_owned(),
                wanted: "2".to_owned(),
                why: format!(
                    "copied packets from addresses such as {source} that come in on {} are dropped",
                    link.name
                ),
            }));
        }
    }
    Ok(None)
}

fn arp(kernel: &Kernel, link: &Link) -> Result<Vec<Finding>, KernelError> {
    let mut findings = Vec::new();
    for (name, least, wanted) in [("arp_ignore", 1, "1"), ("arp_announce", 2, "2")] {
        let found = effective(kernel, &link.name, name)?;
        if found < least {
            findings.push(Finding {
                key: key(&link.name, name),
                found: found.to_string(),
                wanted: wanted.to_owned(),
                why: format!(
                    "this host answers for the service's address on {} in place of the director",
                    link.name
                ),
            });
        }
    }
    Ok(findings)
}
