//! Live services in pods of Kubernetes: their addresses and the devices that lead to them, as they come and go.
//!
//! - `services`: what the shard is told, of what the API and this host's routes say.
//! - `watch`: asking both, and telling.

mod services;
mod watch;

use std::collections::BTreeMap;
use std::mem::Discriminant;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use millrace_daemon::exit::ExitError;
use millrace_kubernetes::{Access, Doubt};
use millrace_notation::address::Mapping;
use parking_lot::Mutex;
use serde::Serialize;

pub(crate) use self::watch::follow;

use crate::plan::Plan;

/// What is known of the pods of all services that are in pods; empty where none are.
#[derive(Clone, Debug, Default)]
pub struct KnownPods(Arc<Mutex<Vec<ServicePods>>>);

/// The pods of one service on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePods {
    /// The service, as `-x` says it.
    pub service: String,
    /// The node.
    pub node: String,
    /// The pods by name.
    pub pods: BTreeMap<String, Vec<PodAddress>>,
    /// Why these may not be all, or not any more, in words.
    pub doubt: Option<String>,
    /// The kind of it, where the API is its reason.
    #[serde(skip)]
    pub kind: Option<Discriminant<Doubt>>,
    /// What to do about it.
    #[serde(skip)]
    pub cure: Option<String>,
    /// Since when any pod is known.
    #[serde(skip)]
    pub since: Option<Instant>,
}

/// One address of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodAddress {
    /// The address.
    pub address: IpAddr,
    /// The device that leads to it and is captured on; none while there is none.
    pub device: Option<String>,
}

impl KnownPods {
    /// What is known now.
    pub fn now(&self) -> Vec<ServicePods> {
        self.0.lock().clone()
    }

    fn replace(&self, now: Vec<ServicePods>) {
        *self.0.lock() = now;
    }
}

/// Whether all services are in pods, of which this host sees neither sockets nor clients.
pub(crate) fn are_all_in_pods(services: &[Mapping]) -> bool {
    services.iter().all(|service| service.live.pods().is_some())
}

/// How the Kubernetes API is reached, where the plan has services in pods.
///
/// # Errors
/// What is missing, or wrong in the file, with exit code 1.
pub(crate) fn access(plan: &Plan) -> Result<Option<Access>, ExitError> {
    let Some(pods) = &plan.pods else {
        return Ok(None);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| ExitError::caused("cannot start a runtime", &error))?;
    let loaded = runtime.block_on(Access::load(pods.kubeconfig.as_deref()));
    loaded
        .map(Some)
        .map_err(|error| ExitError::start(format!("services in pods (-x): {error}")))
}

/// Why pods may not be known, and what to do about it, in words.
pub(crate) fn in_words(doubt: &Doubt) -> (String, Option<String>) {
    match doubt {
        Doubt::Asking => ("the Kubernetes API has not answered yet".to_owned(), None),
        Doubt::Refused(reason) => (
            format!("the Kubernetes API refuses to say: {reason}"),
            Some(
                "let this account list and watch pods and services there; the Helm chart does with \
                 copier.kubernetes.enabled (docs/kubernetes.md#services-in-pods)"
                    .to_owned(),
            ),
        ),
        Doubt::Unanswered(reason) => (
            format!("the Kubernetes API does not answer: {reason}"),
            Some("it is asked again; what it said last holds until then".to_owned()),
        ),
        Doubt::NoService => (
            "there is no such Service".to_owned(),
            Some("`kubectl get services -A` lists them".to_owned()),
        ),
        Doubt::NoSelector => (
            "the Service chooses no pods by labels".to_owned(),
            Some("name the pods by their labels: pods/NAMESPACE/KEY=VALUE:PORT".to_owned()),
        ),
    }
}
