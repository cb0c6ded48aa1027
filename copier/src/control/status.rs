//! What operators are shown of the intensity, in the report and at /status and /intensity.

use serde::Serialize;

/// How much is copied, and why.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IntensityStatus {
    /// Replicas per session that begins now.
    pub now: f64,
    /// `running`, `held` (by a guard), `paused` (by the operator) or `stopped` (by a guard).
    pub mode: &'static str,
    /// The ramp, if one is followed.
    pub ramp: Option<RampStatus>,
    /// The guards.
    pub guards: Vec<GuardStatus>,
    /// The last decisions, oldest first.
    pub decisions: Vec<Decision>,
}

/// Where a ramp stands.
#[derive(Clone, Debug, Serialize)]
pub struct RampStatus {
    /// The ramp as it is written.
    pub stages: String,
    /// How far it has come, in seconds; it stands still while it is held.
    pub position_seconds: f64,
    /// How long it takes, in seconds.
    pub length_seconds: f64,
}

/// What a guard sees.
#[derive(Clone, Debug, Serialize)]
pub struct GuardStatus {
    /// The rule as it is written.
    pub rule: String,
    /// The figure that it looks at, as its limit is written: a part of all, how many times the
    /// live server's, or seconds; null while there is nothing to look at.
    pub value: Option<f64>,
    /// From how many events.
    pub count: u64,
    /// Whether the rule is broken.
    pub broken: bool,
}

/// Something that was decided.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// Seconds since the start.
    pub at_seconds: f64,
    /// What was decided, and on which figures.
    pub what: String,
    /// The intensity afterwards.
    pub intensity: f64,
}
