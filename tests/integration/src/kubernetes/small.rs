//! A small API server in this process: it lists, watches and keeps what it is given.

use std::collections::HashMap;
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
use millrace_lab::Host;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::store::{Store, Wanted};
use super::{PATIENCE, PORT};

/// The server, whether it answers or not.
pub(super) struct Small {
    host: Host,
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

impl Small {
    /// One that knows nothing and does not answer yet.
    pub(super) fn new(host: &Host) -> Self {
        Self {
            host: host.clone(),
            shared: Shared {
                store: Arc::default(),
                news: watch::channel(()).0,
                forbids: Arc::default(),
            },
            running: None,
        }
    }

    /// Where it is.
    pub(super) fn cluster() -> Value {
        json!({"server": format!("http://127.0.0.1:{PORT}")})
    }

    /// Has it answer, with all that it knew.
    pub(super) fn resume(&mut self) {
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
    pub(super) fn stop(&mut self) {
        if let Some(Running { stop, thread }) = self.running.take() {
            drop(stop);
            thread.join().unwrap().unwrap();
        }
    }

    /// Has it refuse whatever is asked, or not any more.
    pub(super) fn forbid(&self, all: bool) {
        self.shared.forbids.store(all, Ordering::Relaxed);
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        self.stop();
    }
}

fn router(shared: Shared) -> Router {
    let base = "/api/v1/namespaces/{namespace}/{kind}";
    Router::new()
        .route(base, get(read).merge(post(create)))
        .route(
            &format!("{base}/{{name}}"),
            get(read_one).put(replace).delete(remove),
        )
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

async fn read_one(State(shared): State<Shared>, Path(path): Kind) -> Response {
    let store = shared.store.lock();
    match store.get(&path["kind"], &path["name"]) {
        Some(object) => Json(object.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
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
