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
    #[arg(long, value_name = "NAME", value_parser = node)]
    pub node: Option<String>,
}

/// The name of a node: a DNS subdomain (RFC 1123). It becomes a part of a question to the API.
fn node(text: &str) -> Result<String, String> {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
    match !text.is_empty() && text.len() <= 253 && text.bytes().all(inner) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "'{text}' is not the name of a node; `kubectl get nodes` lists them"
        )),
    }
}
