//! The agent: leases above, the kernel below. One thread owns it; time comes from outside.
//!
//! What is no longer wanted is not removed at once. Its connections on this host belong to copies
//! whose copier is gone, and each may still retransmit, or end, towards the real client. They are
//! ended first, while their last packets are still diverted, and the rule goes when no connection
//! is left that could speak. Where the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY),
//! the rule stays until they have ended by themselves.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::install::{InstallError, Installer, Verified};
use crate::kernel::KernelError;
use crate::leases::{Leases, MAX_HOLDERS, StreamId};
use crate::lookout::Lookout;
use crate::need::{MAX_SELECTORS, Need, Selectors};
use crate::plan::{Danger, Refusal};
use crate::warnings::Warnings;

/// Connections that are ended at once: meanwhile nobody looks after anything else.
const ENDED_AT_ONCE: usize = 1000;
/// How often it is said that connections hold up a removal.
const SAY_INTERVAL: Duration = Duration::from_secs(60);
/// How often connections that hold up a removal are looked for.
const LEAVE_INTERVAL: Duration = Duration::from_secs(1);

/// What a holder gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Look-ups that confirmed the plan.
    pub verified: u32,
    /// What an operator should know, one line each.
    pub warnings: Vec<String>,
}

/// What the agent counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Needs that were met.
    pub held: u64,
    /// Needs that were refused as dangerous.
    pub refused: u64,
    /// Needs that the kernel refused, or that could not be verified.
    pub failed: u64,
    /// Leases that ended because their holder did not come back.
    pub expired: u64,
    /// Times that somebody else had changed what is ours, and it was put right.
    pub mended: u64,
    /// Connections ended before their rule was removed.
    pub connections_ended: u64,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    installer: Installer,
    leases: Leases,
    /// No longer wanted, and still diverted because of open connections.
    leaving: Selectors,
    /// Connections that held up the removal when they were last looked for.
    pub(crate) speaking: usize,
    leave_at: Option<Instant>,
    said_at: Option<Instant>,
    /// Until when connections of what an earlier run diverted count as copies, whoever has removed its rules: their
    /// holders may come back.
    former_until: Option<Instant>,
    /// Looks after what is diverted.
    pub(crate) lookout: Lookout,
    pub(crate) last: Verified,
    pub(crate) warnings: Warnings,
    pub(crate) trouble: Option<String>,
    pub(crate) counters: Counters,
}

