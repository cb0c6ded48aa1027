//! Why a conversation cannot go on.

pub use crate::stats::FailureKind;

/// A conversation cannot go on. Its replica ends, counted as [`crate::AbortReason::Protocol`], and no other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    /// What kind it is.
    pub kind: FailureKind,
    /// Why, in a few words for an operator. They are logged: no payload is among them.
    pub text: String,
}

impl Failure {
    /// A failure.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}
