//! `--local`: a recording is replayed from one host, without an interceptor elsewhere.
//!
//! What is needed is that the target's answers come back to this host, that this host's own TCP
//! does not answer them with resets, and that nothing is left behind, even after a kill:
//!
//! - A target on this host: replicas bear addresses of a network that exists nowhere
//!   (`--local-net`), and that network is routed into a tun device of this process. Its answers end
//!   there. The device goes with the process, and the route with it.
//! - A target elsewhere: replicas bear this host's own address and ports outside the kernel's own
//!   range, and an nftables table drops their answers before TCP sees them. The table belongs to the
//!   process: the kernel removes it with its owner.
//! - A target elsewhere and a client pool (`-c`): the network must bring answers to the pool's
//!   addresses to this host. The kernel forwards nothing and answers nothing for addresses that it
//!   does not have, so nothing is set up.
//!
//! - `plan`: which of these it is, checked before anything is touched.
//! - `setup`: does it.
//! - `shield`: the nftables table.
//! - `answers`: the answers, captured where they arrive.

mod answers;
mod plan;
mod setup;
mod shield;

pub use answers::Answers;
pub use plan::{CatchBy, LocalPlan, Wanted};
pub use setup::Local;
