//! Where the Kubernetes API is, for live services in pods.

use std::path::PathBuf;

/// Where the Kubernetes API is, and which node this is.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct KubernetesOptions {
    /// The Kubernetes API and the right to ask it, for services in pods (-x); by default those of the pod that this
    /// copier runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The node whose pods are copied; by default the host's name.
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
}
