//! Who is meant by `-s` and `--router-agent`, now and later: lists that the operator wrote, and clusters in Consul.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_channel::tls::Role;
use millrace_daemon::exit::ExitError;
use millrace_daemon::readiness::{Readiness, Task};
use millrace_fleet::consul::{Client, Service, ServiceStatus};
use millrace_fleet::directory::{Directory, Listing};
use millrace_fleet::peers::{Cluster, PeerList, Peers};
use millrace_notation::address::HostPort;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::agents::Agents;
use crate::interceptors::Interceptors;
use crate::plan::Plan;

/// What Consul says is looked at so often.
const LOOK: Duration = Duration::from_millis(500);
/// An interceptor that Consul names no more is let go once its links have been down for so long: one that is started
/// anew is back before.
const AWAY: Duration = Duration::from_secs(15);

/// Keeps interceptors and router-agents as they are named. Cheap to clone.
#[derive(Clone)]
pub struct Fleet(Arc<Inner>);

struct Inner {
    interceptors: Interceptors,
    agents: Agents,
    client: Option<Client>,
    /// Where the last known peers are kept.
    directory: PathBuf,
    runtime: Handle,
    named: Mutex<Named>,
    /// Ready once it is known who is meant.
    found: Option<Task>,
}

/// What the options name.
#[derive(Default)]
struct Named {
    interceptors: PeerList,
    agents: PeerList,
    services: HashMap<(Role, Cluster), Arc<Service>>,
    /// What was taken over last.
    links: Vec<HostPort>,
    holds: Vec<HostPort>,
}

/// What is known of one role's peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Nobody knows yet who they are.
    pub unknown: bool,
    /// Why they may not be those that there are by now.
    pub doubt: Option<String>,
}

impl Fleet {
    /// Begins with the peers that the plan names.
    ///
    /// # Errors
    /// As [`Agents::set`].
    pub fn start(
        plan: &Plan,
        interceptors: Interceptors,
        agents: Agents,
        readiness: &Readiness,
        runtime: &Handle,
    ) -> Result<Self, ExitError> {
        let consul = plan.consul.as_ref();
        let fleet = Self(Arc::new(Inner {
            interceptors,
            agents,
            client: plan.consul.clone(),
            directory: plan.state_dir.clone(),
            runtime: runtime.clone(),
            named: Mutex::default(),
            found: consul
                .map(|client| readiness.register(format!("Consul at {}", client.settings()))),
        }));
        fleet.name(&plan.interceptors, &plan.router_agents)?;
        if plan.consul.is_some() {
            runtime.spawn(fleet.clone().follow());
        }
        Ok(fleet)
    }

    /// Takes these lists in place of those before.
    ///
    /// # Errors
    /// As [`Agents::set`]: nothing is changed.
    pub fn name(&self, interceptors: &PeerList, agents: &PeerList) -> Result<(), ExitError> {
        let mut named = self.0.named.lock();
        let before = (named.interceptors.clone(), named.agents.clone());
        named.interceptors.clone_from(interceptors);
        named.agents.clone_from(agents);
        // Whoever was named by hand and is not any more goes at once.
        let taken = self.take(&mut named, false);
        if taken.is_err() {
            (named.interceptors, named.agents) = before;
        }
        taken
    }

