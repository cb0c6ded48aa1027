//! The links to all interceptors, and how they change while the copier runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_fleet::address::HostPort;
use millrace_fleet::link::{self, LinkConfig, LinkEvent, LinkHandle, LinkStatus};
use millrace_fleet::readiness::{Readiness, Task};
use tokio::runtime::Handle;

use crate::inbox::Inbox;
use crate::moderation::Moderation;
use crate::plan::Plan;
use crate::route_info::{InterceptorId, LinkId, LinkRoutes};

/// One interceptor and the links to it.
struct Interceptor {
    id: InterceptorId,
    address: HostPort,
    links: Vec<Link>,
}

struct Link {
    handle: LinkHandle,
    task: Arc<Task>,
}

/// All interceptors. Cheap to clone.
#[derive(Clone)]
pub struct Interceptors {
    plan: Arc<Plan>,
    runtime: Handle,
    inbox: Arc<Inbox>,
    readiness: Readiness,
    moderation: Moderation,
    current: Arc<Mutex<Current>>,
}

#[derive(Default)]
struct Current {
    list: Vec<Interceptor>,
    next_id: InterceptorId,
}

impl Interceptors {
    /// Starts the links to the plan's interceptors. Each is a part of the daemon's readiness.
    pub fn start(
        plan: Arc<Plan>,
        runtime: Handle,
        inbox: Arc<Inbox>,
        readiness: Readiness,
        moderation: Moderation,
    ) -> Self {
        let interceptors = Self {
            plan,
            runtime,
            inbox,
            readiness,
            moderation,
            current: Arc::default(),
        };
        interceptors.set(&interceptors.plan.interceptors);
        interceptors
    }

    /// Keeps the links to `wanted`, starts those that are new and closes the others.
    pub fn set(&self, wanted: &[HostPort]) {
        let mut current = self.lock();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut current.list)
            .into_iter()
            .partition(|one| wanted.contains(&one.address));
        current.list = kept;
        for one in gone {
            tracing::info!("interceptor {} is none any more", one.address);
            for link in one.links {
                link.handle.close();
                link.task.withdraw();
            }
            self.inbox.remove(one.id);
        }
        self.moderation.set_interceptors(wanted.len());
        for address in wanted {
            if !current.list.iter().any(|one| one.address == *address) {
                let id = current.next_id;
                current.next_id += 1;
                let links = (0..self.plan.connections)
                    .map(|link| {
                        self.start_link(
                            LinkId {
                                interceptor: id,
                                link,
                            },
                            address,
                        )
                    })
                    .collect();
                current.list.push(Interceptor {
                    id,
                    address: address.clone(),
                    links,
                });
            }
        }
    }

    fn start_link(&self, id: LinkId, address: &HostPort) -> Link {
        let plan = &self.plan;
        let task = Arc::new(self.readiness.register(match plan.connections {
            1 => format!("interceptor {address}"),
            _ => format!("interceptor {address} link {}", id.link),
        }));
        let config = LinkConfig {
            link: id.link,
            links: plan.connections,
            claims: plan.claim.is_some(),
            ..LinkConfig::new(address.clone(), plan.security.clone(), plan.id.clone())
        };
        // The shard must know the link before its first event, which may come at once: what comes
        // before that waits behind this lock.
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let (inbox, ready, waits) = (self.inbox.clone(), task.clone(), gate.clone());
        let handle = link::spawn(config, &self.runtime, move |event| {
            drop(waits.lock().unwrap_or_else(PoisonError::into_inner));
            note_readiness(&ready, &event);
            inbox.push(id, event);
        });
        self.inbox.add(LinkRoutes::new(
            id,
            handle.clone(),
            plan.connections,
            plan.claim.clone(),
            plan.known_by,
        ));
        drop(held);
        Link { handle, task }
    }

    /// The links as an operator wants to see them.
    pub fn status(&self) -> Vec<LinkStatus> {
        let current = self.lock();
        let links = current.list.iter().flat_map(|one| &one.links);
        links.map(|link| link.handle.status()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note_readiness(task: &Task, event: &LinkEvent) {
    match event {
        LinkEvent::Up { .. } => task.set(true),
        LinkEvent::Down { .. } => task.set(false),
        LinkEvent::Headers { .. }
        | LinkEvent::Conflict { .. }
        | LinkEvent::Granted
        | LinkEvent::Traced(_)
        | LinkEvent::Refused { .. } => {}
    }
}
