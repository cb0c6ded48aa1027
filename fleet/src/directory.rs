//! What every kind of list of peers gives.

use millrace_notation::address::HostPort;

/// Who is there, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Where they are reached; each once.
    pub peers: Vec<HostPort>,
    /// Whether the list was ever known. Until then nobody says whom it lacks.
    pub complete: bool,
    /// Why the list may be out of date, in the operator's words.
    pub doubt: Option<String>,
}

/// A list of peers that may change.
pub trait Directory: Send + Sync {
    /// The list as it is known now. Costs little: it is asked for once a second.
    fn listing(&self) -> Listing;
}

/// A list that the operator wrote: it never changes.
#[derive(Clone, Debug)]
pub struct Fixed(Vec<HostPort>);

impl Fixed {
    /// A list of these peers.
    pub const fn new(peers: Vec<HostPort>) -> Self {
        Self(peers)
    }
}

impl Directory for Fixed {
    fn listing(&self) -> Listing {
        Listing {
            peers: self.0.clone(),
            complete: true,
            doubt: None,
        }
    }
}
