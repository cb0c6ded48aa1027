//! Who decides how much is copied at each moment: the ramp, the guards, and the operator.
//!
//! Without I/O and without a clock: time, what was counted and what the operator wants go in, an intensity comes out.
//!
//! - [`ramp`]: an intensity that changes over time.
//! - [`guard`]: what must not happen at the target, judged against the live server.
//! - `sight`: whether the targets' answers are seen at all.
//! - `command`: what operators ask for while the copier runs.
//! - `pilot`: the decisions.
//! - `status`: what operators are shown of them.
//!
//! Which sessions an intensity means is the engine's business: [`millrace_engine::Intensity`].

mod command;
pub mod guard;
mod pilot;
pub mod ramp;
mod sight;
mod status;

pub use command::Command;
pub use pilot::{Observed, Pilot, PilotConfig, Tick};
pub use sight::{Blindness, LinkSight, Sight, View};
pub use status::{Decision, GuardStatus, IntensityStatus, Mode, RampStatus};
