//! Brings a plan about on this host: judged, made step by step, verified, rolled back if need be.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use serde::Serialize;

use crate::host::{HostConfig, Mode};
use crate::kernel::model::{Snapshot, Socket};
use crate::kernel::{Answer, Kernel, KernelError, Lookup};
use crate::need::{Need, Selectors};
use crate::plan::{Circumstances, Danger, Layout, Refusal, Ways, changes, ours, refusal};
use crate::settings::{self, Finding};
use crate::state::{Changed, State, StateError, StateFile};
use crate::step::Step;
use crate::verify::{self, Baseline};

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

/// A plan that was judged, and what to know about it.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// What it diverts.
    pub selectors: Selectors,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Settings that are not as they should be.
    pub findings: Vec<Finding>,
}

/// Brings plans about.
pub struct Installer {
    host: HostConfig,
    kernel: Kernel,
    state: StateFile,
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
            host,
            kernel,
            state,
        }
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

    /// Whether policy rules or our routes may have changed since the last call.
    pub fn has_news(&mut self) -> bool {
        self.kernel.has_news(self.host.protocol)
    }

    /// Remembers what was applied by hand.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember_by_hand(&mut self, need: Option<Need>) -> Result<(), InstallError> {
        let mut state = self.state.state().clone();
        state.by_hand = need;
        Ok(self.state.replace(state)?)
    }

    /// The state of the kernel, with our firewall chains.
    ///
    /// # Errors
    /// The kernel's.
    pub fn snapshot(&mut self) -> Result<Snapshot, KernelError> {
        self.kernel.snapshot(true)
    }

    /// What is diverted now, read back from the kernel.
    ///
    /// # Errors
    /// The kernel's.
    pub fn diverted(&mut self) -> Result<Selectors, KernelError> {
        let snapshot = self.kernel.snapshot(true)?;
        Ok(ours::diverted(&self.host, &snapshot))
    }

    /// Judges a need, without touching anything.
    ///
    /// # Errors
    /// The refusal, or the kernel's.
    pub fn judge(&mut self, need: &Need, holder: Option<IpAddr>) -> Result<Judged, InstallError> {
        let snapshot = self.snapshot()?;
        let sockets = self.kernel.sockets()?;
        let diverted = ours::diverted(&self.host, &snapshot);
        let around = Circumstances {
            snapshot: &snapshot,
            sockets: &sockets,
            diverted: &diverted,
            holder,
        };
        let selectors = refusal::judge(&self.host, need, &around)?;
        if self.host.mode == Mode::Assistant {
            self.ways(&selectors)?;
        }
        let findings = settings::findings(&self.host, &mut self.kernel, &snapshot, &selectors)?;
        let mut warnings: Vec<String> = findings.iter().map(ToString::to_string).collect();
        warnings.extend(refusal::elsewhere(need, &snapshot));
        let cut = sockets.iter().filter(|socket| {
            let (local, remote) = (socket.local, socket.remote.ip());
            socket.may_speak()
                && selectors.iter().any(|it| it.matches(local, remote))
                && !diverted.iter().any(|it| it.matches(local, remote))
                && !self.host.passes(remote)
        });
        let cut = cut.count();
        if cut > 0 {
            warnings.push(format!(
                "{cut} open connections of the tested service get no answers any more; peers that \
                 must go on being answered belong into the pass-list (-x)"
            ));
        }
        Ok(Judged {
            selectors,
            warnings,
            findings,
        })
    }

    /// The steps to a plan, without taking them.
    ///
    /// # Errors
    /// The kernel's, or that there is no way to the assistant.
    pub fn steps(&mut self, selectors: &Selectors) -> Result<Vec<Step>, InstallError> {
        let snapshot = self.snapshot()?;
        let ways = self.ways(selectors)?;
        let layout = Layout::new(&self.host, selectors, &ways);
        Ok(changes(&self.host, &layout, &snapshot))
    }

    /// Diverts exactly `wanted` from now on, and verifies it.
    ///
    /// # Errors
    /// What went wrong; then what was diverted before is diverted again.
    pub fn bring_about(&mut self, wanted: &Selectors) -> Result<Verified, InstallError> {
        let snapshot = self.snapshot()?;
        let before = ours::diverted(&self.host, &snapshot);
        let ways = self.ways(wanted)?;
        let layout = Layout::new(&self.host, wanted, &ways);
        let steps = changes(&self.host, &layout, &snapshot);
        let sockets = self.kernel.sockets()?;
        let baseline = Baseline::take(
            &mut self.kernel,
            &self.host,
            &snapshot,
            &sockets,
            &[&before, wanted],
        )?;
        let done = self
            .take(&steps)
            .and_then(|()| self.verify(&layout, wanted, &baseline));
        match done {
            Ok(lookups) => Ok(Verified {
                lookups,
                steps: u32::try_from(steps.len()).unwrap_or(u32::MAX),
            }),
            Err(error) => {
                self.roll_back(&before);
                Err(error)
            }
        }
    }

    /// Whether the kernel's state is that of the plan.
    ///
    /// # Errors
    /// The kernel's.
    pub fn stands(&mut self, wanted: &Selectors) -> Result<bool, InstallError> {
        // The firewall is read by starting programs: only where it matters.
        let snapshot = self.kernel.snapshot(self.host.mode == Mode::Nfqueue)?;
        let ways = self.ways(wanted)?;
        let layout = Layout::new(&self.host, wanted, &ways);
        Ok(changes(&self.host, &layout, &snapshot).is_empty())
    }

    fn take(&mut self, steps: &[Step]) -> Result<(), InstallError> {
        for step in steps {
            self.kernel.apply(step)?;
        }
        Ok(())
    }

    fn verify(
        &mut self,
        layout: &Layout,
        wanted: &Selectors,
        baseline: &Baseline,
    ) -> Result<u32, InstallError> {
        let snapshot = self.kernel.snapshot(self.host.mode == Mode::Nfqueue)?;
        let passed = baseline.check(&mut self.kernel)?;
        let diverted = verify::diverted(&mut self.kernel, &self.host, &snapshot, layout, wanted)?;
        Ok(passed + diverted)
    }

    fn roll_back(&mut self, before: &Selectors) {
        let result = self.steps(before).and_then(|steps| self.take(&steps));
        if let Err(error) = result {
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
            let links = self.kernel.snapshot(false)?;
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
