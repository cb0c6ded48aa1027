//! The router-agent: installs, verifies, leases and removes the routes that divert a target's
//! responses from the real clients.
//!
//! - [`options`], [`daemon`], [`oneshot`]: the program.
//! - [`host`], [`need`], [`cidr`]: what the operator has set, and what is asked for.
//! - [`plan`]: pure: which steps lead from the kernel's state to the one wanted, and which plans
//!   are refused.
//! - [`step`], [`kernel`]: one change, and making it.
//! - [`install`]: brings a plan about, verifies it by route look-ups, rolls back.
//! - [`leases`], [`agent`]: who holds what, and the agent's one thread.
//! - [`service`]: the gRPC side.

pub mod cidr;
pub mod host;
pub mod install;
pub mod kernel;
pub mod leases;
pub mod need;
pub mod plan;
pub mod settings;
pub mod state;
pub mod step;
pub mod verify;
