//! The names of sessions and replicas.

slotmap::new_key_type! {
    /// Names a session: the index of its place and the generation of the place, so that a reused
    /// four-tuple is another session.
    pub struct SessionKey;
}

slotmap::new_key_type! {
    /// Names a replica. A name is not used again for another replica.
    pub struct ReplicaKey;
}

impl ReplicaKey {
    /// The number under which interceptors know the replica.
    pub fn flow_id(self) -> u64 {
        slotmap::Key::data(&self).as_ffi()
    }

    /// The replica with this number, which may not exist (any more).
    pub fn from_flow_id(id: u64) -> Self {
        slotmap::KeyData::from_ffi(id).into()
    }
}
