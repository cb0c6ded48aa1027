//! The daemons on the lab's stage. These tests wait more than they work, so several run at a time, each in namespaces of
//! its own: `cargo test --test lab`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unused_crate_dependencies
)]

mod bad_networks;
mod checks;
mod cluster_plan;
mod consul;
mod dashboards;
mod instances;
mod kubernetes;
mod live_host;
mod local;
mod lvs_agents;
mod lvs_doc;
mod lvs_dr;
mod lvs_faults;
mod lvs_leaks;
mod lvs_nat;
mod lvs_silence;
mod migrating;
mod mirrors;
mod misdirected;
mod mistakes;
mod offline;
mod operator;
mod page;
mod protocols;
mod readme;
mod recording;
mod restarts;
mod route_faults;
mod route_kills;
mod route_leases;
mod route_safety;
mod safety;
mod security;
mod shares;
mod tracing;
mod ways;
