//! An API server on the live host: a small one that knows lists and watches of pods and Services, or a real one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use millrace_lab::Host;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::NAMESPACE;
use super::store::{Store, Wanted};

const PORT: u16 = 6443;
const PATIENCE: Duration = Duration::from_secs(20);

/// An API server that a copier can be told of.
pub struct KubeApi {
    host: Host,
    kubeconfig: PathBuf,
    shared: Shared,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<millrace_lab::Result<()>>,
}

/// What the server and its watches share.
#[derive(Clone)]
struct Shared {
    store: Arc<Mutex<Store>>,
    news: watch::Sender<()>,
    forbids: Arc<AtomicBool>,
}

impl KubeApi {
    /// A small one, on the host's loopback address.
    pub fn start(host: &Host) -> Self {
        let kubeconfig = host.file("kubeconfig");
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": format!("http://127.0.0.1:{PORT}")}}],
            "users": [{"name": "copier", "user": {"token": "copier"}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "copier"}}],
        });
        std::fs::write(&kubeconfig, text.to_string()).unwrap();
        let mut api = Self {
            host: host.clone(),
            kubeconfig,
            shared: Shared {
                store: Arc::default(),
                news: watch::channel(()).0,
                forbids: Arc::default(),
            },
            running: None,
        };
        api.resume();
        api
    }

    /// Has it answer again, with all that it knew.
    pub fn resume(&mut self) {
        let (stop, stopped) = oneshot::channel::<()>();
        let router = router(self.shared.clone());
        let thread = self.host.start(move || async move {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", PORT)).await;
            let serve = axum::serve(listener.unwrap(), router).into_future();
            tokio::select! {
                served = serve => served.unwrap(),
                _ = stopped => {}
            }
        });
        self.host.wait_listening(&[PORT], PATIENCE).unwrap();
        self.running = Some(Running { stop, thread });
    }

    /// Has it answer nobody any more; all connections end.
    pub fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            drop(stop);
            thread.join().unwrap().unwrap();
        }
    }

    /// Has it refuse whatever is asked, or not any more.
    pub fn forbid(&self, all: bool) {
        self.shared.forbids.store(all, Ordering::Relaxed);
    }

    /// The option that a copier needs.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig.display().to_string()
    }

    /// Does something with a client of the API, as an administrator.
    fn ask<T: Send>(&self, work: impl AsyncFnOnce(Client) -> T + Send) -> T {
        let kubeconfig = self.kubeconfig.clone();
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

impl Drop for KubeApi {
    fn drop(&mut self) {
        self.stop();
    }
}

fn router(shared: Shared) -> Router {
    let base = "/api/v1/namespaces/{namespace}/{kind}";
    Router::new()
        .route(base, get(read).merge(post(create)))
        .route(&format!("{base}/{{name}}"), put(replace).delete(remove))
        .route(&format!("{base}/{{name}}/status"), put(replace))
        .with_state(shared)
}

type Kind = Path<HashMap<String, String>>;

/// A list, or a watch.
async fn read(
    State(shared): State<Shared>,
    Path(path): Kind,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let kind = &path["kind"];
    if shared.forbids.load(Ordering::Relaxed) {
        let message =
            format!("{kind} is forbidden: User \"copier\" cannot list resource \"{kind}\"");
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": "Forbidden", "code": 403});
        return (StatusCode::FORBIDDEN, Json(status)).into_response();
    }
    let of = |key: &str| query.get(key).map(String::as_str);
    let wanted = Wanted::new(kind, of("labelSelector"), of("fieldSelector"));
    if !matches!(of("watch"), Some("true" | "1")) {
        return Json(shared.store.lock().list(&wanted)).into_response();
    }
    let number = |key: &str| of(key).and_then(|text| text.parse::<u64>().ok());
    let limit = Duration::from_secs(number("timeoutSeconds").unwrap_or(300));
    let mut seen = number("resourceVersion").unwrap_or(0);
    let (mut lines, body) = tokio::io::duplex(64 << 10);
    tokio::spawn(timeout(limit, async move {
        let mut news = shared.news.subscribe();
        loop {
            let events: Vec<Value> = {
                let store = shared.store.lock();
                let new = store.changes.iter().filter(|change| change.version > seen);
                let events = new.filter_map(|change| wanted.event(change)).collect();
                seen = store.version();
                events
            };
            for event in events {
                let line = format!("{event}\n");
                let written = tokio::io::AsyncWriteExt::write_all(&mut lines, line.as_bytes());
                if written.await.is_err() {
                    return;
                }
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    }));
    let stream = tokio_util::io::ReaderStream::new(body);
    (
        [("content-type", "application/json")],
        Body::from_stream(stream),
    )
        .into_response()
}

async fn create(
    State(shared): State<Shared>,
    Path(path): Kind,
    Json(object): Json<Value>,
) -> Response {
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    shared.answer(&path["kind"], &name, Some(object))
}

async fn replace(
    State(shared): State<Shared>,
    Path(path): Kind,
    Json(object): Json<Value>,
) -> Response {
    shared.answer(&path["kind"], &path["name"], Some(object))
}

async fn remove(State(shared): State<Shared>, Path(path): Kind) -> Response {
    let known = shared
        .store
        .lock()
        .get(&path["kind"], &path["name"])
        .is_some();
    match known {
        true => shared.answer(&path["kind"], &path["name"], None),
        false => StatusCode::NOT_FOUND.into_response(),
    }
}

impl Shared {
    fn answer(&self, kind: &str, name: &str, object: Option<Value>) -> Response {
        let changed = self.store.lock().set(kind, name, object);
        self.news.send_replace(());
        Json(changed).into_response()
    }
}
