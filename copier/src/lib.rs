//! The copier: runs on the live server, captures the sessions of live services, and replays each
//! of them towards the target.
//!
//! ```text
//!   devices ──▶ ring ──▶ intake ─┐                       ┌──▶ raw or link-layer sender ──▶ target
//!                    (a thread)  ├──▶ shard (a thread) ──┤
//!   interceptors ──▶ inbox ──────┘    with an engine     └──▶ route info ──▶ links to interceptors
//! ```
//!
//! - [`cli`]: which command is run; without one it is the daemon. [`command`]: their names.
//! - [`check`]: what keeps it from its work, found out before it runs.
//! - [`check_config`]: the command that explains options in words.
//! - [`ctl`]: the commands that tell a running copier how much to copy, and show how it stands.
//! - [`headline`]: whether it copies, in one sentence, and if not, why.
//! - [`page`]: the same and the figures, over time, for a browser.
//! - [`options`] and [`plan`]: what the operator asked for, checked before anything is touched.
//! - `outlet`: the sockets that packets leave through.
//! - [`daemon`]: puts the parts together, and ends them.
//! - [`inspect`]: what recordings hold.
//! - [`local`]: a recording replayed without an interceptor elsewhere.
//! - `outcome`: whether a replay came to what was asked for.
//! - [`intake`]: the thread that empties the capture ring.
//! - `priority`: the place of that thread among all of the host.
//! - [`shard`]: the one thread that owns engine and sender; `clock`: its time.
//! - [`pressure`]: what is given up first when there is too much.
//! - [`interceptors`]: the links to them.
//! - [`agents`]: router-agents, without whose hold nothing is sent; [`diversion`]: whether they hold.
//! - [`cluster`]: which of both there are, and what this copier has of Consul; [`reload`]: the lists may change at SIGHUP.
//! - [`probe`]: first contact: which hop is missing when answers do not come back.
//! - [`inbox`]: what the gRPC side hands to that thread.
//! - [`routes`]: the route protocol ([`millrace_routes`]) over this copier's links, of this engine's flows.
//! - [`control`]: what operators change of it while it runs.
//! - [`record`]: live traffic into files.
//! - `sockets`: where this host listens, and for whom.
//! - [`tunnels`]: which tunnels of a recording or of a mirror are looked into.
//! - [`report`] and [`metrics`]: what a run amounts to, for people and for Prometheus.

mod address_watch;
mod addresses;
pub mod agents;
pub mod check;
pub mod check_config;
pub mod cli;
mod clock;
pub mod cluster;
pub mod command;
mod conntrack;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod diversion;
pub mod headline;
pub mod inbox;
pub mod inspect;
pub mod intake;
pub mod interceptors;
pub mod local;
pub mod metrics;
pub mod moderation;
pub mod options;
mod outcome;
mod outlet;
pub mod page;
pub mod plan;
pub mod pressure;
mod priority;
pub mod probe;
pub mod record;
pub mod reload;
pub mod report;
pub mod routes;
pub mod shard;
mod sockets;
pub mod tunnels;
