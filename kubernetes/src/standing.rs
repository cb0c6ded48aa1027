//! What is known of the pods that are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is known of the pods that are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Those on this node, by name, with their addresses. One that was chosen stays until it is over.
    pub pods: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Why that may not be all, or not be so any more.
    pub doubt: Option<Doubt>,
}

/// Why what is known of pods may be wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// The API has not answered yet.
    Asking,
    /// The API does not answer. What is known is what it said last.
    Unanswered(String),
    /// The API does not let this copier ask. What is known is what it said last.
    Refused(String),
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