    async fn follow(self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.take(&mut self.0.named.lock(), true) {
                tracing::warn!("router-agents that Consul names are not asked: {error}");
            }
        }
    }

    /// Takes over who is named now. A real server must keep its answers to itself before copies may reach it.
    fn take(&self, named: &mut Named, linger: bool) -> Result<(), ExitError> {
        let Inner {
            interceptors,
            agents,
            ..
        } = &*self.0;
        self.search(named);
        let wanted = Self::listing(named, Role::RouterAgent, &named.agents);
        let mut holds = wanted.peers;
        if linger && wanted.complete {
            stay(&mut holds, &named.holds, &named.agents.fixed, |it| {
                agents.holds_at(it)
            });
        }
        let sought = !named.agents.clusters.is_empty();
        if named.holds != holds || !linger {
            agents.set(&holds, &named.agents.fixed, sought)?;
            named.holds = holds;
        }
        let mut complete = wanted.complete;
        let wanted = Self::listing(named, Role::Interceptor, &named.interceptors);
        complete &= wanted.complete;
        let mut links = wanted.peers;
        if linger && wanted.complete {
            let near = |it: &HostPort| interceptors.was_there(it, AWAY);
            stay(&mut links, &named.links, &named.interceptors.fixed, near);
        }
        if named.links != links || !linger {
            interceptors.set(&links, &named.interceptors.fixed);
            named.links = links;
        }
        if let Some(found) = &self.0.found {
            found.set(complete);
        }
        Ok(())
    }

    /// Follows the clusters that are named, and no others.
    fn search(&self, named: &mut Named) {
        let of = |role, list: &PeerList| -> Vec<(Role, Cluster)> {
            list.clusters.iter().map(|it| (role, it.clone())).collect()
        };
        let mut wanted = of(Role::Interceptor, &named.interceptors);
        wanted.extend(of(Role::RouterAgent, &named.agents));
        named.services.retain(|key, _| wanted.contains(key));
        let Some(client) = &self.0.client else {
            return;
        };
        let (directory, runtime) = (&self.0.directory, &self.0.runtime);
        for key in wanted {
            let service = named.services.entry(key);
            service.or_insert_with_key(|(role, cluster)| {
                let client = client.clone();
                Arc::new(Service::follow(client, *role, cluster, directory, runtime))
            });
        }
    }

    fn listing(named: &Named, role: Role, list: &PeerList) -> Listing {
        let find = |cluster: &Cluster| -> Option<Arc<dyn Directory>> {
            let service = named.services.get(&(role, cluster.clone()))?;
            Some(service.clone())
        };
        Peers::new(list, find).now()
    }

    /// The links to interceptors.
    pub fn interceptors(&self) -> &Interceptors {
        &self.0.interceptors
    }

    /// The router-agents.
    pub fn agents(&self) -> &Agents {
        &self.0.agents
    }

    /// Whether peers can be found in Consul.
    pub fn has_consul(&self) -> bool {
        self.0.client.is_some()
    }

    /// What is known of the interceptors, and of the router-agents.
    pub fn known(&self) -> [Known; 2] {
        let named = self.0.named.lock();
        let interceptors = Self::listing(&named, Role::Interceptor, &named.interceptors);
        let agents = Self::listing(&named, Role::RouterAgent, &named.agents);
        [interceptors, agents].map(|listing| Known {
            unknown: !listing.complete && listing.peers.is_empty(),
            doubt: listing.doubt,
        })
    }

    /// The clusters that are followed, as an operator wants to see them.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let mut all: Vec<ServiceStatus> = self
            .0
            .named
            .lock()
            .services
            .values()
            .map(|it| it.status())
            .collect();
        all.sort_by(|a, b| a.service.cmp(&b.service));
        all
    }
}

/// Adds to `wanted` who was named `before` and is still at work: what Consul does not list any more may have sessions. Who
/// was named by hand is not meant: that list holds those who are.
fn stay(
    wanted: &mut Vec<HostPort>,
    before: &[HostPort],
    fixed: &[HostPort],
    at_work: impl Fn(&HostPort) -> bool,
) {
    for peer in before {
        if !wanted.contains(peer) && !fixed.contains(peer) && at_work(peer) {
            wanted.push(peer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_notation::address::DefaultPort;

    use super::*;

    #[test]
    fn who_is_named_no_more_stays_while_it_works() {
        let list = |text: &str| DefaultPort(1).parse_list(text).unwrap();
        let before = list("rs1,rs2,rs3");
        let works = |it: &HostPort| it.host() == "rs2";
        let mut wanted = list("rs1,rs4");
        stay(&mut wanted, &before, &[], works);
        assert_eq!(wanted, list("rs1,rs4,rs2"));
        stay(&mut wanted, &before, &[], |_| false);
        assert_eq!(wanted, list("rs1,rs4,rs2"), "each once");
    }
}
