//! The router-agents that keep the targets' responses from the real clients: no session begins
//! before all of them hold what is needed, and nothing is sent once one has been away for too long.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use millrace_capture::Waker;
use millrace_engine::SourcePool;
use millrace_fleet::address::HostPort;
use millrace_fleet::address::cidr::{Cidr, cover};
use millrace_fleet::exit::ExitError;
use millrace_fleet::hold::{self, HoldConfig, HoldEvent, HoldHandle, HoldStatus};
use millrace_fleet::readiness::{Readiness, Task};
use millrace_proto::v1::{Need, Prefix, ServiceAddress};
use tokio::runtime::Handle;

use crate::plan::Plan;

/// Whether responses are kept from the real clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Diversion {
    /// Not everywhere yet: an agent was asked and has never held. Sessions that are open began
    /// before it was named, and go on; none begins.
    #[default]
    Asked,
    /// Every agent holds what is needed, and was heard of a short time ago.
    Held,
    /// An agent held what is needed and does not any more: nothing may be sent.
    Lapsed,
}

/// All router-agents. Cheap to clone; the leases are given up when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Agents(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: Arc<Plan>,
    runtime: Handle,
    waker: Waker,
    readiness: Readiness,
    holds: RwLock<Vec<Hold>>,
}

#[derive(Debug)]
struct Hold {
    address: HostPort,
    handle: HoldHandle,
    task: Arc<Task>,
}

impl Agents {
    /// Asks the plan's agents for what it needs, for as long as this lives. Each is a part of the
    /// daemon's readiness; `waker` is woken whenever one holds or refuses.
    ///
    /// # Errors
    /// As [`Agents::set`].
    pub fn start(
        plan: Arc<Plan>,
        runtime: Handle,
        waker: Waker,
        readiness: Readiness,
    ) -> Result<Self, ExitError> {
        let agents = Self(Arc::new(Inner {
            plan,
            runtime,
            waker,
            readiness,
            holds: RwLock::default(),
        }));
        agents.set(&agents.0.plan.router_agents)?;
        Ok(agents)
    }

    /// Keeps the leases of `wanted`, asks those that are new, and gives the other leases up.
    ///
    /// # Errors
    /// Agents are wanted, and it is not known what to ask them for ([`need`]): nothing is changed.
    pub fn set(&self, wanted: &[HostPort]) -> Result<(), ExitError> {
        let need = match wanted {
            [] => Need::default(),
            [..] => self.0.plan.diverted.clone()?,
        };
        let mut holds = self.0.holds.write().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| {
            let kept = wanted.contains(&hold.address);
            if !kept {
                tracing::info!("router-agent {} is asked no more", hold.address);
                hold.handle.close();
                hold.task.withdraw();
            }
            kept
        });
        for address in wanted {
            if !holds.iter().any(|hold| hold.address == *address) {
                holds.push(self.ask(address, &need));
            }
        }
        drop(holds);
        self.0.waker.wake();
        Ok(())
    }

    fn ask(&self, address: &HostPort, need: &Need) -> Hold {
        let Inner {
            plan,
            runtime,
            waker,
            readiness,
            ..
        } = &*self.0;
        let task = Arc::new(readiness.register(format!("router-agent {address}")));
        let config = HoldConfig::new(
            address.clone(),
            plan.security.clone(),
            plan.id.clone(),
            need.clone(),
        );
        let (ready, waker) = (task.clone(), waker.clone());
        let handle = hold::spawn(config, runtime, move |event| {
            match event {
                HoldEvent::Held { .. } => ready.set(true),
                HoldEvent::Refused { .. } | HoldEvent::Lost { .. } => ready.set(false),
            }
            waker.wake();
        });
        Hold {
            address: address.clone(),
            handle,
            task,
        }
    }

    /// Whether responses are kept from the real clients now.
    pub fn diversion(&self) -> Diversion {
        let (holds, now) = (self.holds(), Instant::now());
        if holds.iter().all(|hold| hold.handle.is_held(now)) {
            Diversion::Held
        } else if holds.iter().any(|hold| hold.handle.has_lapsed(now)) {
            Diversion::Lapsed
        } else {
            Diversion::Asked
        }
    }

    /// The agents as an operator wants to see them.
    pub fn status(&self) -> Vec<HoldStatus> {
        self.holds()
            .iter()
            .map(|hold| hold.handle.status())
            .collect()
    }

    fn holds(&self) -> RwLockReadGuard<'_, Vec<Hold>> {
        self.0.holds.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the agents of a copier's targets are asked for: the targets' services as their hosts have
