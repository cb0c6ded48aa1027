//! Questions to the kernel about devices, routes and neighbours (`rtnetlink(7)`).
//!
//! Three requests of a fixed form, so they are encoded here; what the kernel answers is parsed
//! with every length checked.

mod message;
mod query;
mod socket;

pub(crate) use query::{LinkInfo, NeighbourState};
pub(crate) use socket::Netlink;
