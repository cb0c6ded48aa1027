//! The copier: runs on the live server, captures the sessions of live services, and replays each
//! of them towards the target.
//!
//! This crate is what the operator sees and says, and the wiring; what works is in [`millrace_replay`].
//!
//! - [`cli`]: which command is run; without one it is the daemon. [`command`]: their names.
//! - [`check`]: what keeps it from its work, found out before it runs.
//! - [`check_config`]: the command that explains options in words.
//! - [`ctl`]: the commands that tell a running copier how much to copy, and show how it stands.
//! - [`headline`]: whether it copies, in one sentence, and if not, why.
//! - [`page`]: the same and the figures, over time, for a browser.
//! - [`options`] and [`plan`]: what the operator asked for, checked before anything is touched.
//! - [`daemon`]: puts the parts together, and ends them.
//! - [`inspect`]: what recordings hold, and what replays of them will come to.
//! - [`record`]: live traffic into files.
//! - [`certs`]: a CA of one's own and certificates, to begin with.
//! - `outcome`: whether a replay came to what was asked for.
//! - [`interceptors`]: the links to them.
//! - [`agents`]: router-agents, without whose hold nothing is sent.
//! - [`cluster`]: which of both there are, and what this copier has of Consul; [`reload`]: the lists may change at SIGHUP.
//! - `address_watch`: addresses of this host that come and go; `addresses`: those that it has.
//! - [`control`]: what operators change of it while it runs.
//! - `sockets`: where this host listens, and for whom.
//! - [`tunnels`]: which tunnels of a recording or of a mirror are looked into.
//! - [`report`] and [`metrics`]: what a run amounts to, for people and for Prometheus.

mod address_watch;
mod addresses;
pub mod agents;
pub mod certs;
pub mod check;
pub mod check_config;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod headline;
pub mod inspect;
pub mod interceptors;
pub mod metrics;
pub mod options;
pub mod otlp;
mod outcome;
pub mod page;
pub mod plan;
mod pods;
pub mod record;
pub mod reload;
pub mod report;
mod sockets;
pub mod tunnels;
