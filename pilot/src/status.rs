//! What operators are shown of the intensity, in the report and at /status and /intensity.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How much is copied, and why.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct IntensityStatus {
    /// Replicas per session that begins now, but for the factor.
    pub now: f64,
    /// How many replicas each chosen session gets for one: `-n` beside `-r`.
    #[serde(default = "once")]
    pub factor: u16,
    /// How things stand.
    pub mode: Mode,
    /// The ramp, if one is followed.
    pub ramp: Option<RampStatus>,
    /// What guards that stepped back without a rise to go back on have left of it: a half, a
    /// quarter, ...; null: all. `ctl resume` takes it back.
    #[serde(default)]
    pub scale: Option<f64>,
    /// Why guards do not judge, while they do not.
    #[serde(default)]
    pub blind: Option<String>,
    /// The guards.
    pub guards: Vec<GuardStatus>,
    /// The last decisions, oldest first.
    pub decisions: Vec<Decision>,
    /// The plan of the cluster, where it is followed: no more is copied than it says.
    #[serde(default)]
    pub plan: Option<PlanStatus>,
}

/// A plan of a cluster, as one copier sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanStatus {
    /// Counts what was decided; 0: no plan is known.
    pub edition: u64,
    /// Replicas per session that begins now.
    pub now: f64,
    /// How things stand.
    pub mode: Mode,
    /// What guards that stepped back have left of it; null: all.
    #[serde(default)]
    pub scale: Option<f64>,
    /// The ramp, if one is followed.
    pub ramp: Option<RampStatus>,
    /// Its guards, as they are seen here.
    pub guards: Vec<GuardStatus>,
    /// What was decided, oldest first.
    pub changes: Vec<Change>,
}

fn once() -> u16 {
    1
}

/// How things stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The ramp goes on, or there is none.
    #[default]
    Running,
    /// A guard holds it.
    Held,
    /// The operator has paused.
    Paused,
    /// A guard has stopped everything; of a cluster's plan, an operator may have.
    Stopped,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Held => "held by a guard",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// Where a ramp stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RampStatus {
    /// The ramp as it is written.
    pub stages: String,
    /// How far it has come, in seconds; it stands still while it is held.
    pub position_seconds: f64,
    /// How long it takes, in seconds.
    pub length_seconds: f64,
    /// It stands still because nothing can be sent, or its guards cannot judge.
    #[serde(default)]
    pub waiting: bool,
}

/// What a guard sees.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// It compares with the live server, of which too few answers are seen.
    #[serde(default)]
    pub lacks_live: bool,
}

/// Something that was decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Decision {
    /// Seconds since the start.
    pub at_seconds: f64,
    /// What was decided, and on which figures.
    pub what: String,
    /// The intensity afterwards.
    pub intensity: f64,
}

/// Something that was decided, and by whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// When, in seconds since 1970 by the clock of whoever decided.
    pub at: u64,
    /// Who: an operator as `USER@HOST`, or a copier by its name.
    pub by: String,
    /// What, and on which figures.
    pub what: String,
    /// The intensity afterwards.
    pub intensity: f64,
    /// Whether it was a guard's.
    #[serde(default)]
    pub guard: bool,
}

impl fmt::Display for RampStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:.0} of {:.0} s",
            self.stages, self.position_seconds, self.length_seconds
        )
    }
}

impl fmt::Display for GuardStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule)?;
        match self.value {
            Some(value) => write!(f, "{value:.3} from {}", self.count)?,
            None if self.lacks_live => {
                f.write_str("too few answers of the live server to compare with")?;
            }
            None => f.write_str("nothing to judge yet")?,
        }
        f.write_str(if self.broken { ", broken" } else { "" })
    }
}

impl fmt::Display for IntensityStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = match self.factor {
            0 | 1 => String::new(),
            factor => format!(" times {factor} for each session that it chooses"),
        };
        writeln!(f, "intensity {}{times} ({})", self.now, self.mode)?;
        if let Some(ramp) = &self.ramp {
            let waits = match (ramp.waiting, &self.blind) {
                (true, Some(_)) => ", waits until guards can judge",
                (true, None) => ", waits until something can be sent",
                (false, _) => "",
            };
            writeln!(f, "  ramp    {ramp}{waits}")?;
        }
        if let Some(scale) = self.scale {
            writeln!(
                f,
                "  scale   {scale}: a guard has stepped back; `ctl resume` takes it back"
            )?;
        }
        if let Some(blind) = &self.blind {
            writeln!(f, "  guards do not judge: {blind}")?;
        }
        for guard in &self.guards {
            writeln!(f, "  guard   {guard}")?;
        }
        for decision in &self.decisions {
            writeln!(f, "  {:>7.1} s {}", decision.at_seconds, decision.what)?;
        }
        let Some(plan) = &self.plan else {
            return Ok(());
        };
        if plan.edition == 0 {
            return writeln!(
                f,
                "  plan    of the cluster: not known: nothing new is copied"
            );
        }
        writeln!(
            f,
            "  plan    of the cluster, edition {}: {} ({})",
            plan.edition, plan.now, plan.mode
        )?;
        if let Some(ramp) = &plan.ramp {
            writeln!(f, "  plan's ramp  {ramp}")?;
        }
        for guard in &plan.guards {
            writeln!(f, "  plan's guard {guard}")?;
        }
        Ok(())
    }
}
