//! This copier among others: who its peers are, and what it has of Consul.
//!
//! - [`fleet`]: which interceptors and router-agents there are, by lists or by Consul.
//! - [`share`]: the part of the sources that is this copier's by a lock in Consul (`-f auto`).
//! - [`plan`]: how much the whole cluster copies (`--follow-plan`).
//! - [`leases`]: both, and whether this copier may send by them.
//! - [`membership`]: what this copier says of itself in Consul, and who the others are.

pub mod fleet;
pub mod leases;
pub mod membership;
pub mod plan;
pub mod share;
