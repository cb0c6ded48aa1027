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
