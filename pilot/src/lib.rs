//! Who decides how much is copied at each moment: the ramp, the guards, and the operator.
//!
//! Without I/O and without a clock: time, what was counted and what the operator wants go in, an intensity comes out.
//!
//! - [`ramp`]: an intensity that changes over time.
//! - [`guard`]: what must not happen at the target, judged against the live server.
//! - `sight`: whether the targets' answers are seen at all.
//! - `command`: what operators ask for while the copier runs.
//! - `course`: how much is wanted, and how far it has come; `judge`: what guards see under it, and demand.
//! - `pilot`: the decisions of one copier, from what it has `observed`.
//! - `fleet_plan`: those of a cluster, as one record; `follower`: what a copier makes of it; `driver`: when it writes there.
//! - `status`: what operators are shown of them.
//!
//! Which sessions an intensity means is the engine's business: [`millrace_engine::Intensity`].

mod command;
mod course;
mod driver;
mod fleet_plan;
mod follower;
pub mod guard;
mod judge;
mod observed;
mod pilot;
pub mod ramp;
mod sight;
mod status;

pub use command::Command;
pub use course::{Course, Wanted};
pub use driver::{Driver, Entry};
pub use fleet_plan::{FleetGuards, FleetPlan, PlanError, Signed};
pub use follower::Note;
pub use judge::Demand;
pub use observed::Observed;
pub use pilot::{Pilot, PilotConfig, Tick};
pub use sight::{Blindness, LinkSight, Sight, View};
pub use status::{Change, Decision, GuardStatus, IntensityStatus, Mode, PlanStatus, RampStatus};
