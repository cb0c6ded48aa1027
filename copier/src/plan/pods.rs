//! Live services in pods: which they are, and who is asked where they run.

use std::path::PathBuf;

use millrace_capture::ANY;
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
    /// Where their packets are captured.
    pub devices: PodDevices,
}

/// Where packets of pods are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodDevices {
    /// On the devices that lead to them, besides those of the ring at the start.
    Found,
    /// On each that is up (`-i any`), also those that come later.
    All,
    /// On those that the operator has named.
    Named,
}

impl PodDevices {
    /// As the options say.
    pub(super) fn of(options: &Options) -> Self {
        match options.capture.devices.as_slice() {
            [] => Self::Found,
            [only] if only == ANY => Self::All,
            _ => Self::Named,
        }
    }
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
        devices: PodDevices::of(options),
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
        Some(_) => Ok(()),
        None => {
            let kubernetes = &options.kubernetes;
            let given = [
                (kubernetes.kubeconfig.is_some(), "--kubeconfig"),
                (kubernetes.node.is_some(), "--node"),
            ];
            match given.into_iter().find(|(given, _)| *given) {
                Some((_, option)) => Err(ExitError::usage(format!(
                    "{option}: no service of -x is in pods: write service/NAMESPACE/NAME:PORT there, or leave {option} out"
                ))),
                None => Ok(()),
            }
        }
    }
}
