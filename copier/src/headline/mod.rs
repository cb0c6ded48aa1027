//! Whether this copier copies, in one sentence, and if not, why and what to do: at /status, in `millrace-copier status`,
//! and in the log.
//!
//! - `causes`: what keeps a copier from copying, the first cause first.
//! - `remedies`: what reasons mean, and what helps.
//! - `window`: what happened lately.
//! - `listeners`: where this host listens.
//! - `watch`: what is said in the log, and when.

mod causes;
mod listeners;
mod remedies;
mod watch;
mod window;

use std::fmt;
use std::sync::{Arc, Mutex};

use millrace_fleet::address::Mapping;
use millrace_fleet::hold::HoldStatus;
use millrace_fleet::link::LinkStatus;
use millrace_fleet::sync::lock;
use serde::{Deserialize, Serialize};

pub use watch::follow;
pub use window::Recent;
use window::Window;

use crate::agents::Agents;
use crate::interceptors::Interceptors;
use crate::report::Report;
use crate::shard::Shared;

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

/// One sentence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Headline {
    /// How things stand.
    pub state: State,
    /// The same in words, with the cause.
    pub sentence: String,
    /// What to do, where something is to be done.
    pub next: Option<String>,
    /// What goes wrong besides, worst first.
    pub also: Vec<String>,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    services: &'a [Mapping],
    report: &'a Report,
    recent: &'a Recent,
    links: &'a [LinkStatus],
    agents: &'a [HoldStatus],
}

/// Whoever knows the present state of the copier.
#[derive(Clone)]
pub struct Monitor {
    services: Arc<[Mapping]>,
    shared: Shared,
    interceptors: Interceptors,
    agents: Agents,
    window: Arc<Mutex<Window>>,
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor").finish_non_exhaustive()
    }
}

impl Monitor {
    /// A monitor of a copier of these services.
    pub fn new(
        services: &[Mapping],
        shared: Shared,
        interceptors: Interceptors,
        agents: Agents,
    ) -> Self {
        Self {
            services: services.into(),
            shared,
            interceptors,
            agents,
            window: Arc::default(),
        }
    }

    /// What is copied, as `-x` says it.
    pub fn services(&self) -> String {
        let services: Vec<String> = self.services.iter().map(ToString::to_string).collect();
        services.join(",")
    }

    /// How things stand.
    pub fn headline(&self, report: &Report) -> Headline {
        let recent = self.recent(report);
        causes::headline(&Facts {
            services: &self.services,
            report,
            recent: &recent,
            links: &self.interceptors.status(),
            agents: &self.agents.status(),
        })
    }

    /// What happened in the last minute.
    pub fn recent(&self, report: &Report) -> Recent {
        lock(&self.window).recent(report)
    }
}
