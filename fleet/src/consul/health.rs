//! What Consul has of the daemons of a service: `/v1/health/service/NAME`
//! (<https://developer.hashicorp.com/consul/api-docs/health>), as far as it is used here.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One daemon.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    pub(super) node: Node,
    pub(super) service: Service,
    #[serde(default)]
    pub(super) checks: Vec<Check>,
}

/// The host whose agent knows it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(default)]
    pub(super) node: String,
    #[serde(default)]
    pub(super) address: String,
}

/// What was registered.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    #[serde(default)]
    pub(super) address: String,
    #[serde(default)]
    pub(super) port: i64,
    pub(super) meta: Option<BTreeMap<String, String>>,
}

/// A check of the daemon or of its host.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Check {
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) output: String,
    /// Empty: it is one of the host.
    #[serde(rename = "ServiceID", default)]
    pub(super) service_id: String,
}

/// What an answer lists.
///
/// # Errors
/// It is not such a list.
pub(super) fn entries(body: &[u8]) -> Result<Vec<Entry>, String> {
    serde_json::from_slice(body).map_err(|error| error.to_string())
}
