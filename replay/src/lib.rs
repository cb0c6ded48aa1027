//! The thread that joins capture, engine and sender.
//!
//! ```text
//!   devices ──▶ ring ──▶ intake (a thread) ─┐                      ┌──▶ raw or link-layer sender ──▶ target
//!               or files ──▶ feed ──────────┼─▶ shard (a thread) ──┤
//!   interceptors ──▶ inbox ─────────────────┤   with an engine     └──▶ routes ──▶ links to interceptors
//!                    or local answers ──────┘
//! ```
//!
//! - [`shard`]: the one thread that owns engine and sender; `clock`: its time.
//! - [`input`]: where the sessions come from: rings, or a recording. [`intake`]: the thread that empties the rings;
//!   [`priority`]: its place among all threads of the host.
//! - [`answers`]: where the targets' answers come from: links, or this host itself. [`inbox`]: what the links hand over;
//!   `moderation`: how often it is looked for; `transit`: how long it waited. [`local`]: a replay without an interceptor elsewhere.
//! - [`whereabouts`]: where live services are now, as addresses come and go.
//! - [`outlet`]: the sockets that packets leave through; [`conntrack`]: whether this host would track them.
//! - [`routes`]: the route protocol ([`millrace_routes`]) over links, of this engine's flows.
//! - [`probe`]: first contact: which hop is missing when answers do not come back.
//! - [`pressure`]: what is given up first when there is too much.
//! - [`may_send`] and [`consent`]: whom the shard asks before it sends: router-agents, and the cluster.
//! - [`commands`]: what operators ask for. [`snapshot`]: what the shard shows of itself.

pub mod answers;
mod clock;
pub mod commands;
pub mod conntrack;
pub mod consent;
pub mod inbox;
pub mod input;
pub mod intake;
pub mod local;
pub mod may_send;
mod moderation;
pub mod outlet;
pub mod pressure;
pub mod priority;
pub mod probe;
pub mod routes;
pub mod shard;
pub mod snapshot;
mod transit;
pub mod whereabouts;
