//! Both ends of the route protocol: what a copier tells interceptors of its flows, and how an interceptor knows whose a
//! response is.
//!
//! - [`copier`]: which interceptors are told of which flows, and all of it again after a reconnect.
//! - [`interceptor`]: who owns a flow, by announcement or by claim.
//! - `batch`: records packed to the size that is worth sending.
//!
//! Nothing here waits, reads a clock or knows a socket. Each end takes in what the other says, one message after the
//! other, and says what is to be sent: a copier through an [`copier::Uplink`], an interceptor as
//! [`interceptor::Word`]s. So both ends are run together in one thread, over links that fail in every way
//! (`tests/simulation.rs`).

mod batch;
pub mod copier;
pub mod interceptor;

pub use batch::Batch;
