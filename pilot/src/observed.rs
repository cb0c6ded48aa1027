//! What a pilot sees at one moment.

use std::sync::Arc;
use std::time::Duration;

use crate::fleet_plan::FleetPlan;
use crate::guard::Sample;
use crate::sight::View;

/// What a pilot sees.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Whether anything can be sent: without, a ramp stands still.
    pub flowing: bool,
    /// Whether copies are open.
    pub open: bool,
    /// Whether answers are seen: while they are not, guards do not judge, and a ramp that has guards
    /// stands still.
    pub view: View,
    /// What was counted; `None` without guards.
    pub sample: Option<Sample>,
    /// The cluster's plan as it is known, and how old what is known is.
    pub plan: Option<(Arc<FleetPlan>, Duration)>,
}
