//! The director: the host that holds the virtual addresses and picks a real server for each new connection.

use super::nftables::Ruleset;
use super::{ClusterOptions, Place};
use crate::error::{Error, Result};
use crate::stage::{Addresses, DEVICE};

/// What the director does to a packet on its way to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// A new destination at the link layer, the packet itself untouched: IPVS's "gatewaying".
    DirectRouting,
    /// The real server's address in place of the virtual one. Without a table of connections, so that it works for
    /// connections whose responses take another way.
    AddressTranslation,
}

/// How a real server is picked for a new connection; all later packets of it go to the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduler {
    /// Each in turn (IPVS: rr).
    RoundRobin,
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

/// A director made of nftables rules on the device that packets for the virtual addresses arrive on.
#[derive(Debug)]
pub struct Director {
    place: Place,
    ruleset: Ruleset,
    members: Vec<Member>,
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
        let ruleset = Ruleset {
            vip,
            ports: options.ports.clone(),
            forwarding: options.forwarding,
            scheduler: options.scheduler,
            mac: host.mac(DEVICE)?,
        };
        let members = members
            .into_iter()
            .map(|(address, mac)| Member {
                address,
                mac,
                active: true,
            })
            .collect();
        let director = Self {
            place,
            ruleset,
            members,
        };
        director.load(&director.ruleset.tables())?;
        director.load(&director.ruleset.rules(&director.members))?;
        Ok(director)
    }

    /// Its host.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Gives new connections to real server number `index`, or no longer: the ones it has stay with it.
    ///
    /// # Errors
    /// When there is no such real server, none would be left, or nftables refuses the rules.
    pub fn set_active(&mut self, index: usize, active: bool) -> Result<()> {
        let mut members = self.members.clone();
        let member = members
            .get_mut(index)
            .ok_or_else(|| Error::Unsupported(format!("there is no real server {index}")))?;
        member.active = active;
        if !members.iter().any(|member| member.active) {
            return Err(Error::Unsupported(
                "a director needs a real server to give connections to".to_owned(),
            ));
        }
        self.load(&self.ruleset.rules(&members))?;
        self.members = members;
        Ok(())
    }

    /// One file is one transaction: packets see the old rules or the new ones.
    fn load(&self, rules: &str) -> Result<()> {
        let host = &self.place.host;
        let file = host.file("director.nft");
        std::fs::write(&file, rules).map_err(|source| Error::Io {
            what: format!("writing {}", file.display()),
            source,
        })?;
        host.check("nft", &["-f", &file.display().to_string()])
            .map(drop)
    }
}
