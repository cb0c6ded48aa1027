//! The router-agents that keep the targets' responses from the real clients: no session begins before all of them hold
//! what is needed, and nothing is sent while one that has held does not vouch for its host any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_capture::Waker;
use millrace_channel::hold::{self, HoldConfig, HoldEvent, HoldHandle, HoldStatus};
use millrace_daemon::boottime::BootTime;
use millrace_daemon::exit::ExitError;
use millrace_daemon::readiness::{Readiness, Task};
use millrace_notation::address::HostPort;
use millrace_proto::v1::Need;
use millrace_replay::may_send::{Diverters, MaySend};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::runtime::Handle;

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
    /// Agents that held and are named no more: sessions may be open on their hosts.
    left: Mutex<Vec<HostPort>>,
    /// Sessions may be open on a host that no named agent has vouched for yet: nothing is sent before all hold.
    unsettled: AtomicBool,
    /// Agents are to be found in Consul: while none is known, that is no leave to send.
    sought: AtomicBool,
}

#[derive(Debug)]
struct Hold {
    address: HostPort,
    handle: HoldHandle,
    task: Arc<Task>,
}

impl Agents {
    /// None yet. Those that are named are asked for what the plan needs, for as long as this lives. Each is a part of
    /// the daemon's readiness; `waker` is woken whenever one holds or refuses.
    pub fn new(plan: Arc<Plan>, runtime: Handle, waker: Waker, readiness: Readiness) -> Self {
        Self(Arc::new(Inner {
            plan,
            runtime,
            waker,
            readiness,
            holds: RwLock::default(),
            unguarded_said: AtomicBool::new(false),
            left: Mutex::default(),
            unsettled: AtomicBool::new(false),
            sought: AtomicBool::new(false),
        }))
    }

