//! The router-agent: installs, verifies, leases and removes the routes that divert a target's
//! responses from the real clients.
//!
//! ```text
//!   copiers ──▶ Hold streams ──▶ thread ──▶ agent ──▶ install ──▶ kernel
//!                                             │          │
//!                                          leases     plan (pure)
//! ```
//!
//! - [`options`], [`daemon`], [`oneshot`]: the program.
//! - [`check`]: what keeps this host's responses from being diverted, found out before.
//! - [`host`], [`need`]: what the operator has set, and what is asked for.
//! - [`plan`]: pure: which steps lead from the kernel's state to the one wanted, and which plans
//!   are refused.
//! - [`kernel`]: what there is, one change (`step`), and making it.
//! - [`install`]: brings a plan about, verifies it by route look-ups (`verify`), rolls back.
//! - [`settings`]: kernel settings on which diverting depends.
//! - [`state`]: what must outlive the process and is not in the kernel.
//! - [`leases`], [`agent`], [`thread`]: who holds what, and the thread that owns it.
//! - [`lookout`]: whether what is diverted still is.
//! - [`status`], [`metrics`]: what an operator sees; `headline`: how it stands, in one sentence.

pub mod agent;
pub mod check;
pub mod daemon;
mod headline;
pub mod host;
pub mod install;
pub mod kernel;
pub mod leases;
pub mod lookout;
pub mod metrics;
pub mod need;
pub mod oneshot;
pub mod options;
pub mod plan;
pub mod settings;
pub mod state;
pub mod status;
pub mod thread;
pub mod warnings;
