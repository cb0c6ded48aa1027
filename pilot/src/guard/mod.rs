//! Guards: what must not happen at the target, judged against the live server.
//!
//! - `parse`: how rules are written.
//! - `sample`: what is counted, as sums since the start.
//! - `window`: what of it happened lately.
//! - `measure`: a rule's figure, from what happened lately.
//!
//! A guard only ever judges and says what to do; [`crate::Pilot`] does it. Nothing here can
//! reach the live server.

mod measure;
mod parse;
mod sample;
mod window;

use std::fmt;
use std::time::Duration;

pub use measure::Figure;
pub use sample::{Sample, Turns};
pub use window::{Recent, Window};

use millrace_notation::units;

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Metric {
    /// Of the connects that were decided, the part that was refused or whose SYN went unanswered.
    ConnectFailures,
    /// Of the replicas that ended, the part that the target reset.
    Resets,
    /// Of the turns that are decided, the part whose answer did not begin in time, beyond the part
    /// that the live server left without one. Where nothing is seen of the live server: the part at
    /// the target.
    Unanswered,
    /// The time to the first byte of an answer, at this quantile.
    Latency(f64),
}

/// The bound of a rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// A part of all, from 0 to 1.
    Share(f64),
    /// So many times the live server's figure.
    Times(f64),
    /// A time.
    Time(Duration),
}

/// What is done when a bound is passed, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// The ramp does not rise until the figure is good again.
    Hold,
    /// Back to where the last rise began; without one, half as much.
    StepBack,
    /// Nothing more is copied until an operator says so, and open replicas are ended.
    Stop,
}

/// A turn is overdue after this part of the window.
const OVERDUE_PART: u32 = 5;

/// How long a turn may wait for the first byte of its answer before it counts as unanswered, with
/// guards that look back on `window`.
pub fn overdue_after(window: Duration) -> Duration {
    window / OVERDUE_PART
}

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// What it looks at.
    pub metric: Metric,
    /// What must not be exceeded.
    pub limit: Limit,
    /// What to do then.
    pub action: Action,
}

/// Rules, in the order given; of those with the same action earlier ones go first.
#[derive(Debug, Clone, PartialEq)]
pub struct Guards(pub Vec<Guard>);

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailures => f.write_str("connect-failures"),
            Self::Resets => f.write_str("resets"),
            Self::Unanswered => f.write_str("unanswered"),
            Self::Latency(quantile) => {
                // Three digits are all that can be written.
                write!(f, "latency-p{}", (quantile * 100_000.0).round() / 1000.0)
            }
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{}%", (share * 100_000.0).round() / 1000.0),
            Self::Times(times) => write!(f, "{times}x"),
            Self::Time(time) => f.write_str(&units::show(*time)),
        }
    }
}

impl Action {
    /// The word for it in a rule.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::StepBack => "step-back",
            Self::Stop => "stop",
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}>{}:{}", self.metric, self.limit, self.action.name())
    }
}

impl fmt::Display for Guards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&rules.join(","))
    }
}