    /// Keeps the leases of `wanted`, asks those that are new, and gives the other leases up. `sought`: agents are to be
    /// found in Consul, so that nothing is sent while none is known. The certificates of those that are not among the
    /// `listed`, whom the operator has named, must confirm their addresses.
    ///
    /// # Errors
    /// Agents are wanted, and it is not known what to ask them for ([`Plan::diverted`]): nothing is changed.
    pub fn set(
        &self,
        wanted: &[HostPort],
        listed: &[HostPort],
        sought: bool,
    ) -> Result<(), ExitError> {
        let need = match (wanted, sought) {
            ([], false) => Need::default(),
            ([..], _) => self.0.plan.diverted.clone()?,
        };
        self.0.sought.store(sought, Ordering::Relaxed);
        let mut holds = self.0.holds.write();
        let now = BootTime::now();
        let mut left = self.0.left.lock();
        let known = |address: &HostPort| holds.iter().any(|hold| hold.address == *address);
        let added: Vec<&HostPort> = wanted.iter().filter(|it| !known(it)).collect();
        let goes = |hold: &&Hold| !wanted.contains(&hold.address);
        let standing = |hold: &Hold| Standing::of(hold, now);
        let removed: Vec<Standing> = holds.iter().filter(goes).map(standing).collect();
        let stays = |hold: &&Hold| wanted.contains(&hold.address);
        let kept: Vec<Standing> = holds.iter().filter(stays).map(standing).collect();
        if unsettles(&removed, &kept, &added, &left) {
            self.0.unsettled.store(true, Ordering::Relaxed);
        }
        for hold in holds.iter().filter(goes) {
            let (address, stands) = (&hold.address, standing(hold));
            match stands {
                Standing::Lapsed => tracing::warn!(
                    "router-agent {address}: not named any more, though it does not vouch for its host: copies that are \
                     open there go on, so the director must not send that host anything"
                ),
                Standing::New | Standing::Holds => tracing::info!(
                    "router-agent {address}: not named any more, no lease is asked for there"
                ),
            }
            hold.handle.close();
            hold.task.withdraw();
            if stands != Standing::New {
                left.push(address.clone());
            }
        }
        left.retain(|address| !wanted.contains(address));
        let asked: Vec<Hold> = added
            .into_iter()
            .map(|it| self.ask(it, !listed.contains(it), &need))
            .collect();
        holds.retain(|hold| wanted.contains(&hold.address));
        holds.extend(asked);
        drop((holds, left));
        if self.is_unguarded() && !self.0.unguarded_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "unguarded: no router-agent is named (--router-agent), so nobody but the first probe tells \
                 whether the targets' responses are kept from the real clients"
            );
        }
        self.0.waker.wake();
        Ok(())
    }

    fn ask(&self, address: &HostPort, must_confirm: bool, need: &Need) -> Hold {
        let Inner {
            plan,
            runtime,
            waker,
            readiness,
            ..
        } = &*self.0;
        let task = Arc::new(readiness.register(format!("router-agent {address}")));
        let (security, id) = (plan.security.clone(), plan.id.clone());
        let mut config = HoldConfig::new(address.clone(), security, id, need.clone());
        config.peer.must_confirm = must_confirm;
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
        self.0.plan.bears_clients_addresses() && !self.are_named()
    }

    /// Whether there are agents, known or yet to be found.
    fn are_named(&self) -> bool {
        self.0.sought.load(Ordering::Relaxed) || !self.holds().is_empty()
    }

    /// Whether the agent at this address keeps responses from the real clients now.
    pub fn holds_at(&self, address: &HostPort) -> bool {
        let now = BootTime::now();
        let holds = self.holds();
        let hold = holds.iter().find(|hold| hold.address == *address);
        hold.is_some_and(|hold| hold.handle.is_held(now))
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

impl Diverters for Agents {
    fn may_send(&self) -> MaySend {
        let (holds, now) = (self.holds(), BootTime::now());
        if holds.is_empty() && self.0.sought.load(Ordering::Relaxed) {
            return MaySend::NothingNew;
        }
        let standings = holds.iter().map(|hold| Standing::of(hold, now));
        let unsettled = &self.0.unsettled;
        let may_send = judge(standings, unsettled.load(Ordering::Relaxed));
        if may_send == MaySend::Everything {
            unsettled.store(false, Ordering::Relaxed);
        }
        may_send
    }

    fn keep_all_clients(&self) -> bool {
        self.0.plan.bears_clients_addresses() && self.are_named()
    }
}

/// How an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has never held.
    New,
    Holds,
    /// It held, and does not any more.
    Lapsed,
}

impl Standing {
    fn of(hold: &Hold, now: BootTime) -> Self {
        if hold.handle.is_held(now) {
            Self::Holds
        } else if hold.handle.has_lapsed(now) {
            Self::Lapsed
        } else {
            Self::New
        }
    }
}

/// What follows from how the named agents stand. A newcomer's host holds none of the open sessions: these do not wait for
/// its agent, unless it may be another name of a host that has some.
fn judge(standings: impl Iterator<Item = Standing> + Clone, unsettled: bool) -> MaySend {
    if standings.clone().all(|it| it == Standing::Holds) {
        return MaySend::Everything;
    }
    match unsettled || standings.clone().any(|it| it == Standing::Lapsed) {
        true => MaySend::Nothing,
        false => MaySend::NothingNew,
    }
}

