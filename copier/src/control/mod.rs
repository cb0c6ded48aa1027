//! Who decides how much is copied at each moment: the ramp, the guards, and the operator.
//!
//! - `pilot`: the decisions, as a function of time and samples.
//! - `sight`: whether the targets' answers are seen at all.
//! - `command`: what operators ask for while the copier runs.
//! - `status`: what they are shown.
//! - `socket`: the Unix socket over which commands come, and who may use it.
//! - `http`: commands on that socket, and what is shown on the admin port.

mod command;
mod http;
mod pilot;
mod sight;
mod socket;
mod status;

pub use command::{Command, Commands};
pub use http::{commands, shown};
pub use pilot::{Observed, Pilot, PilotConfig, Tick};
pub use sight::{Blindness, LinkSight, Sight, View};
pub use socket::{CommandSocket, default_path, instances};
pub use status::{Decision, GuardStatus, IntensityStatus, Mode, RampStatus};
