//! Who decides how much is copied at each moment: the ramp, the guards, and the operator.
//!
//! - `pilot`: the decisions, as a function of time and samples.
//! - `command`: what operators ask for while the copier runs.
//! - `status`: what they are shown.
//! - `http`: both, on the admin port.

mod command;
mod http;
mod pilot;
mod status;

pub use command::{Command, Commands};
pub use http::routes;
pub use pilot::{Pilot, PilotConfig, Tick};
pub use status::{Decision, GuardStatus, IntensityStatus, Mode, RampStatus};