/// Whether sessions may be open on a host that none of the named agents has vouched for, once these are removed and those
/// added: one that held goes while another is new, which may be its other name; or one that `left` is back.
fn unsettles(
    removed: &[Standing],
    kept: &[Standing],
    added: &[&HostPort],
    left: &[HostPort],
) -> bool {
    let held = removed.iter().any(|it| *it != Standing::New);
    let new = !added.is_empty() || kept.contains(&Standing::New);
    held && new || added.iter().any(|address| left.contains(address))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use millrace_notation::address::DefaultPort;

    use super::*;

    #[test]
    fn nothing_is_sent_while_one_that_held_does_not() {
        use Standing::{Holds, Lapsed, New};
        let cases: [(&[Standing], MaySend); 7] = [
            (&[], MaySend::Everything),
            (&[Holds, Holds], MaySend::Everything),
            (&[Holds, New], MaySend::NothingNew),
            (&[New], MaySend::NothingNew),
            (&[Holds, Lapsed], MaySend::Nothing),
            (&[Lapsed, New], MaySend::Nothing),
            (&[Holds, Lapsed, New], MaySend::Nothing),
        ];
        for (standings, expected) in cases {
            let judged = |unsettled| judge(standings.iter().copied(), unsettled);
            assert_eq!(judged(false), expected, "{standings:?}");
            let all = standings.iter().all(|it| *it == Holds);
            let strict = if all {
                MaySend::Everything
            } else {
                MaySend::Nothing
            };
            assert_eq!(judged(true), strict, "{standings:?}, unsettled");
        }
    }

    #[test]
    fn a_host_with_open_sessions_is_not_taken_for_a_new_one() {
        use Standing::{Holds, Lapsed, New};
        let all = DefaultPort(1).parse_list("rs1,rs2,rs9").unwrap();
        let [rs1, rs2, rs9] = [&all[0], &all[1], &all[2]];
        let left = std::slice::from_ref(rs2);
        assert!(!unsettles(&[], &[Holds], &[rs9], &[]), "a newcomer alone");
        assert!(
            !unsettles(&[Holds], &[Holds], &[], &[]),
            "its sessions are over"
        );
        assert!(
            !unsettles(&[Lapsed], &[Holds], &[], &[]),
            "a dead host can be taken out"
        );
        assert!(
            !unsettles(&[New], &[Holds], &[rs9], &[]),
            "a name that was wrong from the start"
        );
        assert!(unsettles(&[Holds], &[], &[rs1], &[]), "its other name");
        assert!(unsettles(&[Lapsed], &[], &[rs1], &[]), "its other name");
        assert!(
            unsettles(&[Holds], &[New], &[], &[]),
            "named before it goes"
        );
        assert!(unsettles(&[], &[Holds], &[rs2], left), "back too early");
        assert!(!unsettles(&[], &[Holds], &[rs9], left));
    }
    use crate::options::Options;

    #[tokio::test]
    async fn an_agent_that_cannot_be_told_what_to_divert_is_refused_later_too() {
        let line = "millrace-copier -x 80-198.18.2.20:8080 -s h --insecure -i lo --nat";
        let options = Options::parse_from(line.split_whitespace());
        let agents = agents(&options);
        let named = DefaultPort(1).parse_list("198.18.2.20").unwrap();
        assert!(agents.set(&named, &named, false).is_err());
        assert!(agents.set(&[], &[], true).is_err());
        assert_eq!(
            agents.may_send(),
            MaySend::Everything,
            "nothing was changed"
        );
        assert!(agents.is_unguarded());
        assert!(agents.set(&[], &[], false).is_ok());
    }

    fn agents(options: &Options) -> Agents {
        Agents::new(
            Arc::new(Plan::new(options).unwrap()),
            Handle::current(),
            Waker::new().unwrap(),
            Readiness::new(),
        )
    }

    #[tokio::test]
    async fn while_agents_are_yet_to_be_found_nothing_is_sent() {
        let line = "millrace-copier -x 80-198.18.2.20:8080 -s h --insecure -i lo";
        let agents = agents(&Options::parse_from(line.split_whitespace()));
        agents.set(&[], &[], false).unwrap();
        assert_eq!(agents.may_send(), MaySend::Everything);
        assert!(agents.is_unguarded());
        agents.set(&[], &[], true).unwrap();
        assert_eq!(agents.may_send(), MaySend::NothingNew);
        assert!(!agents.is_unguarded() && agents.keep_all_clients());
    }
}
