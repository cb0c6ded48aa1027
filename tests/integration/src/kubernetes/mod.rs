//! A live host as a node of Kubernetes: an API, and namespaces as pods.
//!
//! - `api`: the API that daemons and tests talk to: a small one of our own, or a real kube-apiserver.
//! - `store`: what the small one knows, and the news of it that watches get.
//! - `node`: pods on the live host, as network plugins connect them.

mod api;
mod node;
mod store;

pub use api::KubeApi;
pub use node::{Pod, Wiring, clients_reach_pods, open_forwarding};

/// The namespace of the pods.
pub const NAMESPACE: &str = "shop";
/// The node's name.
pub const NODE: &str = "live1";
