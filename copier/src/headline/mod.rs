//! Whether this copier copies, in one sentence, and if not, why and what to do: at /status, in `millrace-copier status`,
//! and in the log.
//!
//! - `causes`: what keeps a copier from copying, the first cause first.
//! - `remarks`: what goes wrong while others go on; `words`: parts and figures in words.
//! - `remedies`: what reasons mean, and what helps.
//! - `window`: what happened lately; `aside`: what takes time to find out of this host.
//! - `watch`: what is said in the log, and when.

mod aside;
mod causes;
mod remarks;
mod remedies;
mod watch;
mod window;
mod words;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use millrace_channel::hold::HoldStatus;
use millrace_channel::link::LinkStatus;
use millrace_daemon::check::{Level, host};
use millrace_daemon::status;
use millrace_notation::address::Mapping;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use self::aside::Aside;
pub use self::watch::follow;
pub use self::window::Recent;
use self::window::Window;
pub(crate) use self::words::percent;

use crate::cluster::fleet::{Fleet, Known};
use crate::cluster::leases::Leases;
use crate::pods::{KnownPods, ServicePods};
use crate::report::Report;
use crate::report::Shared;
use crate::sockets::Listeners;

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Sessions are copied.
    Copying,
    /// Nothing keeps it from copying, and no client speaks.
    Idle,
    /// Something keeps it from copying.
    NotCopying,
}

/// What keeps a copier from copying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It has just begun.
    Starting,
    /// A guard has stopped it.
    Stopped,
    /// The operator has paused it, or wants nothing copied.
    Operator,
    /// It is ending, or interceptors hold it back.
    HeldBack,
    /// No interceptor is connected.
    Interceptors,
    /// A router-agent does not keep responses from real clients.
    RouterAgents,
    /// Its share of the sources may be another copier's.
    Share,
    /// The cluster's plan is not known.
    Plan,
    /// The pods of its services are not known.
    Pods,
    /// No probe of a target has come back.
    FirstContact,
    /// No packet of a client has been seen.
    Silence,
    /// Targets refuse connections, or sessions are refused.
    Refused,
    /// Targets acknowledge nothing any more.
    Stalled,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Starting,
        Self::Stopped,
        Self::Operator,
        Self::HeldBack,
        Self::Interceptors,
        Self::RouterAgents,
        Self::Share,
        Self::Plan,
        Self::Pods,
        Self::FirstContact,
        Self::Silence,
        Self::Refused,
        Self::Stalled,
    ];

    /// The name in /status and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Stopped => "stopped",
            Self::Operator => "operator",
            Self::HeldBack => "held_back",
            Self::Interceptors => "interceptors",
            Self::RouterAgents => "router_agents",
            Self::Share => "share",
            Self::Plan => "plan",
            Self::Pods => "pods",
            Self::FirstContact => "first_contact",
            Self::Silence => "silence",
            Self::Refused => "refused",
            Self::Stalled => "stalled",
        }
    }

    /// Whether the log is told of it here: the others are told by whoever finds them.
    const fn is_news(self) -> bool {
        matches!(self, Self::Silence | Self::Refused | Self::Stalled)
    }
}

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Headline {
    /// How things stand.
    pub state: State,
    /// What keeps it from copying.
    pub cause: Option<Cause>,
    /// The same in words.
    pub sentence: String,
    /// What to do, where something is to be done.
    pub next: Option<String>,
    /// What goes wrong besides, worst first.
    pub also: Vec<Remark>,
}

/// Something that goes wrong while others go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// What it is about: a reason, or the name of a part. It stays the same while figures change.
    pub about: String,
    /// What goes wrong, and what helps.
    pub text: String,
    /// Whether the log is told of it here.
    #[serde(skip)]
    is_news: bool,
}

/// What is known.
#[derive(Clone, Copy)]
struct Facts<'a> {
    services: &'a [Mapping],
    /// The pods of those services that are in pods.
    pods: &'a [ServicePods],
    report: &'a Report,
    recent: &'a Recent,
    links: &'a [LinkStatus],
    agents: &'a [HoldStatus],
    /// What is known of where they are: interceptors, and router-agents.
    known: &'a [Known; 2],
    /// Why the sources may be another copier's, if they may.
    unowned: Option<&'a str>,
    /// Why it is not known how much may be sent, if it is not.
    unplanned: Option<&'a str>,
    /// Why guards of the plan act for this copier alone.
    mute: Option<&'a str>,
    /// How an operator begins a command for the cluster's plan.
    plan_command: &'a str,
    /// Where this host listens, once that is known.
    listeners: &'a dyn Fn() -> Option<Arc<Listeners>>,
    /// Why the report may find no place, if so.
    room: &'a Option<String>,
}

