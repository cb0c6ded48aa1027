//! First contact as an operator sees it.

use serde::Serialize;

/// How far first contact with a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// No probe yet: no interceptor is connected, or no client is known whose address it could
    /// bear.
    Waiting,
    /// Probes are on their way.
    Asking,
    /// Probes did not come back; they are repeated.
    Failed,
    /// Probes came back: sessions are replayed.
    Open,
}

/// First contact with one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProbeStatus {
    /// The target.
    pub target: String,
    /// The kind of clients that this is about, where each is judged by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<&'static str>,
    /// How far it is.
    pub state: ProbeState,
    /// Volleys begun.
    pub volleys: u32,
    /// What the last volley showed, in one line.
    pub finding: Option<String>,
}
