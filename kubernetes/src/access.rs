//! How the Kubernetes API is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::limit::RateLimitLayer;

/// A connection on which nothing came for so long is broken: every watch ends earlier.
pub(crate) const SILENCE: Duration = Duration::from_secs(150);
/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// What a client may ask, and in which time: a list, and from there one request after the other. An API that
/// ends each at once is not hurried.
const REQUESTS: (u64, Duration) = (5, Duration::from_secs(5));

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
        let config = config.map_err(|error| wrong(causes(&error)))?;
        let who = &config.auth_info;
        if who.exec.is_some() || who.auth_provider.is_some() {
            // The copier starts no programs, and may not.
            return Err(wrong(
                "its user logs in by a program: give one with a token, a token file or a certificate"
                    .to_owned(),
            ));
        }
        Ok(Self(config))
    }

    /// An API that lets in everybody.
    #[cfg(test)]
    pub(crate) fn at(address: &str) -> Self {
        Self(Config::new(address.parse().unwrap()))
    }

    /// The address of the API, for people.
    pub fn address(&self) -> String {
        self.0.cluster_url.to_string()
    }

    /// What is read again while the API is asked: tokens, certificates and keys, and the directories that these are renewed
    /// in.
    pub fn paths(&self) -> Vec<PathBuf> {
        let who = &self.0.auth_info;
        let files = [&who.client_certificate, &who.client_key, &who.token_file];
        let files = files.into_iter().flatten().map(PathBuf::from);
        let with_directory = |file: PathBuf| {
            let directory = file.parent().map(Path::to_owned);
            [Some(file), directory].into_iter().flatten()
        };
        files.flat_map(with_directory).collect()
    }

    /// A client. Nothing is sent yet. It needs a runtime.
    pub(crate) fn client(&self) -> Result<Client, String> {
        let mut config = self.0.clone();
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        // The environment's proxies are for other programs: the API is near.
        config.proxy_url = None;
        let builder = ClientBuilder::try_from(config).map_err(|error| causes(&error))?;
        let (requests, within) = REQUESTS;
        let limit = RateLimitLayer::new(requests, within);
        Ok(builder.with_layer(&limit).build())
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn load(user: &str) -> Result<Access, String> {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
             clusters: [{{name: a, cluster: {{server: 'http://127.0.0.1:1'}}}}]\n\
             contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\n\
             users: [{{name: a, user: {user}}}]\n"
        );
        let name = format!("millrace-kubeconfig-{}-{}", std::process::id(), user.len());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let loaded = Access::load(Some(&path)).await;
        std::fs::remove_file(&path).unwrap();
        loaded.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_is_read_again_is_known_and_programs_are_refused() {
        let access = load("{tokenFile: /run/token/t, client-key: /etc/k.pem}")
            .await
            .unwrap();
        let paths = ["/etc/k.pem", "/etc", "/run/token/t", "/run/token"];
        assert_eq!(access.paths(), paths.map(PathBuf::from));
        let program = load("{exec: {apiVersion: client.authentication.k8s.io/v1, command: login}}");
        assert!(program.await.unwrap_err().contains("logs in by a program"));
        let none = Access::load(Some(Path::new("/none"))).await.unwrap_err();
        assert!(none.to_string().starts_with("/none: "), "{none}");
    }
}