impl Agent {
    /// Takes over what stands in the kernel: it is kept for the grace time, whoever held it.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub fn new(mut installer: Installer, now: Instant) -> Result<Self, InstallError> {
        let found = installer.diverted()?;
        let by_hand = match &installer.state().by_hand {
            Some(need) => need.selectors().unwrap_or_default(),
            None => Selectors::new(),
        };
        if !found.is_empty() {
            tracing::info!(
                "found {} diverting rules of an earlier run: they stay for {:?}, for their holders \
                 to come back",
                found.len(),
                installer.host().grace
            );
        }
        let until = now + installer.host().grace;
        let lookout = Lookout::new(now, &mut installer);
        let mut agent = Self {
            leases: Leases::new(found, until, by_hand),
            installer,
            leaving: Selectors::new(),
            speaking: 0,
            leave_at: None,
            said_at: None,
            former_until: Some(until),
            lookout,
            last: Verified::default(),
            warnings: Warnings::new(now),
            trouble: None,
            counters: Counters::default(),
        };
        // What a killed agent left half done is completed, or with nothing to divert removed.
        agent.settle(now);
        Ok(agent)
    }

    /// The leases.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// What is no longer wanted and still diverted.
    pub fn leaving(&self) -> &Selectors {
        &self.leaving
    }

    /// Why answers do not go where they should, if they do not: holders are told.
    pub fn unsound(&self) -> Option<&str> {
        self.lookout.unsound()
    }

    /// What it works with.
    pub fn installer(&mut self) -> &mut Installer {
        &mut self.installer
    }

    /// A holder asks for something, in place of what it had.
    ///
    /// # Errors
    /// Why not; then all is as it was before.
    pub fn hold(
        &mut self,
        now: Instant,
        holder: &str,
        stream: StreamId,
        need: Need,
        from: Option<IpAddr>,
    ) -> Result<Held, InstallError> {
        let result = self.try_hold(now, holder, stream, need, from);
        match &result {
            Ok(_) => self.counters.held += 1,
            Err(InstallError::Refused(_)) => self.counters.refused += 1,
            Err(InstallError::Kernel(_) | InstallError::State(_) | InstallError::Unverified(_)) => {
                self.counters.failed += 1;
            }
        }
        result
    }

    fn try_hold(
        &mut self,
        now: Instant,
        holder: &str,
        stream: StreamId,
        need: Need,
        from: Option<IpAddr>,
    ) -> Result<Held, InstallError> {
        if !self.leases.has_room_for(holder) {
            return Err(overloaded(format!(
                "there are {MAX_HOLDERS} holders already"
            )));
        }
        let judged = self.installer.judge(&need, from)?;
        let selectors = judged.selectors.clone();
        let mut wanted = self.leases.wanted_by_others(holder);
        wanted.extend(&selectors);
        if wanted.len() > MAX_SELECTORS {
            return Err(overloaded(format!(
                "all holders together would need {} rules, more than {MAX_SELECTORS}",
                wanted.len()
            )));
        }
        // What this holder gives up leaves as if its lease had ended.
        let mut leaving = self.leaving.clone();
        if let Some(lease) = self.leases.get(holder) {
            leaving.extend(&lease.selectors);
        }
        leaving.retain(|selector| !wanted.contains(selector));
        let all: Selectors = wanted.union(&leaving).copied().collect();

        if self.installer.host().manage_sysctl {
            self.installer.set(&judged.findings)?;
        }
        let before = self.diverted();
        self.last = self.installer.bring_about(&all, &before)?;
        self.lookout.changed(now, &mut self.installer);
        self.trouble = None;
        self.leases.hold(holder, stream, need, selectors);
        self.leaving = leaving;
        self.leave_at = Some(now);
        // As it is now: a setting may not be cured by setting it.
        let lasting = self.look_at(holder).unwrap_or_else(|error| {
            tracing::debug!("warnings are not looked at: {error}");
            Vec::new()
        });
        self.warnings.begin(now, holder, lasting, judged.cut);
        self.note_host();
        Ok(Held {
            verified: self.last.lookups,
            warnings: self.warnings.of(holder),
        })
    }

    fn look_at(&mut self, holder: &str) -> Result<Vec<String>, KernelError> {
        let Some(lease) = self.leases.get(holder) else {
            return Ok(Vec::new());
        };
        let snapshot = self.installer.glance()?;
        self.installer
            .review(&snapshot, &lease.need, &lease.selectors)
    }

    /// Notes what an operator should know of this host while anything is diverted.
    fn note_host(&mut self) {
        let floor = self.installer.no_floor();
        let lines = floor.into_iter().chain(self.installer.forgets());
        let is_active = !self.diverted().is_empty();
        self.warnings.of_the_host(lines.filter(|_| is_active));
    }

    /// Looks anew at what an operator should know.
    fn review(&mut self, now: Instant) {
        self.warnings.expire(now, &self.leases);
        if self.warnings.is_due(now) {
            self.installer.remember_again();
            let looked = self.installer.glance().and_then(|snapshot| {
                self.warnings.review(now, &self.leases, |lease| {
                    self.installer
                        .review(&snapshot, &lease.need, &lease.selectors)
                })
            });
            // Whether responses are diverted at all is the lookout's to say.
            if let Err(error) = looked {
                tracing::debug!("warnings are not looked at: {error}");
            }
        }
        self.note_host();
    }

    /// A holder's stream has ended.
    pub fn lost(&mut self, now: Instant, holder: &str, stream: StreamId) {
        let grace = self.installer.host().grace;
        if self.leases.lost(holder, stream, now, grace) {
            tracing::info!("holder {holder} is gone: its lease ends in {grace:?}");
        }
    }

    /// Whether what is diverted is to be looked at now, since somebody changed what it depends on, or
    /// the floor had to stop something.
    pub fn has_news(&mut self, now: Instant) -> bool {
        self.lookout.is_due(now, &mut self.installer)
    }

    /// All that is diverted.
    fn diverted(&self) -> Selectors {
        self.leases.wanted().union(&self.leaving).copied().collect()
    }

    /// To be called now and then.
    pub fn tick(&mut self, now: Instant) {
        let before = self.leases.wanted();
        for holder in self.leases.expire(now) {
            self.counters.expired += 1;
            tracing::info!("holder {holder} did not come back: its lease is over");
        }
        let wanted = self.leases.wanted();
        let over: Vec<_> = before.difference(&wanted).copied().collect();
        if !over.is_empty() {
            self.leaving.extend(over);
            self.leave_at = Some(now);
        }
        if self.leave_at.is_some_and(|at| at <= now) {
            self.leave(now);
        }
        let all = self.diverted();
        if self.former_until.is_some_and(|until| until <= now) {
            self.former_until = None;
            self.installer.remember_only(&all);
        }
        if let Some(verified) = self.lookout.look(now, &mut self.installer, &all) {
            self.counters.mended += 1;
            self.last = verified;
        }
        // What is to be mended comes first.
        self.review(now);
    }

    /// Removes what is leaving, if nothing of it can speak any more.
    fn leave(&mut self, now: Instant) {
        self.leave_at = None;
        // With nothing to remove there may still be something to complete, or to restore.
        if self.leaving.is_empty() && self.trouble.is_none() {
            return;
        }
        let wanted = self.leases.wanted();
        match self.silence(&wanted) {
            Ok((0, _)) => {}
            // More than are ended at once.
            Ok((_, None)) => {
                self.leave_at = Some(now);
                return;
            }
            Ok((speaking, why)) => {
                self.leave_at = Some(now + LEAVE_INTERVAL);
                if self.said_at.is_none_or(|at| at + SAY_INTERVAL <= now) {
                    self.said_at = Some(now);
                    // Not whose connection it was: clients are named at debug level only.
                    let why = why.map_or_else(String::new, |it| format!(" ({})", it.why));
                    tracing::warn!(
                        "{speaking} connections of copies are still open and cannot be ended from \
                         here{why}: their rules stay until they end; restart the tested application to \
                         end them at once"
                    );
                }
                return;
            }
            Err(error) => return self.in_trouble(now, &error),
        }
        if let Err(error) = self.remove_leaving(&wanted) {
            self.in_trouble(now, &error);
        }
    }

    fn remove_leaving(&mut self, wanted: &Selectors) -> Result<(), InstallError> {
        let before = self.diverted();
        self.last = self.installer.bring_about(wanted, &before)?;
        if self.former_until.is_none() {
            self.installer.remember_only(wanted);
        }
        self.leaving.clear();
        self.trouble = None;
        self.said_at = None;
        if wanted.is_empty() {
            self.installer.restore_settings()?;
            tracing::info!("nothing is diverted any more");
        }
        Ok(())
    }

    fn in_trouble(&mut self, now: Instant, error: &InstallError) {
        let text = error.to_string();
        if is_news(&mut self.trouble, &text) {
            tracing::error!(
                "what diverts responses cannot be completed or removed: {text}; trying again (/status has \
                 it until it can)"
            );
        }
        self.leave_at = Some(now + LEAVE_INTERVAL);
    }

    /// Ends the connections of what is leaving; how many are left, and why.
    fn silence(&mut self, kept: &Selectors) -> Result<(usize, Option<KernelError>), InstallError> {
        if self.leaving.is_empty() {
            self.speaking = 0;
            return Ok((0, None));
        }
        let mut speaking = self.installer.speaking(&self.leaving, kept)?;
        speaking.truncate(ENDED_AT_ONCE);
        let mut why = None;
        if !speaking.is_empty() {
            let ended;
            (ended, why) = self.installer.end_connections(&speaking);
            self.counters.connections_ended += u64::try_from(ended).unwrap_or(u64::MAX);
        }
        self.speaking = self.installer.speaking(&self.leaving, kept)?.len();
        Ok((self.speaking, why))
    }

    /// Completes or removes what an earlier run left half done.
    fn settle(&mut self, now: Instant) {
        let wanted = self.leases.wanted();
        let result = self.installer.put_right(&wanted).and_then(|verified| {
            self.last = verified;
            if wanted.is_empty() {
                self.installer.restore_settings()?;
            }
            Ok(())
        });
        if let Err(error) = result {
            self.in_trouble(now, &error);
        }
    }
}

/// Notes what is wrong. It is tried again every second or so: only what is new is to be said.
fn is_news(trouble: &mut Option<String>, text: &str) -> bool {
    if trouble.as_deref() == Some(text) {
        return false;
    }
    *trouble = Some(text.to_owned());
    true
}

fn overloaded(reason: String) -> InstallError {
    InstallError::Refused(Refusal {
        danger: Danger::Malformed,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_said_once() {
        let mut trouble = None;
        let said = ["no tcp_diag", "no tcp_diag", "no room", "no tcp_diag"];
        let said = said.map(|text| is_news(&mut trouble, text));
        assert_eq!(said, [true, false, true, true]);
        trouble = None;
        assert!(
            is_news(&mut trouble, "no tcp_diag"),
            "it was gone meanwhile"
        );
    }
}
