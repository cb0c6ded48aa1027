//! What the interceptor counts.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

/// Counts since the start, and what is held at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that the kernel put into the rings.
    pub captured: u64,
    /// Frames that found a ring full.
    pub capture_dropped: u64,
    /// Frames that are not TCP, or not for somebody else.
    pub ignored: u64,
    /// Of these, responses to copies that bear this host's own address: it is a client.
    pub clients_own: u64,
    /// Frames with broken headers.
    pub malformed: u64,
    /// Response headers returned to the owner of their flow.
    pub returned: u64,
    /// Of these, headers that had waited for their route info.
    pub returned_late: u64,
    /// Bytes of payload returned, of flows that asked for it.
    pub returned_payload: u64,
    /// Headers dropped because a copier read too slowly.
    pub dropped: u64,
    /// Headers whose route info never came.
    pub unowned: u64,
    /// Headers that wait for their route info.
    pub waiting: u64,
    /// Flows that copiers have announced.
    pub flows: u64,
    /// Flows not taken because too many were announced (`--max-flows`).
    pub flows_over_limit: u64,
    /// Flows announced by one copier while another owned them; the copier was told to move them.
    pub flow_conflicts: u64,
    /// Claims refused because another copier holds a part of them.
    pub claim_conflicts: u64,
}

/// The latest counters, shared with the admin port.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Counters>>);

impl Shared {
    /// A copy of the latest counters.
    pub fn get(&self) -> Counters {
        *self.0.lock()
    }

    /// Replaces them.
    pub fn set(&self, counters: Counters) {
        *self.0.lock() = counters;
    }
}