/// Whoever knows the present state of the copier.
#[derive(Clone)]
pub struct Monitor {
    services: Arc<[Mapping]>,
    shared: Shared,
    fleet: Fleet,
    pods: KnownPods,
    leases: Leases,
    /// Where the report goes to in the end.
    file: Option<Arc<Path>>,
    window: Arc<Mutex<Window>>,
    listeners: Aside<Arc<Listeners>>,
    room: Aside<String>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// A monitor of a copier of these services, whose report goes to this file.
    pub fn new(
        (services, file): (&[Mapping], Option<&Path>),
        shared: Shared,
        (fleet, pods): (Fleet, KnownPods),
        leases: Leases,
    ) -> Self {
        Self {
            services: services.into(),
            file: file.map(Arc::from),
            shared,
            fleet,
            pods,
            leases,
            window: Arc::default(),
            listeners: Aside::default(),
            room: Aside::default(),
        }
    }

    /// What is copied, as `-x` says it.
    pub fn services(&self) -> String {
        let services: Vec<String> = self.services.iter().map(ToString::to_string).collect();
        services.join(",")
    }

    /// The pods of services that are in pods.
    pub fn pods(&self) -> Vec<ServicePods> {
        self.pods.now()
    }

    /// How things stand.
    pub fn headline(&self, report: &Report) -> Headline {
        let recent = self.recent(report);
        causes::headline(&Facts {
            services: &self.services,
            pods: &self.pods.now(),
            report,
            recent: &recent,
            links: &self.fleet.interceptors().status(),
            agents: &self.fleet.agents().status(),
            known: &self.fleet.known(),
            unowned: self.leases.share.obstacle().as_deref(),
            unplanned: self.leases.plan.obstacle().as_deref(),
            mute: self.leases.plan.mute().as_deref(),
            plan_command: &self.leases.plan.command(),
            listeners: &|| {
                let read = || Listeners::read().map(Arc::new);
                self.listeners.known("listeners", read)
            },
            room: &self.room(),
        })
    }

    /// Why the report may find no place in the end, as it was found last.
    fn room(&self) -> Option<String> {
        let file = self.file.clone()?;
        self.room.known("room", move || {
            let verdict = host::file(&file, "--report");
            let next = verdict.next.unwrap_or_default();
            (verdict.level > Level::Ok)
                .then(|| format!("the report may find no place: {}: {next}", verdict.found))
        })
    }

    /// How things stand now, in words.
    pub fn sentence(&self) -> String {
        self.headline(&self.shared.report()).sentence
    }

    /// How things stand now, for the other copiers of the cluster to read.
    pub fn told(&self) -> status::Headline {
        let report = self.shared.report();
        let headline = self.headline(&report);
        let state = match headline.state {
            State::Copying => status::State::Working,
            State::Idle => status::State::Idle,
            State::NotCopying => status::State::NotWorking,
        };
        let plan = report.intensity.plan.as_ref();
        let follows = match plan.map(|plan| plan.edition) {
            None => "; follows no plan".to_owned(),
            Some(0) => "; knows no plan".to_owned(),
            Some(edition) => format!("; follows edition {edition} of the plan"),
        };
        status::Headline::new(state, headline.sentence + &follows)
    }

    /// What happened in the last minute.
    pub fn recent(&self, report: &Report) -> Recent {
        self.window.lock().recent(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_one_name_everywhere() {
        let page = include_str!("../page/page.js");
        let alerts = include_str!("../../../docs/alerts.md");
        for cause in Cause::ALL {
            let name = cause.name();
            assert_eq!(serde_json::to_value(cause).unwrap(), name);
            assert!(page.contains(&format!("\n  {name}: [")), "{name}");
            let has_alert = !matches!(cause, Cause::Starting | Cause::Stopped | Cause::Operator);
            assert_eq!(
                alerts.contains(&format!("\n| `{name}` | ")),
                has_alert,
                "{name}"
            );
        }
    }
}
