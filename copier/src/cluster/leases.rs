//! What this copier has from Consul for a time, and whether it may send by that.

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

/// Whether it may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Nothing is against it.
    Given,
    /// The sources may be another copier's.
    NoShare,
    /// It is not known how much may be sent.
    NoPlan,
}

impl Leases {
    /// Whether it may send at this moment.
    pub fn consent(&self) -> Consent {
        if !self.share.is_valid() {
            Consent::NoShare
        } else if !self.plan.is_valid() || !self.plan.is_noted() {
            Consent::NoPlan
        } else {
            Consent::Given
        }
    }
}
