//! What this copier has from Consul for a time, and whether it may send by that.

use std::sync::Arc;
use std::time::Duration;

use millrace_pilot::{FleetPlan, Note};
use millrace_replay::consent::{ClusterConsent, Consent};

use super::plan::ClusterPlan;
use super::share::Claim;

/// What it has; where it needs nothing of Consul, everything is its own for ever. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    /// Its share of the sources.
    pub share: Claim,
    /// The cluster's plan.
    pub plan: ClusterPlan,
}

impl ClusterConsent for Leases {
    fn consent(&self) -> Consent {
        if !self.share.is_valid() {
            Consent::NoShare
        } else if !self.plan.is_valid() || !self.plan.is_noted() {
            Consent::NoPlan
        } else {
            Consent::Given
        }
    }

    fn has_lost_share(&self) -> bool {
        self.share.is_lost()
    }

    fn plan(&self) -> Option<(Arc<FleetPlan>, Duration)> {
        self.plan.now()
    }

    fn is_noted(&self) -> bool {
        self.plan.is_noted()
    }

    fn note(&self, note: Note) {
        self.plan.note(note);
    }
}
