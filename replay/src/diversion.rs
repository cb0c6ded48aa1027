//! Whether the targets' responses are kept from the real clients, as far as the copier knows.

/// Whether responses are kept from the real clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Diversion {
    /// Not everywhere yet: an agent was asked and has never held. Sessions that are open began
    /// before it was named, and go on; none begins.
    #[default]
    Asked,
    /// Every agent holds what is needed, and was heard of a short time ago.
    Held,
    /// An agent held what is needed and does not any more, or an interceptor's host sends on what is
    /// diverted to it: nothing may be sent.
    Lapsed,
}

/// Those who keep responses from the real clients, as the shard asks them: several times in each of its rounds, so that no
/// answer may take long.
pub trait Diverters: Send {
    /// Whether responses are kept from the real clients now.
    fn diversion(&self) -> Diversion;

    /// Whether responses are kept from the real clients whose addresses the replicas bear, whichever clients these are.
    fn keep_all_clients(&self) -> bool;
}
