//! An API server on the live host, and what tests have it know: the same whether it is a small one or a real one.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use millrace_lab::Host;
use serde_json::{Value, json};

use super::NAMESPACE;
use super::real::Real;
use super::small::Small;

/// Says where a kube-apiserver is that is to be used in place of the small server (`make kubernetes`).
const REAL: &str = "MILLRACE_KUBE_APISERVER";

/// An API server that a copier can be told of.
pub struct KubeApi {
    host: Host,
    /// As whom a copier asks, and an administrator.
    kubeconfigs: [PathBuf; 2],
    server: Server,
}

enum Server {
    Small(Small),
    Real(Box<Real>),
}

impl KubeApi {
    /// One on the host's loopback address, that lets copiers ask.
    pub fn start(host: &Host) -> Self {
        let (mut server, cluster) = match std::env::var_os(REAL) {
            Some(program) => {
                let real = Real::new(host, Path::new(&program));
                let cluster = real.cluster();
                (Server::Real(Box::new(real)), cluster)
            }
            None => (Server::Small(Small::new(host)), Small::cluster()),
        };
        match &mut server {
            Server::Small(small) => small.resume(),
            Server::Real(real) => real.resume(),
        }
        let kubeconfigs = ["copier", "admin"].map(|user| {
            let text = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "lab",
                "clusters": [{"name": "lab", "cluster": cluster}],
                "users": [{"name": user, "user": {"token": user}}],
                "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
            });
            let file = host.file(&format!("kubeconfig-{user}"));
            std::fs::write(&file, text.to_string()).unwrap();
            file
        });
        let api = Self {
            host: host.clone(),
            kubeconfigs,
            server,
        };
        if let Server::Real(_) = api.server {
            api.ask(super::real::begin);
        }
        api
    }

    /// Has it answer nobody any more; all connections end.
    pub fn stop(&mut self) {
        match &mut self.server {
            Server::Small(small) => small.stop(),
            Server::Real(real) => real.stop(),
        }
    }

    /// Has it answer again, with all that it knew.
    pub fn resume(&mut self) {
        match &mut self.server {
            Server::Small(small) => small.resume(),
            Server::Real(real) => real.resume(),
        }
    }

    /// Has it refuse copiers whatever they ask, or not any more.
    pub fn forbid(&self, all: bool) {
        match &self.server {
            Server::Small(small) => small.forbid(all),
            Server::Real(_) if all => self.ask(super::real::forbid),
            Server::Real(_) => self.ask(super::real::allow),
        }
    }

    /// The option that a copier needs.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfigs[0].display().to_string()
    }

    /// Does something with a client of the API, as an administrator.
    fn ask<T: Send>(&self, work: impl AsyncFnOnce(Client) -> T + Send) -> T {
        let kubeconfig = self.kubeconfigs[1].clone();
        let asked = self.host.enter_async(move || async move {
            let file = Kubeconfig::read_from(kubeconfig).unwrap();
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options);
            work(Client::try_from(config.await.unwrap()).unwrap()).await
        });
        asked.unwrap()
    }

    /// A Service that chooses pods by one label.
    pub fn set_service(&self, name: &str, label: (&str, &str)) {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"selector": {label.0: label.1}, "ports": [{"port": 80}]},
        }))
        .unwrap();
        self.ask(async move |client| {
            let api: Api<Service> = Api::namespaced(client, NAMESPACE);
            api.create(&PostParams::default(), &service).await.unwrap();
        });
    }

    /// Has a Service choose pods by another label.
    pub fn choose(&self, name: &str, label: (&str, &str)) {
        let name = name.to_owned();
        let selector = std::collections::BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
        self.ask(async move |client| {
            let api: Api<Service> = Api::namespaced(client, NAMESPACE);
            let mut service = api.get(&name).await.unwrap();
            service.spec.as_mut().unwrap().selector = Some(selector);
            api.replace(&name, &PostParams::default(), &service)
                .await
                .unwrap();
        });
    }

    /// A pod of a node, with a label and these addresses, that runs.
    pub fn set_pod(&self, name: &str, node: &str, label: (&str, &str), addresses: &[String]) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": NAMESPACE, "labels": {label.0: label.1}},
            "spec": {"nodeName": node, "containers": [{"name": "web", "image": "registry.example/web:1"}]},
        }))
        .unwrap();
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"phase": "Running", "podIP": addresses.first(), "podIPs": ips});
        let name = name.to_owned();
        self.ask(async move |client| {
            let api: Api<Pod> = Api::namespaced(client, NAMESPACE);
            let mut made = api.create(&PostParams::default(), &pod).await.unwrap();
            made.status = Some(serde_json::from_value(status).unwrap());
            api.replace_status(&name, &PostParams::default(), &made)
                .await
                .unwrap();
        });
    }

    /// Takes a pod away.
    pub fn delete_pod(&self, name: &str) {
        let name = name.to_owned();
        self.ask(async move |client| {
            let api: Api<Pod> = Api::namespaced(client, NAMESPACE);
            let now = DeleteParams::default().grace_period(0);
            api.delete(&name, &now).await.unwrap();
        });
    }
}
