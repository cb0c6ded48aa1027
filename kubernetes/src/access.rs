//! How the Kubernetes API is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// A connection on which nothing came for so long is broken: every watch ends earlier.
pub(crate) const SILENCE: Duration = Duration::from_secs(90);
/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How the API is reached, and as whom.
#[derive(Debug, Clone)]
pub struct Access(Config);

/// Why the API cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// No file was named, and this is no pod, or one without a token.
    #[error(
        "not in a pod with the token of a service account ({0}): name a kubeconfig file with --kubeconfig, or with the \
         Helm chart set copier.kubernetes.enabled"
    )]
    NotInPod(String),
    /// The file cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Access {
    /// By a kubeconfig file; without one, as the service account of the pod that this runs in.
    ///
    /// # Errors
    /// What is missing, or wrong in the file.
    pub async fn load(kubeconfig: Option<&Path>) -> Result<Self, AccessError> {
        let Some(path) = kubeconfig else {
            let config = Config::incluster();
            return config
                .map(Self)
                .map_err(|error| AccessError::NotInPod(causes(&error)));
        };
        let wrong = |reason| AccessError::File {
            path: path.to_owned(),
            reason,
        };
        let file = Kubeconfig::read_from(path).map_err(|error| wrong(causes(&error)))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
        config.map(Self).map_err(|error| wrong(causes(&error)))
    }

    /// The address of the API, for people.
    pub fn address(&self) -> String {
        self.0.cluster_url.to_string()
    }

    /// What is read again while the API is asked: files of certificates and keys, and directories of tokens, which are
    /// renewed there.
    pub fn paths(&self) -> Vec<PathBuf> {
        let who = &self.0.auth_info;
        let files = [&who.client_certificate, &who.client_key];
        let files = files.into_iter().flatten().map(PathBuf::from);
        let token = who
            .token_file
            .as_ref()
            .map(Path::new)
            .and_then(Path::parent);
        files.chain(token.map(Path::to_owned)).collect()
    }

    /// A client. Nothing is sent yet. It needs a runtime.
    pub(crate) fn client(&self) -> Result<Client, String> {
        let mut config = self.0.clone();
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        Client::try_from(config).map_err(|error| causes(&error))
    }
}

/// An error and what caused it, in one line.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
