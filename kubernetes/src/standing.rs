//! What is known of the pods that are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is known of the pods that are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Those on this node, by name, with their addresses.
    pub pods: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Why that may not be all, or not be so any more.
    pub doubt: Option<Doubt>,
}

/// Why what is known of pods may be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The API has not answered yet.
    Asking,
    /// The API does not answer, or refuses to. What is known is what it said last.
    Unanswered(String),
    /// There is no such Service.
    NoService,
    /// The Service chooses no pods by labels.
    NoSelector,
}

impl Standing {
    /// Before the first answer.
    pub fn unknown() -> Self {
        Self {
            pods: BTreeMap::new(),
            doubt: Some(Doubt::Asking),
        }
    }

    /// All addresses of all pods.
    pub fn addresses(&self) -> BTreeSet<IpAddr> {
        self.pods.values().flatten().copied().collect()
    }
}
