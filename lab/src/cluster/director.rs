//! The director: the host that holds the virtual addresses and picks a real server for each new connection.

use super::ClusterOptions;
use super::ipvs::Ipvs;
use super::nftables::Nftables;
use crate::error::{Error, Result};
use crate::stage::{Addresses, DEVICE, Place};

/// What makes a host a director.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancer {
    /// Rules that do what IPVS does, where the kernel has no IPVS.
    Nftables,
    /// The kernel's IPVS, its real servers watched by keepalived.
    Ipvs,
}

/// What the director does to a packet on its way to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// A new destination at the link layer, the packet itself untouched: IPVS's "gatewaying".
    DirectRouting,
    /// The real server's address in place of the virtual one. The rules of [`Balancer::Nftables`] do it without a
    /// table of connections, so that it works for connections whose responses take another way.
    AddressTranslation,
}

/// How a real server is picked for a new connection; all later packets of it go to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Each in turn (IPVS: rr).
    RoundRobin,
    /// The one with the fewest connections (IPVS: wlc); only with [`Balancer::Ipvs`].
    LeastConnections,
    /// By the client's address (IPVS: sh).
    SourceHash,
}

/// A real server, as the director knows it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) address: Addresses,
    pub(super) mac: String,
    /// Whether it gets new connections.
    pub(super) active: bool,
}

/// What a director is told.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) vip: Addresses,
    pub(super) ports: Vec<u16>,
    pub(super) forwarding: Forwarding,
    pub(super) scheduler: Scheduler,
}

/// A director.
#[derive(Debug)]
pub struct Director {
    // Declared before its host: keepalived ends first.
    balancer: Running,
    members: Vec<Member>,
    place: Place,
}

#[derive(Debug)]
enum Running {
    NotYet(Balancer, Service),
    Nftables(Nftables),
    Ipvs(Ipvs),
}

impl Director {
    pub(super) fn new(
        place: Place,
        vip: Addresses,
        options: &ClusterOptions,
        members: Vec<(Addresses, String)>,
    ) -> Result<Self> {
        let host = &place.host;
        super::add_vip(host, DEVICE, vip)?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        let service = Service {
            vip,
            ports: options.ports.clone(),
            forwarding: options.forwarding,
            scheduler: options.scheduler,
        };
        let members: Vec<Member> = members
            .into_iter()
            .map(|(address, mac)| Member {
                address,
                mac,
                active: true,
            })
            .collect();
        let balancer = Running::NotYet(options.balancer, service);
        Ok(Self {
            balancer,
            members,
            place,
        })
    }

    /// Starts to balance: the real servers' applications listen by now, or health checks would take them out.
    ///
    /// # Errors
    /// When it balances already, or the kernel or keepalived refuses something.
    pub fn start(&mut self) -> Result<()> {
        let Running::NotYet(balancer, service) = &self.balancer else {
            return Err(Error::Unsupported("the director is running".to_owned()));
        };
        let (host, service) = (self.place.host.clone(), service.clone());
        self.balancer = match balancer {
            Balancer::Nftables => Running::Nftables(Nftables::start(host, service, &self.members)?),
            Balancer::Ipvs => Running::Ipvs(Ipvs::start(host, service, &self.members)?),
        };
        Ok(())
    }

    /// Its host.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Gives new connections to real server number `index`, or no longer: the ones it has stay with it.
    ///
    /// # Errors
    /// When there is no such real server, none would be left, or the kernel refuses it.
    pub fn set_active(&mut self, index: usize, active: bool) -> Result<()> {
        let mut members = self.members.clone();
        let member = members
            .get_mut(index)
            .ok_or_else(|| Error::Unsupported(format!("there is no real server {index}")))?;
        member.active = active;
        let changed = member.clone();
        if !members.iter().any(|member| member.active) {
            return Err(Error::Unsupported(
                "a director needs a real server to give connections to".to_owned(),
            ));
        }
        match &self.balancer {
            Running::NotYet(..) => {}
            Running::Nftables(rules) => rules.load(&members)?,
            Running::Ipvs(ipvs) => ipvs.set_weight(&changed)?,
        }
        self.members = members;
        Ok(())
    }

    /// Picks real servers in another way from now on; connections stay where they are.
    ///
    /// # Errors
    /// When the balancer cannot.
    pub fn set_scheduler(&mut self, scheduler: Scheduler) -> Result<()> {
        match &mut self.balancer {
            Running::NotYet(_, service) => {
                service.scheduler = scheduler;
                Ok(())
            }
            Running::Nftables(rules) => rules.set_scheduler(scheduler, &self.members),
            Running::Ipvs(ipvs) => ipvs.set_scheduler(scheduler),
        }
    }

    /// The real servers that keepalived has taken out so far, each as often as it did, in the words of its log. Empty
    /// where there is no keepalived.
    #[must_use]
    pub fn taken_out(&self) -> Vec<String> {
        match &self.balancer {
            Running::NotYet(..) | Running::Nftables(_) => Vec::new(),
            Running::Ipvs(ipvs) => ipvs.taken_out(),
        }
    }
}
