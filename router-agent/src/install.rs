//! Brings a plan about on this host: judged, made step by step, verified, rolled back if need be.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::host::{HostConfig, Mode};
use crate::kernel::model::{FloorState, Snapshot, Socket, Stopped};
use crate::kernel::step::Step;
use crate::kernel::{Answer, Kernel, KernelError, Lookup, firewall};
use crate::need::Selectors;
use crate::plan::{Danger, Layout, Refusal, Ways, changes, floor, ours, refusal};
use crate::settings::Finding;
use crate::state::{Changed, State, StateError, StateFile};
use verify::Baseline;

mod judged;
mod remembered;
mod verify;

pub use judged::Judged;

/// Why a plan was not brought about.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// It would hurt this host; nothing was touched.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The kernel refused something; what was there before is there again.
    #[error("{0}")]
    Kernel(#[from] KernelError),
    /// The state file cannot be written; nothing was touched.
    #[error("{0}: give another --state-dir")]
    State(#[from] StateError),
    /// Look-ups do not confirm the plan; what was there before is there again.
    #[error("{0}")]
    Unverified(String),
}

/// A plan that stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Look-ups that confirmed it.
    pub lookups: u32,
    /// Steps that it took.
    pub steps: u32,
}

/// Where a floor could not be had it is tried again after so many looks.
const LOOKS_WITHOUT_FLOOR: u32 = 12;

/// Brings plans about.
pub struct Installer {
    host: HostConfig,
    kernel: Kernel,
    state: StateFile,
    /// Name of the floor's table.
    floor: String,
    /// Why this host could not be given a floor, if it could not.
    no_floor: Option<String>,
    /// Looks since that was tried.
    looks_without: u32,
    /// What is to be remembered as diverted while it cannot be written, and why it cannot.
    unremembered: Option<(Selectors, String)>,
}

impl fmt::Debug for Installer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installer").finish_non_exhaustive()
    }
}

impl Installer {
    /// For this host, on the thread that opened `kernel`.
    pub fn new(host: HostConfig, kernel: Kernel, state: StateFile) -> Self {
        Self {
            floor: floor::table(&host),
            host,
            kernel,
            state,
            no_floor: None,
            looks_without: 0,
            unremembered: None,
        }
    }

