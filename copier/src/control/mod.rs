//! Who decides how much is copied at each moment: the ramp, the guards, and the operator.
//!
//! - `pilot`: the decisions, as a function of time and samples.
//! - `sight`: whether the targets' answers are seen at all.
//! - `command`: what operators ask for while the copier runs.
//! - `status`: what they are shown.
//! - `http`: both, on the admin port.
//! - `browser`: keeps web pages from it.

mod browser;
mod command;
mod http;
mod pilot;
mod sight;
mod status;

pub use command::{Command, Commands};
pub use http::routes;
pub use pilot::{Observed, Pilot, PilotConfig, Tick};
pub use sight::{Blindness, LinkSight, Sight, View};
pub use status::{Decision, GuardStatus, IntensityStatus, Mode, RampStatus};
