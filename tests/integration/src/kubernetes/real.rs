//! A real API server: etcd, and a kube-apiserver with RBAC and TLS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use millrace_certificates::{Certificates, Host as Named, Terms};
use millrace_lab::{Host, Process};
use serde_json::{Value, json};

use super::{NAMESPACE, PATIENCE, PORT};
use crate::new_log;

const ETCD: u16 = 2379;
/// Who may do what: the name of role and binding.
const ROLE: &str = "copier";

/// Both programs; the API server may be stopped.
pub(super) struct Real {
    host: Host,
    program: PathBuf,
    certificates: Certificates,
    _etcd: Process,
    server: Option<Process>,
}

impl Real {
    /// With a store of its own; it does not answer yet.
    pub(super) fn new(host: &Host, program: &Path) -> Self {
        let directory = host.file("etcd").display().to_string();
        let clients = format!("http://127.0.0.1:{ETCD}");
        let arguments = [
            "--data-dir",
            &directory,
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
            "--listen-peer-urls",
            "http://127.0.0.1:2380",
        ];
        let etcd = host.spawn("etcd", &arguments, &[], &new_log(host, "etcd"));
        host.wait_listening(&[ETCD], PATIENCE).unwrap();
        let certificates = Certificates::open(host.file("kube-certs"), "example.test").unwrap();
        let named: Named = "127.0.0.1".parse().unwrap();
        let terms = Terms {
            days: 1,
            hosts: vec![named],
        };
        certificates.issue("interceptor", terms).unwrap();
        std::fs::write(
            host.file("tokens.csv"),
            "copier,copier,1\nadmin,admin,2,system:masters\n",
        )
        .unwrap();
        Self {
            host: host.clone(),
            program: program.to_owned(),
            certificates,
            _etcd: etcd.unwrap(),
            server: None,
        }
    }

    /// Where it is.
    pub(super) fn cluster(&self) -> Value {
        json!({
            "server": format!("https://127.0.0.1:{PORT}"),
            "certificate-authority": self.certificates.ca().display().to_string(),
        })
    }

    pub(super) fn resume(&mut self) {
        let files = self.certificates.files("interceptor");
        let option = |name: &str, value: String| format!("--{name}={value}");
        let file = |path: &Path| path.display().to_string();
        let arguments = [
            option("etcd-servers", format!("http://127.0.0.1:{ETCD}")),
            option("secure-port", PORT.to_string()),
            option("bind-address", "127.0.0.1".to_owned()),
            option("advertise-address", "198.18.2.10".to_owned()),
            option("service-cluster-ip-range", "198.18.8.0/24".to_owned()),
            option("authorization-mode", "RBAC".to_owned()),
            option("token-auth-file", file(&self.host.file("tokens.csv"))),
            option("tls-cert-file", file(&files.cert)),
            option("tls-private-key-file", file(&files.key)),
            option(
                "service-account-issuer",
                "https://lab.example.test".to_owned(),
            ),
            option("service-account-key-file", file(&files.cert)),
            option("service-account-signing-key-file", file(&files.key)),
            // Pods need no account here.
            option("disable-admission-plugins", "ServiceAccount".to_owned()),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let log = new_log(&self.host, "kube-apiserver");
        let server = self.host.spawn(&self.program, &arguments, &[], &log);
        let mut server = server.unwrap();
        let up = self.host.wait_listening(&[PORT], 3 * PATIENCE);
        // What is wrong with its options shows a moment later.
        std::thread::sleep(Duration::from_secs(1));
        assert!(up.is_ok() && server.is_running(), "{}", server.log());
        self.server = Some(server);
    }

    pub(super) fn stop(&mut self) {
        drop(self.server.take());
    }
}

/// Makes what a new cluster lacks. The server listens before it serves.
pub(super) async fn begin(client: Client) {
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).unwrap();
    let api: Api<Namespace> = Api::all(client.clone());
    for attempt in 0.. {
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 60, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let name = json!({"name": ROLE, "namespace": NAMESPACE});
    // As the Helm chart grants it.
    let role: Role = serde_json::from_value(json!({
        "metadata": name,
        "rules": [{"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list", "watch"]}],
    }))
    .unwrap();
    let api: Api<Role> = Api::namespaced(client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &role).await.unwrap();
    allow(client).await;
}

pub(super) async fn allow(client: Client) {
    let binding: RoleBinding = serde_json::from_value(json!({
        "metadata": {"name": ROLE, "namespace": NAMESPACE},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROLE},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "copier"}],
    }))
    .unwrap();
    let api: Api<RoleBinding> = Api::namespaced(client, NAMESPACE);
    api.create(&PostParams::default(), &binding).await.unwrap();
}

pub(super) async fn forbid(client: Client) {
    let api: Api<RoleBinding> = Api::namespaced(client, NAMESPACE);
    api.delete(ROLE, &DeleteParams::default()).await.unwrap();
}
