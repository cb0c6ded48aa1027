//! What is known of the way to a target, as far as its replicas act on it and learn it.

use super::gate::QuietFloor;

/// What replicas know of their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Path {
    pub(crate) floor: QuietFloor,
    /// Largest packet that it takes, in bytes.
    pub(crate) max_packet: u16,
}

impl Path {
    pub(crate) fn new(max_packet: u16) -> Self {
        Self {
            floor: QuietFloor::default(),
            max_packet,
        }
    }
}
