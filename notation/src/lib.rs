//! How operators write things, read with messages that say what to write instead.
//!
//! - [`address`]: addresses, prefixes, pools of clients, mappings of live services to targets.
//! - [`units`]: times, rates and shares.

pub mod address;
pub mod units;
