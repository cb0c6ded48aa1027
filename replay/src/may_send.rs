//! What may be sent, as far as those who keep the targets' responses from the real clients say.

/// What may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaySend {
    /// What open sessions still have to say, and none begins: a router-agent was asked and has never held. These began before it
    /// was named.
    #[default]
    NothingNew,
    /// Everything: each router-agent that is named holds what is needed, and was heard of a short time ago.
    Everything,
    /// Nothing: a router-agent held what is needed and does not any more, an interceptor's host sends on what is diverted to
    /// it, or the cluster does not consent ([`crate::consent`]).
    Nothing,
}

/// Those who keep responses from the real clients, as the shard asks them: several times in each of its rounds, so that no
/// answer may take long.
pub trait Diverters: Send {
    /// What may be sent now.
    fn may_send(&self) -> MaySend;

    /// Whether responses are kept from the real clients whose addresses the replicas bear, whichever clients these are.
    fn keep_all_clients(&self) -> bool;
}
