//! Tests that change the whole machine, or need a kernel with IPVS: `make test-vm` runs them in a virtual machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    unused_crate_dependencies
)]

mod conntrack_full;
mod lvs_ipvs;
