//! The router-agents that keep the targets' responses from the real clients: no session begins
//! before all of them hold what is needed, and nothing is sent while one does not vouch for its host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_capture::Waker;
use millrace_channel::hold::{self, HoldConfig, HoldEvent, HoldHandle, HoldStatus};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::exit::ExitError;
use millrace_daemon::readiness::{Readiness, Task};
use millrace_notation::address::HostPort;
use millrace_proto::v1::Need;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::runtime::Handle;

use crate::diversion::Diversion;
use crate::plan::Plan;

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
    unguarded_said: AtomicBool,
    /// Whether one that had lapsed is named no more, and not all the others have held since.
    gone: AtomicBool,
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
            unguarded_said: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }));
        agents.set(&agents.0.plan.router_agents)?;
        Ok(agents)
    }

    /// Keeps the leases of `wanted`, asks those that are new, and gives the other leases up.
    ///
    /// # Errors
    /// Agents are wanted, and it is not known what to ask them for ([`Plan::diverted`]): nothing is changed.
    pub fn set(&self, wanted: &[HostPort]) -> Result<(), ExitError> {
        let need = match wanted {
            [] => Need::default(),
            [..] => self.0.plan.diverted.clone()?,
        };
        let mut holds = self.0.holds.write();
        let now = BootTime::now();
        holds.retain(|hold| {
            let kept = wanted.contains(&hold.address);
            if !kept {
                if hold.handle.has_lapsed(now) {
                    self.0.gone.store(true, Ordering::Relaxed);
                }
                tracing::info!(
                    "router-agent {}: not named any more, no lease is asked for there",
                    hold.address
                );
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
        if self.is_unguarded() && !self.0.unguarded_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "unguarded: no router-agent is named (--router-agent), so nobody but the first probe tells \
                 whether the targets' responses are kept from the real clients"
            );
        }
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
                HoldEvent::Held { .. } | HoldEvent::Mended => ready.set(true),
                HoldEvent::Refused { .. } | HoldEvent::Troubled { .. } | HoldEvent::Lost { .. } => {
                    ready.set(false)
                }
            }
            waker.wake();
        });
        Hold {
            address: address.clone(),
            handle,
            task,
        }
    }

    /// Whether nobody vouches for it that responses are kept from the real clients whose addresses the
    /// replicas bear: no agent is named.
    pub fn is_unguarded(&self) -> bool {
        self.0.plan.bears_clients_addresses() && self.holds().is_empty()
    }

    /// Whether agents keep responses from the real clients whose addresses the replicas bear, whichever clients
    /// these are.
    pub fn keep_all_clients(&self) -> bool {
        self.0.plan.bears_clients_addresses() && !self.holds().is_empty()
    }

    /// Whether responses are kept from the real clients now.
    pub fn diversion(&self) -> Diversion {
        let (holds, now) = (self.holds(), BootTime::now());
        let gone = &self.0.gone;
        if holds.iter().all(|hold| hold.handle.is_held(now)) {
            gone.store(false, Ordering::Relaxed);
            return Diversion::Held;
        }
        // Whoever lapsed may be named no more, or by another name: that is no reason to send on before all
        // hold. A newcomer's host holds none of the open sessions: they do not wait for its agent.
        let lapsed = holds.iter().any(|hold| hold.handle.has_lapsed(now));
        if lapsed || gone.load(Ordering::Relaxed) {
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
        self.0.holds.read()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use millrace_notation::address::DefaultPort;

    use super::*;
    use crate::options::Options;

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
        assert!(agents.is_unguarded());
        assert!(agents.set(&[]).is_ok());
    }
}
