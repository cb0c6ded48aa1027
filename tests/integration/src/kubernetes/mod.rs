//! A live host as a node of Kubernetes: an API, and namespaces as pods.
//!
//! - `api`: the API that daemons and tests talk to; `small`: one of our own, of which `store` keeps what it knows; `real`: a
//!   kube-apiserver.
//! - `node`: pods on the live host, as network plugins connect them.

mod api;
mod node;
mod real;
mod small;
mod store;

use std::time::Duration;

pub use api::KubeApi;
pub use node::{Pod, Wiring, clients_reach_pods, open_forwarding};

/// The namespace of the pods.
pub const NAMESPACE: &str = "shop";
/// The node's name.
pub const NODE: &str = "live1";
/// Where the API listens.
const PORT: u16 = 6443;
const PATIENCE: Duration = Duration::from_secs(20);
