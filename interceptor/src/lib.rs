//! The interceptor: runs where a target's responses end (a sink device or an assistant host),
//! and returns their headers to the copiers that own the flows.
//!
//! ```text
//!   copiers ──▶ route info ──▶ registry ─┐
//!                                        ├──▶ response headers ──▶ copiers
//!   devices, queue ──▶ sources ──────────┘
//! ```
//!
//! - [`cli`] and [`options`]: the command line. [`check`]: what keeps it from its work, found out before it runs.
//! - [`daemon`]: puts the parts together, and ends them.
//! - [`worker`]: the one thread that owns the sources and the registry
//!   ([`millrace_routes::interceptor::Registry`]: whose a response is).
//! - [`rings`]: the devices that are captured, and by which filter.
//! - [`source`] and [`queue`]: devices and an NFQUEUE as sources of responses.
//! - [`forwarding`]: serves nobody on an assistant that would send on what is diverted to it.
//! - [`tracer`]: looks for copiers' probes that stay unanswered; `obstacle`: why.
//! - [`payload`]: which packets are captured with their payload.
//! - [`outgoing`]: headers on their way, one batch for each stream.
//! - [`counters`] and [`metrics`]: what was seen; `headline`: how it stands, in one sentence.

pub mod check;
pub mod cli;
pub mod counters;
pub mod daemon;
pub mod forwarding;
mod headline;
pub mod metrics;
mod obstacle;
pub mod options;
pub mod outgoing;
pub mod payload;
pub mod queue;
pub mod rings;
pub mod source;
pub mod tracer;
pub mod worker;
