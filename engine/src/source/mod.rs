//! Source addresses of replicas: whose address and port a copied connection bears.
//!
//! - [`pool`]: the addresses that replicas may bear.
//! - [`share`]: the part of address and port space that is this copier's own.
//! - [`ports`]: which ports of one address are in use, and which rest.
//! - [`allocator`]: gives out sources and takes them back.

mod allocator;
mod pool;
mod ports;
mod share;

pub(crate) use allocator::{Allocator, Rules};
pub use pool::SourcePool;
pub use share::{Block, Capacity, Share, Sources, Space};
