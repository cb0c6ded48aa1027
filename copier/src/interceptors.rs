//! The links to all interceptors, and how they change while the copier runs.

use std::sync::Arc;
use std::time::Duration;

use millrace_channel::link::{self, LinkConfig, LinkHandle, LinkStatus};
use millrace_daemon::readiness::{Readiness, Task};
use millrace_notation::address::HostPort;
use millrace_replay::inbox::Inbox;
use millrace_replay::routes::LinkRoutes;
use millrace_routes::copier::{InterceptorId, LinkEvent, LinkId};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::plan::Plan;

/// One interceptor and the links to it.
struct Interceptor {
    id: InterceptorId,
    address: HostPort,
    links: Vec<Link>,
    /// Its run, once a link is up.
    incarnation: Option<u64>,
    /// It is another one under a second name: its links are closed, since the two would take over
    /// from each other for ever.
    left_out: bool,
}

impl Interceptor {
    /// One that was left out is tried anew: its name, or the other, may lead elsewhere by now.
    fn is_kept(&self, wanted: &[HostPort]) -> bool {
        wanted.contains(&self.address) && !self.left_out
    }

    fn close(&self, inbox: &Inbox) {
        for link in &self.links {
            link.handle.close();
            link.task.withdraw();
        }
        inbox.remove(self.id);
    }
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
    current: Arc<Mutex<Current>>,
}

impl std::fmt::Debug for Interceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interceptors").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Current {
    list: Vec<Interceptor>,
    next_id: InterceptorId,
}

impl Interceptors {
    /// None yet. Each that is named is a part of the daemon's readiness.
    pub fn new(plan: Arc<Plan>, runtime: Handle, inbox: Arc<Inbox>, readiness: Readiness) -> Self {
        Self {
            plan,
            runtime,
            inbox,
            readiness,
            current: Arc::default(),
        }
    }

    /// Keeps the links to `wanted`, starts those that are new and closes the others. The certificates of those that are not
    /// among the `listed`, whom the operator has named, must confirm their addresses.
    pub fn set(&self, wanted: &[HostPort], listed: &[HostPort]) {
        let mut current = self.current.lock();
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut current.list)
            .into_iter()
            .partition(|one| one.is_kept(wanted));
        current.list = kept;
        for one in gone {
            if !wanted.contains(&one.address) {
                tracing::info!(
                    "interceptor {}: not named any more, its links are closed",
                    one.address
                );
            }
            one.close(&self.inbox);
        }
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
                            !listed.contains(address),
                        )
                    })
                    .collect();
                current.list.push(Interceptor {
                    id,
                    address: address.clone(),
                    links,
                    incarnation: None,
                    left_out: false,
                });
            }
        }
    }

    fn start_link(&self, id: LinkId, address: &HostPort, must_confirm: bool) -> Link {
        let plan = &self.plan;
        let task = Arc::new(self.readiness.register(match plan.connections {
            1 => format!("interceptor {address}"),
            _ => format!("interceptor {address} link {}", id.link),
        }));
        let mut config = LinkConfig {
            link: id.link,
            links: plan.connections,
            claims: plan.claim.is_some(),
            needs_payload: !plan.protocols.is_empty(),
            ..LinkConfig::new(address.clone(), plan.security.clone(), plan.id.clone())
        };
        config.peer.must_confirm = must_confirm;
        // The shard must know the link before its first event, which may come at once: what comes
        // before that waits behind this lock.
        let gate = Arc::new(Mutex::new(()));
        let held = gate.lock();
        let (inbox, ready, waits) = (self.inbox.clone(), task.clone(), gate.clone());
        // Not kept alive by its own links.
        let current = Arc::downgrade(&self.current);
        let handle = link::spawn(config, &self.runtime, move |event| {
            drop(waits.lock());
            if let LinkEvent::Up { incarnation, .. } = event
                && let Some(current) = current.upgrade()
                && let Some(second) = current.lock().note_run(id.interceptor, incarnation)
            {
                second.close(&inbox);
            }
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

    /// Whether the interceptor at this address is connected, or was `lately`.
    pub fn was_there(&self, address: &HostPort, lately: Duration) -> bool {
        let current = self.current.lock();
        let links = current.list.iter().filter(|one| one.address == *address);
        links.flat_map(|one| &one.links).any(|link| {
            let status = link.handle.status();
            status.connected || Duration::from_secs(status.since_seconds) < lately
        })
    }

    /// The links as an operator wants to see them.
    pub fn status(&self) -> Vec<LinkStatus> {
        let current = self.current.lock();
        let present = current.list.iter().filter(|one| !one.left_out);
        let links = present.flat_map(|one| &one.links);
        links.map(|link| link.handle.status()).collect()
    }
}

impl Current {
    /// Notes which run of an interceptor a link has reached. Gives the interceptor that is to be
    /// closed, because an earlier one of the list is the same.
    fn note_run(&mut self, id: InterceptorId, incarnation: u64) -> Option<&Interceptor> {
        let one = self.list.iter_mut().find(|one| one.id == id)?;
        one.incarnation = Some(incarnation);
        let mut same = self
            .list
            .iter_mut()
            .filter(|one| one.incarnation == Some(incarnation) && !one.left_out);
        let (first, second) = (same.next()?, same.next()?);
        tracing::warn!(
            "interceptor {} is interceptor {} under another name, and is left out: name it once \
             in -s, or, if the names lead to two by now, send SIGHUP",
            second.address,
            first.address
        );
        second.left_out = true;
        Some(second)
    }
}

fn note_readiness(task: &Task, event: &LinkEvent) {
    match event {
        LinkEvent::Up { .. } => task.set(true),
        LinkEvent::Down { .. } => task.set(false),
        LinkEvent::Headers { .. }
        | LinkEvent::Conflict { .. }
        | LinkEvent::Granted
        | LinkEvent::Others { .. }
        | LinkEvent::Taken { .. }
        | LinkEvent::Traced(_)
        | LinkEvent::Refused { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use millrace_notation::address::DefaultPort;

    use super::*;

    #[test]
    fn of_two_names_of_one_interceptor_the_first_is_kept() {
        let addresses = DefaultPort(36_525).parse_list("rs1,rs2,198.18.2.21");
        let addresses = addresses.unwrap();
        let one = |(id, address): (InterceptorId, &HostPort)| Interceptor {
            id,
            address: address.clone(),
            links: Vec::new(),
            incarnation: None,
            left_out: false,
        };
        let mut current = Current {
            list: (0..).zip(&addresses).map(one).collect(),
            next_id: 3,
        };
        assert!(current.note_run(2, 7).is_none());
        assert!(current.note_run(1, 8).is_none());
        // Whichever comes up first.
        assert_eq!(current.note_run(0, 7).unwrap().id, 2);
        // Once, though it may have come up a last time.
        assert!(current.note_run(2, 7).is_none());
        assert!(current.note_run(0, 9).is_none());
        // With the next list it is tried anew.
        let kept = |one: &Interceptor| one.is_kept(&addresses);
        assert!(current.list[..2].iter().all(kept));
        assert!(!kept(&current.list[2]));
    }
}
