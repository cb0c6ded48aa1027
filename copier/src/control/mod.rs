//! What operators see and change of a running copier: how much is copied, and what is logged.
//!
//! - `socket`: the Unix socket over which commands come, and who may use it.
//! - `http`: commands on that socket, and what is shown on the admin port.

mod http;
mod socket;

pub use http::{commands, shown};
pub use socket::{CommandSocket, default_path, instances};
