//! Whether the cluster that a copier is part of lets it send, and how much.

use std::sync::Arc;
use std::time::Duration;

use millrace_pilot::{FleetPlan, Note};

/// Whether this copier may send, by what it has of its cluster for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Nothing is against it.
    Given,
    /// The sources may be another copier's.
    NoShare,
    /// It is not known how much may be sent.
    NoPlan,
}

/// The cluster, as the shard asks it: several times in each of its rounds, so that no answer may take long.
pub trait ClusterConsent: Send {
    /// Whether this copier may send at this moment.
    fn consent(&self) -> Consent;

    /// Whether the sources are another copier's for good: this one has to end.
    fn has_lost_share(&self) -> bool;

    /// The plan as it is known, where one is followed, and how old what is known is.
    fn plan(&self) -> Option<(Arc<FleetPlan>, Duration)>;

    /// Whether the pilot has noted what the plan says now: before, nothing is sent by it.
    fn is_noted(&self) -> bool;

    /// Takes what the plan is to know of this copier.
    fn note(&self, note: Note);
}
