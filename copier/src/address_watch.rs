//! Addresses of this host that come and go while the copier runs, such as one that VRRP moves: services at every
//! address of the host are copied at those, too.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_capture::Device;
use millrace_replay::inbox::Inbox;
use millrace_replay::whereabouts::News;
use tokio::time::{MissedTickBehavior, interval};

use crate::addresses::of_this_host;
use crate::plan::Plan;

/// How often the host's addresses are looked up.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether one of the devices that are captured on carries an address.
fn is_captured(plan: &Plan, ip: &IpAddr) -> bool {
    let Some(ring) = plan.ring() else {
        return false;
    };
    let mut devices = Device::list().into_iter();
    devices.any(|device| device.addresses.contains(ip) && ring.devices.contains(&device.name))
}

/// Whether anybody but a neighbour could be a client of this address.
fn is_reached(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback(),
    }
}

/// Tells the shard whenever the addresses of this host have changed, and says so. Does nothing where packets come from
/// a recording.
pub(crate) async fn follow(plan: Arc<Plan>, inbox: Arc<Inbox>) {
    if plan.ring().is_none() {
        return;
    }
    let mut known: BTreeSet<IpAddr> = plan.engine.local_addresses.iter().copied().collect();
    let mut looks = interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = of_this_host();
        // A host without any address is one that did not tell.
        if now == known || now.is_empty() {
            continue;
        }
        for ip in now.difference(&known).filter(|ip| is_live(&plan, ip)) {
            match is_captured(&plan, ip) {
                true => tracing::info!("the live address {ip} has come to this host: it is copied"),
                false => tracing::warn!(
                    "the live address {ip} has come to this host, on a device that is not captured: it is not \
                     copied. Name the device with -i"
                ),
            }
        }
        for ip in known.difference(&now).filter(|ip| is_live(&plan, ip)) {
            tracing::info!(
                "the live address {ip} is gone from this host: nothing new is copied there"
            );
        }
        inbox.tell_whereabouts(News::Host(now.iter().copied().collect()));
        known = now;
    }
}

/// Whether a service is copied at this address.
fn is_live(plan: &Plan, ip: &IpAddr) -> bool {
    is_reached(ip) && plan.services.iter().any(|service| service.live.is_at(ip))
}