/// them, and with a client pool only their responses to it.
///
/// # Errors
/// Behind address translation without a pool, where neither is known.
pub fn need(
    services: &[millrace_engine::Service],
    sources: &SourcePool,
    nat: bool,
) -> Result<Need, ExitError> {
    let pool = match sources {
        SourcePool::Clients => Vec::new(),
        SourcePool::Ranges(ranges) => {
            let ranges: Vec<_> = ranges.iter().map(|range| whole(*range)).collect();
            cover(&ranges)
        }
    };
    if nat && pool.is_empty() {
        return Err(ExitError::usage(
            "--router-agent with --nat needs -c: the targets' addresses on their own hosts are not \
             known here, so the agents can only divert what goes to a client pool",
        ));
    }
    let mut targets: Vec<(IpAddr, u16)> = services
        .iter()
        .filter(|_| !nat)
        .map(|service| (service.target.ip, service.target.port))
        .collect();
    targets.sort_unstable();
    targets.dedup();
    Ok(Need {
        services: targets
            .into_iter()
            .map(|(ip, port)| ServiceAddress {
                ip: octets(ip).into(),
                port: port.into(),
            })
            .collect(),
        pool: pool
            .iter()
            .map(|cidr| Prefix {
                ip: octets(cidr.first()).into(),
                length: cidr.length().into(),
            })
            .collect(),
        ..Need::default()
    })
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// A pool written as a prefix lacks its network and broadcast addresses, which are no sources. As
/// no host has them either, the whole prefix is asked for: one rule in place of a dozen.
fn whole(range: (IpAddr, IpAddr)) -> (IpAddr, IpAddr) {
    let lengths = 0..=if range.0.is_ipv4() { 30 } else { 126 };
    let mut prefixes = lengths.map(|length| Cidr::truncated(range.0, length));
    let found = prefixes.find(|prefix| prefix.hosts() == range);
    found.map_or(range, |prefix| (prefix.first(), prefix.last()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use millrace_fleet::address::{ClientPool, DefaultPort};

    use super::*;
    use crate::options::Options;

    fn prefixes(pool: &str) -> Vec<String> {
        let pool: ClientPool = pool.parse().unwrap();
        let ranges = pool.ranges().iter().map(|it| (it.first(), it.last()));
        let need = need(&[], &SourcePool::Ranges(ranges.collect()), false).unwrap();
        let shown = need.pool.iter().map(|prefix| {
            let ip: IpAddr = match <[u8; 4]>::try_from(&prefix.ip[..]) {
                Ok(octets) => octets.into(),
                Err(_) => <[u8; 16]>::try_from(&prefix.ip[..]).unwrap().into(),
            };
            format!("{ip}/{}", prefix.length)
        });
        shown.collect()
    }

    #[test]
    fn a_pool_written_as_a_prefix_is_one_prefix_again() {
        assert_eq!(prefixes("198.18.8.0/24"), ["198.18.8.0/24"]);
        assert_eq!(prefixes("198.18.8.8/30"), ["198.18.8.8/30"]);
        assert_eq!(prefixes("2001:db8:8::/64"), ["2001:db8:8::/64"]);
        assert_eq!(prefixes("198.18.8.7"), ["198.18.8.7/32"]);
        assert_eq!(
            prefixes("198.18.8.2-198.18.8.5"),
            ["198.18.8.2/31", "198.18.8.4/31"]
        );
    }

    #[test]
    fn behind_address_translation_only_a_pool_can_be_asked_for() {
        assert!(need(&[], &SourcePool::Clients, true).is_err());
    }

    #[tokio::test]
    async fn an_agent_that_cannot_be_told_what_to_divert_is_refused_later_too() {
        let line = "millrace-copier -x 80-198.18.2.20:8080 -s h --insecure -i lo --nat";
        let options = Options::parse_from(line.split_whitespace());
        let agents = Agents::start(
            Arc::new(Plan::new(&options).unwrap()),
            Handle::current(),
            Waker::new().unwrap(),
            Readiness::new(),
        )
        .unwrap();
        let named = DefaultPort(1).parse_list("198.18.2.20").unwrap();
        assert!(agents.set(&named).is_err());
        assert_eq!(agents.diversion(), Diversion::Held, "nothing was changed");
        assert!(agents.set(&[]).is_ok());
    }
}
