//! Pure planning: from the kernel's state to the one wanted.
//!
//! - [`layout`]: what stands in the kernel when given packets are diverted.
//! - [`floor`]: what drops the rest, should something else lead it past.
//! - [`ours`]: what of the kernel's state is ours.
//! - [`mod@changes`]: the steps from here to there, in an order that leaks nothing at any moment.
//! - [`refusal`]: plans that would hurt this host; `connections`: those that would cut some off.

pub mod changes;
mod connections;
pub mod floor;
pub mod layout;
pub mod ours;
pub mod refusal;

pub use changes::changes;
pub use layout::{Layout, Ways};
pub use refusal::{Circumstances, Danger, Refusal};