    /// One that only looks.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn looking(host: HostConfig) -> Result<Self, KernelError> {
        let state = StateFile::read_only(&host.state_dir);
        Ok(Self::new(host, Kernel::open()?, state))
    }

    /// How this host diverts.
    pub fn host(&self) -> &HostConfig {
        &self.host
    }

    /// What is remembered.
    pub fn state(&self) -> &State {
        self.state.state()
    }

    /// Changes made since the start.
    pub fn changes(&self) -> u64 {
        self.kernel.changes()
    }

    /// Whether anything on which diverting depends may have changed since the last call.
    pub fn has_news(&mut self) -> bool {
        // The chain of --mode nfqueue stands in the table of others.
        let firewall = [self.floor.as_str(), firewall::TABLE];
        self.kernel.has_news(self.host.table, &firewall)
    }

    /// What the floor has dropped since it was put in place, if there is one.
    pub fn stopped(&mut self) -> Option<Stopped> {
        self.kernel.stopped(&self.floor).ok()
    }

    /// Which of these addresses this host has.
    ///
    /// # Errors
    /// The kernel's.
    pub fn own(&mut self, wanted: &BTreeSet<IpAddr>) -> Result<BTreeSet<IpAddr>, KernelError> {
        let here = self.kernel.addresses()?;
        let own = wanted.iter().filter(|ip| here.contains(ip));
        Ok(own.copied().collect())
    }

    /// What an operator should know if there is no floor under what is diverted.
    pub fn no_floor(&self) -> Option<String> {
        self.no_floor.as_ref().map(|why| {
            format!(
                "there is no floor under what is diverted ({why}): a packet that somebody else's rule leads \
                 past the diverting rules would reach a client"
            )
        })
    }

    /// The state of the kernel, with our firewall chains.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&mut self) -> Result<Snapshot, KernelError> {
        self.kernel.snapshot(&self.floor, true)
    }

    /// What is diverted now, read back from the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn diverted(&mut self) -> Result<Selectors, KernelError> {
        let snapshot = self.kernel.snapshot(&self.floor, true)?;
        Ok(ours::diverted(&self.host, &snapshot))
    }

    /// The TCP sockets of this host.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sockets(&mut self) -> Result<Vec<Socket>, KernelError> {
        self.kernel.sockets()
    }

    /// The steps to a plan, without taking them.
    ///
    /// # Errors
    /// The kernel's, or that there is no way to the assistant.
    pub fn steps(&mut self, selectors: &Selectors) -> Result<Vec<Step>, InstallError> {
        let snapshot = self.snapshot()?;
        let ways = self.ways(selectors)?;
        Ok(self.plan(selectors, &ways, &snapshot).1)
    }

    /// What is to stand, and the steps there.
    fn plan(&self, selectors: &Selectors, ways: &Ways, now: &Snapshot) -> (Layout, Vec<Step>) {
        let layout = self.layout(selectors, ways, &now.floor);
        let steps = changes(&self.host, &layout, now);
        (layout, steps)
    }

    /// What is to stand. Where a floor could not be had, it is not asked for each time.
    fn layout(&self, selectors: &Selectors, ways: &Ways, floor: &FloorState) -> Layout {
        let mut layout = Layout::new(&self.host, selectors, ways);
        let tried = self.no_floor.is_some() && self.looks_without < LOOKS_WITHOUT_FLOOR;
        if tried && !floor.exists {
            layout.floor = None;
        }
        layout
    }

    /// Diverts exactly `wanted` from now on, and verifies it.
    ///
    /// # Errors
    /// What went wrong; then `fallback` is diverted.
    pub fn bring_about(
        &mut self,
        wanted: &Selectors,
        fallback: &Selectors,
    ) -> Result<Verified, InstallError> {
        let snapshot = self.snapshot()?;
        let before = ours::diverted(&self.host, &snapshot);
        let ways = self.ways(wanted)?;
        let (layout, steps) = self.plan(wanted, &ways, &snapshot);
        let sockets = self.kernel.sockets()?;
        let baseline = Baseline::take(
            &mut self.kernel,
            &self.host,
            &snapshot,
            &sockets,
            &[&before, wanted],
        )?;
        let done = self.take(&steps).and_then(|taken| {
            let passed = baseline.check(&mut self.kernel)?;
            Ok((passed + self.verify(&layout, wanted)?, taken))
        });
        match done {
            Ok((lookups, steps)) => {
                // After a kill its holders come back one by one: what the others had is kept in mind.
                let all: Selectors = self.remembered().union(wanted).copied().collect();
                self.remember_only(&all);
                Ok(Verified { lookups, steps })
            }
            Err(error) => {
                self.roll_back(fallback);
                Err(error)
            }
        }
    }

    /// Looks whether `wanted` is diverted, by the kernel's state and by look-ups, and puts right what
    /// is not as it was left. What cannot be done does not hold up the rest, and nothing is taken
    /// back: the blackhole and the floor come first, and stand even if nothing else does.
    ///
    /// # Errors
    /// Why answers do not go where they should, after all that could be done.
    pub fn put_right(&mut self, wanted: &Selectors) -> Result<Verified, InstallError> {
        self.looks_without = match self.looks_without {
            LOOKS_WITHOUT_FLOOR => 0,
            fewer => fewer + 1,
        };
        let (floor, mut failed) = match self.put_floor_right(wanted) {
            Ok(steps) => (steps, None),
            Err(error) => (0, Some(error)),
        };
        // The firewall is read by starting programs: only where it matters.
        let nfqueue = self.host.mode == Mode::Nfqueue;
        let snapshot = self.kernel.snapshot(&self.floor, nfqueue)?;
        let ways = self.ways(wanted).unwrap_or_else(|error| {
            failed.get_or_insert(error);
            Ways::default()
        });
        let (layout, steps) = self.plan(wanted, &ways, &snapshot);
        let (taken, error) = self.take_all(&steps);
        if let Some(error) = error.or(failed) {
            return Err(error);
        }
        Ok(Verified {
            lookups: self.verify(&layout, wanted)?,
            steps: floor + taken,
        })
    }

    /// Puts the floor in place if it is not, before anything is read that takes time: where somebody
    /// has flushed the whole firewall, nothing else may be left. Says in how many steps.
    fn put_floor_right(&mut self, wanted: &Selectors) -> Result<u32, InstallError> {
        let now = self.kernel.floor(&self.floor)?;
        let floor = self.layout(wanted, &Ways::default(), &now).floor;
        // One that stands and is another goes in the order of all changes.
        let Some(floor) = floor.filter(|_| !now.exists) else {
            return Ok(0);
        };
        let lines = floor.program();
        self.take_one(&Step::Floor { lines }).map(u32::from)
    }

    /// Takes the steps until one fails. Says how many.
    fn take(&mut self, steps: &[Step]) -> Result<u32, InstallError> {
        let mut taken = 0;
        for step in steps {
            taken += u32::from(self.take_one(step)?);
        }
        Ok(taken)
    }

    /// Takes all steps; after one that failed only those that add something. Says how many, and the
    /// first failure.
    fn take_all(&mut self, steps: &[Step]) -> (u32, Option<InstallError>) {
        let (mut taken, mut first) = (0, None);
        for step in steps {
            if first.is_some() && step.removes() {
                continue;
            }
            match self.take_one(step) {
                Ok(done) => taken += u32::from(done),
                Err(error) => {
                    first.get_or_insert(error);
                }
            }
        }
        (taken, first)
    }

    /// Takes a step. Says whether it was taken: on a host that can have no floor, rules and routes divert
    /// without one.
    fn take_one(&mut self, step: &Step) -> Result<bool, InstallError> {
        let Step::Floor { .. } = step else {
            self.kernel.apply(step)?;
            return Ok(true);
        };
        let stood = self.kernel.floor(&self.floor)?.exists;
        match self.kernel.apply(step) {
            Ok(()) => {
                self.no_floor = None;
                Ok(true)
            }
            Err(error) if stood => Err(error.into()),
            Err(error) => {
                let new = self.no_floor.replace(error.why).is_none();
                if let Some(warning) = self.no_floor().filter(|_| new) {
                    tracing::warn!("{warning}");
                }
                Ok(false)
            }
        }
    }

    /// Asks where what is wanted goes. Says how many look-ups confirmed it: all.
    fn verify(&mut self, layout: &Layout, wanted: &Selectors) -> Result<u32, InstallError> {
        let nfqueue = self.host.mode == Mode::Nfqueue;
        let snapshot = self.kernel.snapshot(&self.floor, nfqueue)?;
        if self.no_floor.is_none()
            && let Some(floor) = &layout.floor
            && !floor.stands(&snapshot.floor)
        {
            return Err(InstallError::Unverified(format!(
                "the floor does not read back as it was set (nft list table inet {})",
                self.floor
            )));
        }
        verify::diverted(&mut self.kernel, &self.host, &snapshot, layout, wanted).map_err(|error| {
            // A rule that comes before ours says more than where a look-up ended.
            match refusal::rules(&self.host, wanted, &snapshot) {
                Err(in_the_way) if matches!(error, InstallError::Unverified(_)) => {
                    InstallError::Unverified(in_the_way.reason)
                }
                Ok(()) | Err(_) => error,
            }
        })
    }

    fn roll_back(&mut self, fallback: &Selectors) {
        let error = match self.steps(fallback) {
            Ok(steps) => self.take_all(&steps).1,
            Err(error) => Some(error),
        };
        if let Some(error) = error {
            tracing::error!(
                "cannot put back what was there before: {error}; look at it with \
                 millrace-router-agent show, mend what stands in the way, and start the agent again"
            );
        }
    }

    /// The devices towards the assistants, asked of the kernel.
    fn ways(&mut self, selectors: &Selectors) -> Result<Ways, InstallError> {
        let mut ways = Ways::default();
        if self.host.mode != Mode::Assistant {
            return Ok(ways);
        }
        for ipv4 in [true, false] {
            let used = selectors.iter().any(|selector| selector.is_ipv4() == ipv4);
            let Some(ip) = self.host.assistant(ipv4).filter(|_| used) else {
                continue;
            };
            let Answer::Out {
                link,
                gateway: None,
            } = self.kernel.lookup(&Lookup::to(ip))?
            else {
                return Err(InstallError::Refused(Refusal {
                    danger: Danger::Assistant,
                    reason: format!(
                        "the assistant {ip} is not on a network of this host (ip route get {ip}): \
                         name a host in the same segment with --assistant"
                    ),
                }));
            };
            let links = self.kernel.snapshot(&self.floor, false)?;
            let name = links.link_at(link).map(|link| link.name.clone());
            if ipv4 {
                ways.v4 = name;
            } else {
                ways.v6 = name;
            }
        }
        Ok(ways)
    }

    /// Sets settings, after remembering what they were.
    ///
    /// # Errors
    /// When they cannot be remembered or set.
    pub fn set(&mut self, findings: &[Finding]) -> Result<(), InstallError> {
        for finding in findings {
            let Some(before) = self.kernel.setting(&finding.key)? else {
                continue;
            };
            let mut state = self.state.state().clone();
            let entry = state.settings.entry(finding.key.clone());
            // What was remembered first is what was there before us.
            entry.or_insert_with(|| Changed {
                before,
                set: finding.wanted.clone(),
            });
            self.state.replace(state)?;
            self.kernel.apply(&Step::Sysctl {
                key: finding.key.clone(),
                value: finding.wanted.clone(),
            })?;
        }
        Ok(())
    }

    /// Restores the settings that were changed. One that somebody else has changed since is left.
    ///
    /// # Errors
    /// When one cannot be restored; the others are, and it stays remembered.
    pub fn restore_settings(&mut self) -> Result<(), InstallError> {
        let mut result = Ok(());
        for (key, changed) in self.state.state().settings.clone() {
            let now = self.kernel.setting(&key)?;
            if now.as_deref() == Some(changed.set.as_str()) {
                let step = Step::Sysctl {
                    key: key.clone(),
                    value: changed.before.clone(),
                };
                if let Err(error) = self.kernel.apply(&step) {
                    result = Err(error.into());
                    continue;
                }
            } else if let Some(now) = now.filter(|now| *now != changed.before) {
                tracing::warn!("{key} was set to {now} by somebody else: left as it is");
            }
            let mut state = self.state.state().clone();
            state.settings.remove(&key);
            self.state.replace(state)?;
        }
        result
    }

    /// Connections that could still send something if `gone` were no longer diverted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn speaking(
        &mut self,
        gone: &Selectors,
        kept: &Selectors,
    ) -> Result<Vec<Socket>, KernelError> {
        let selected = |set: &Selectors, local: SocketAddr, remote: IpAddr| {
            set.iter().any(|selector| selector.matches(local, remote))
        };
        let host = &self.host;
        let all = self.kernel.sockets()?;
        let speaking = all.into_iter().filter(|socket| {
            let (local, remote) = (socket.local, socket.remote.ip());
            socket.may_speak()
                && selected(gone, local, remote)
                && !selected(kept, local, remote)
                && !host.passes(remote)
        });
        Ok(speaking.collect())
    }

    /// Ends connections while their last packets are still diverted. Says how many it could, and
    /// why it could not end the last of the others.
    pub fn end_connections(&mut self, sockets: &[Socket]) -> (usize, Option<KernelError>) {
        let mut ended = 0;
        let mut problem = None;
        for socket in sockets {
            match self.kernel.end_connection(socket) {
                Ok(()) => ended += 1,
                Err(error) => {
                    tracing::debug!("{error}");
                    problem = Some(error);
                }
            }
        }
        (ended, problem)
    }
}

/// Whether an address may stand for any client of a service.
pub(crate) fn stands_for_clients(host: &HostConfig, snapshot: &Snapshot, ip: IpAddr) -> bool {
    !host.passes(ip) && !snapshot.is_local(ip)
}

/// Addresses of IPv6 that stand for any client (RFC 3849 and 9637: documentation).
pub(crate) const ANY_CLIENT_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0, 0, 0, 1),
    Ipv6Addr::new(0x3fff, 0xfff, 0xffff, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xfffe, 0xffff, 0, 0, 0, 1),
];
