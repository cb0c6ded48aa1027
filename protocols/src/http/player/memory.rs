//! What a replica holds.

use super::{At, Input, Player};

impl<T, N> Player<T, N> {
    /// Memory besides itself, in bytes.
    pub(in super::super) fn memory(&self) -> usize {
        let at = match &self.at {
            At::Gathering(request, gathered) => request.memory() + gathered.memory(),
            At::Waiting(request, _, value) => request.memory() + value.capacity(),
            At::Head | At::Body { .. } | At::Tunnel | At::Silence => 0,
        };
        let inputs = self.waiting + self.inputs.capacity() * size_of::<Input<T>>();
        let waits = self.waits.capacity() * size_of::<(N, u64)>();
        at + inputs + waits + self.reader.memory() + self.asks.memory()
    }
}
