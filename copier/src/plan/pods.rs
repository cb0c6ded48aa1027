//! Live services in pods: which they are, and who is asked where they run.

use std::path::PathBuf;

use millrace_daemon::exit::ExitError;
use millrace_notation::address::Pods;

use crate::options::Options;

/// Live services in pods of this node.
#[derive(Debug, Clone)]
pub struct PodPlan {
    /// How the API is reached; `None`: as the pod that this copier runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The node.
    pub node: String,
    /// The services, by their place in [`Plan::services`](super::Plan::services).
    pub services: Vec<(usize, Pods)>,
    /// Whether the devices to capture on are those that lead to the pods, besides those of the ring at the start;
    /// otherwise the operator has named them.
    pub finds_devices: bool,
}

/// The services that are in pods, if any are.
pub(super) fn pods(options: &Options) -> Option<PodPlan> {
    let services = options.services.iter().enumerate();
    let services: Vec<(usize, Pods)> = services
        .filter_map(|(index, mapping)| Some((index, mapping.live.pods()?.clone())))
        .collect();
    let host = || {
        let name = rustix::system::uname();
        name.nodename().to_string_lossy().into_owned()
    };
    (!services.is_empty()).then(|| PodPlan {
        kubeconfig: options.kubernetes.kubeconfig.clone(),
        node: options.kubernetes.node.clone().unwrap_or_else(host),
        services,
        finds_devices: options.capture.devices.is_empty(),
    })
}

/// A recording holds no pods, and what is named for them means nothing without any.
pub(super) fn refuse(options: &Options, is_recording: bool) -> Result<(), ExitError> {
    let mut services = options.services.iter();
    match services.find(|mapping| mapping.live.pods().is_some()) {
        Some(mapping) if is_recording => Err(ExitError::usage(format!(
            "-x {mapping}: a recording does not say which pods there were: give the port alone, as in {}-{}",
            mapping.live_port, mapping.target
        ))),
        None if options.kubernetes.kubeconfig.is_some() => Err(ExitError::usage(
            "--kubeconfig: no service of -x is in pods: write service/NAMESPACE/NAME:PORT there, or leave --kubeconfig out",
        )),
        Some(_) | None => Ok(()),
    }
}
