//! What all replicas of a module have in common, and which requests it lets through.

use std::sync::Arc;

use super::book::Shared;
use super::head::Head;
use super::path::{self, Path};
use super::settings::{Settings, TokenRule};
use super::text::{Selector, Spot};
use crate::writes::WriteGuard;

/// What all replicas of a module have in common.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) settings: Settings,
    pub(super) rules: Arc<[TokenRule]>,
    pub(super) guard: WriteGuard,
    pub(super) shared: Arc<Shared>,
}

impl Terms {
    /// Whether replicas listen to the target.
    pub(super) fn listens(&self) -> bool {
        self.settings.exact_ends || !self.rules.is_empty()
    }

    /// Whether a request is chosen, and may be sent; counts it.
    pub(super) fn permits(&self, head: &Head<'_>, path: &Path<'_>) -> bool {
        let writes = path::writes(head);
        if !writes && self.are_open() {
            return true;
        }
        let settings = &self.settings;
        let path = path.get();
        let is_in = |all: &[Selector]| all.iter().any(|it| it.chooses(head, path));
        let is_chosen =
            (settings.only.is_empty() || is_in(&settings.only)) && !is_in(&settings.except);
        let method = String::from_utf8_lossy(head.method());
        // Requests may follow that nobody sees.
        let is_seen = !head.asks_for("h2c") || self.permits_preface();
        is_chosen && is_seen && self.guard.permits(&path::digest(&method, path), writes)
    }

    /// Whether HTTP/2 may be sent, of which nothing is read.
    pub(super) fn permits_preface(&self) -> bool {
        let settings = &self.settings;
        settings.only.is_empty() && settings.except.is_empty() && self.guard.permits("PRI *", true)
    }

    /// Whether every request is sent.
    pub(super) fn are_open(&self) -> bool {
        let settings = &self.settings;
        settings.only.is_empty() && settings.except.is_empty() && self.guard.is_open()
    }

    /// Whether a rule reaches values in the bodies of requests.
    pub(super) fn swaps_bodies(&self) -> bool {
        let mut places = self.rules.iter().flat_map(|rule| &rule.to);
        places.any(|place| matches!(place.spot, Spot::Form | Spot::Json))
    }
}
