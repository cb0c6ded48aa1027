//! Every TCP situation that a replay must get right, one line after the other: see the table in
//! README.md. Simulated, deterministic and instant; each test reads like a conversation.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_crate_dependencies,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

#[path = "../sim/mod.rs"]
mod sim;

mod capture;
mod contact;
mod doubts;
mod ends;
mod flows;
mod forged;
mod gaps;
mod hearing;
mod identity;
mod intensity;
mod limits;
mod misdirected;
mod path;
mod protocol;
mod recorded;
mod sampled;
mod silence;
mod table;
mod talk;
mod turns;
mod windows;
