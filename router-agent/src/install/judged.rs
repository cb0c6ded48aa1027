//! What is said of a need before it is met, and while it is.

use std::net::IpAddr;

use crate::host::Mode;
use crate::install::{InstallError, Installer};
use crate::kernel::KernelError;
use crate::kernel::model::Snapshot;
use crate::need::{Need, Selectors};
use crate::plan::{Circumstances, ours, refusal};
use crate::settings::{self, Finding};

/// A plan that was judged, and what to know about it.
#[derive(Clone, Debug, Default)]
pub struct Judged {
    /// What it diverts.
    pub selectors: Selectors,
    /// Settings that are not as they should be.
    pub findings: Vec<Finding>,
    /// Services that this host does not have, and what to do.
    pub elsewhere: Vec<String>,
    /// Connections that get no answers any more, and what to do.
    pub cut: Option<String>,
}

impl Judged {
    /// What an operator should know, one line each. Settings are left out where they are `managed`: they are set then.
    pub fn warnings(&self, managed: bool) -> Vec<String> {
        let findings = match managed {
            true => &[],
            false => &self.findings[..],
        };
        let mut warnings = lasting(findings, &self.elsewhere);
        warnings.extend(self.cut.clone());
        warnings
    }
}

/// What holds until somebody puts it right, one line each.
fn lasting(findings: &[Finding], elsewhere: &[String]) -> Vec<String> {
    let findings = findings.iter().map(ToString::to_string);
    findings.chain(elsewhere.iter().cloned()).collect()
}

impl Installer {
    /// Judges a need, without touching anything.
    ///
    /// # Errors
    /// The refusal, or the kernel's.
    pub fn judge(&mut self, need: &Need, holder: Option<IpAddr>) -> Result<Judged, InstallError> {
        let snapshot = self.snapshot()?;
        let sockets = self.kernel.sockets()?;
        let mut copied = ours::diverted(&self.host, &snapshot);
        copied.extend(self.remembered());
        let around = Circumstances {
            snapshot: &snapshot,
            sockets: &sockets,
            copied: &copied,
            holder,
        };
        let selectors = refusal::judge(&self.host, need, &around)?;
        if self.host.mode == Mode::Assistant {
            self.ways(&selectors)?;
        }
        let findings = settings::findings(&self.host, &mut self.kernel, &snapshot, &selectors)?;
        let elsewhere = refusal::elsewhere(need, &snapshot);
        let cut = sockets.iter().filter(|socket| {
            let (local, remote) = (socket.local, socket.remote.ip());
            socket.may_speak()
                && selectors.iter().any(|it| it.matches(local, remote))
                && !copied.iter().any(|it| it.matches(local, remote))
                && !self.host.passes(remote)
        });
        let cut = match cut.count() {
            0 => None,
            cut => Some(format!(
                "{cut} open connections of the tested service get no answers any more; peers that \
                 must go on being answered belong into the pass-list (-x)"
            )),
        };
        Ok(Judged {
            selectors,
            findings,
            elsewhere,
            cut,
        })
    }

    /// The state of the kernel, as far as [`Installer::review`] needs it: no program is started for it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn glance(&mut self) -> Result<Snapshot, KernelError> {
        self.kernel.snapshot(&self.floor, false)
    }

    /// What an operator should know now of a need that is met, one line each. Settings are among it that are managed, and
    /// that somebody has changed since they were set.
    ///
    /// # Errors
    /// The kernel's.
    pub fn review(
        &mut self,
        snapshot: &Snapshot,
        need: &Need,
        selectors: &Selectors,
    ) -> Result<Vec<String>, KernelError> {
        let findings = settings::findings(&self.host, &mut self.kernel, snapshot, selectors)?;
        Ok(lasting(&findings, &refusal::elsewhere(need, snapshot)))
    }
}
