//! Tests that are about time or load, and need the machine for themselves: `cargo test --test alone -- --test-threads=1`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unused_crate_dependencies
)]

mod busy_host;
mod captures;
mod intensity;
mod large_recording;
mod live_copy;
mod random_faults;
