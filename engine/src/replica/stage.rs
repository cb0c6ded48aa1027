//! What the engine counts replicas by.

use super::CONNECTION_SIZE;
use super::handshake::Handshake;
use super::linger::Linger;

/// How far a replica has come: what the engine counts replicas by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not begun because its own time has not come.
    Delayed,
    /// It has not begun because it is held back.
    HeldBack,
    /// Its handshake is under way.
    Connecting,
    /// Its connection is open.
    Established,
    /// It has nothing more to deliver.
    Lingering,
    /// It is over, and only its name is left.
    Closed,
}

impl Stage {
    pub(crate) const fn is_held_back(self) -> bool {
        matches!(self, Self::HeldBack)
    }

    pub(crate) const fn is_connecting(self) -> bool {
        matches!(self, Self::Connecting)
    }

    pub(crate) const fn is_lingering(self) -> bool {
        matches!(self, Self::Lingering | Self::Closed)
    }

    /// Memory of a replica besides the structure itself, in bytes.
    pub(crate) const fn heap_size(self) -> usize {
        match self {
            Self::Delayed | Self::HeldBack | Self::Closed => 0,
            Self::Connecting => size_of::<Handshake>(),
            Self::Established => CONNECTION_SIZE,
            Self::Lingering => size_of::<Linger>(),
        }
    }
}
