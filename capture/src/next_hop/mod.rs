//! Where link-layer sending goes: the next hop to each destination, and its MAC address.
//!
//! A thread of its own asks the kernel's routes and neighbours, again and again, since both
//! change; senders read its last answer without a lock or a system call. A destination without an
//! answer is not waited for: its packets are not sent, and TCP sends them again.

mod resolve;
mod table;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use table::Hop;
pub(crate) use table::HopReader;

use crate::device::link_info;
use crate::error::CaptureError;
use crate::mac::MacAddress;
use crate::routing::{Routing, outgoing_policies};
use resolve::Resolver;
use table::Shared;

/// What next hops are needed for.
#[derive(Clone, Debug)]
pub struct NextHopConfig {
    /// The device that packets leave through; `None`: whichever the kernel's routes lead out of, if it is an
    /// Ethernet.
    pub device: Option<String>,
    /// Destinations whose MAC addresses were given (`port@srcMAC-ip:port@dstMAC`): neither routes
    /// nor neighbours are asked.
    pub fixed: HashMap<IpAddr, StaticHop>,
    /// How often answers are renewed.
    pub refresh: Duration,
}

impl NextHopConfig {
    /// Next hops on a device, all found in the kernel.
    pub fn new(device: impl Into<String>) -> Self {
        Self {
            device: Some(device.into()),
            ..Self::any_ethernet()
        }
    }

    /// Next hops on whichever Ethernet the kernel's routes lead out of.
    pub fn any_ethernet() -> Self {
        Self {
            device: None,
            fixed: HashMap::new(),
            refresh: Duration::from_secs(1),
        }
    }
}

/// MAC addresses that the operator gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaticHop {
    /// The sender's; `None` for the device's own.
    pub source: Option<MacAddress>,
    /// The next hop's.
    pub destination: MacAddress,
}

/// The next hops of one device, or of all. Clones share one background thread, which ends with the last.
#[derive(Clone, Debug)]
pub struct NextHops {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

impl NextHops {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// No such device, or one that carries no IP.
    pub fn start(config: NextHopConfig) -> Result<Self, CaptureError> {
        if let Some(device) = &config.device {
            crate::device::link_type(device, &link_info(device)?)?;
        }
        let routing = Routing::open().map_err(CaptureError::of("open a netlink socket"))?;
        let shared = Shared::new().map_err(CaptureError::of("create an eventfd"))?;
        let shared = Arc::new(shared);
        let resolver = Resolver::new(config, routing, Arc::clone(&shared));
        std::thread::Builder::new()
            .name("next-hops".to_owned())
            .spawn(move || resolver.run())
            .map_err(CaptureError::of("start a thread"))?;
        Ok(Self {
            inner: Arc::new(Inner { shared }),
        })
    }

    /// Whether the kernel's route to a destination leads out of an Ethernet; if it does not, what else there is.
    /// Without a route nothing speaks against it.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn other_than_ethernet(destination: IpAddr) -> Result<Option<String>, CaptureError> {
        let mut routing = Routing::open().map_err(CaptureError::of("open a netlink socket"))?;
        Ok(
            match resolve::way(&mut routing, destination.to_canonical()) {
                Ok(_) | Err(resolve::NoWay::Unknown(_)) => None,
                Err(resolve::NoWay::OtherThanEthernet(reason)) => Some(reason),
            },
        )
    }

    /// The device that the kernel's route to a destination leads out of, and the largest IP packet that it takes; `None`
    /// without a route.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn device_to(destination: IpAddr) -> Result<Option<(String, u32)>, CaptureError> {
        let failed = CaptureError::of("look up a route");
        let mut routing = Routing::open().map_err(CaptureError::of("open a netlink socket"))?;
        let Ok((_, index)) = routing.next_hop(destination.to_canonical(), None) else {
            return Ok(None);
        };
        let link = routing.link_at(index).map_err(failed)?;
        Ok(link.map(|link| (link.name, link.mtu)))
    }

    /// Whether this host has IPsec policies for what leaves it: what is sent at the link layer passes them by. Not if
    /// the kernel does not tell, as without CAP_NET_ADMIN.
    pub fn has_ipsec_policies() -> bool {
        let policies = outgoing_policies();
        policies.is_ok_and(|count| count > 0)
    }

    /// Asks for the next hop to a destination ahead of its first packet.
    pub fn add(&self, destination: IpAddr) {
        self.inner.shared.want(destination.to_canonical());
    }

    /// The next hop to a destination, if it is known by now.
    pub fn get(&self, destination: IpAddr) -> Option<Hop> {
        let table = self.inner.shared.table();
        table.hop(destination.to_canonical())
    }

    /// The destinations that were asked for and have no next hop, each with the reason.
    pub fn unresolved(&self) -> Vec<(IpAddr, String)> {
        self.inner.shared.unresolved()
    }

    /// Waits until every destination that was asked for has a next hop; whether that is so at the
    /// end.
    pub fn wait_resolved(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while !self.unresolved().is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            self.inner.shared.wait_for_change(left);
        }
        true
    }

    pub(crate) fn reader(&self) -> HopReader {
        HopReader::new(self.clone())
    }

    fn shared(&self) -> &Shared {
        &self.inner.shared
    }
}
