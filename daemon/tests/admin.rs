//! The admin port over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, unused_crate_dependencies)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use axum::Router;
use axum::routing::get;
use millrace_daemon::admin::{self, Admin};
use millrace_daemon::readiness::Readiness;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::Handle;

fn fetch(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (code, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_readiness_metrics_status_and_the_daemons_own_routes() {
    let readiness = Readiness::new();
    let capture = readiness.register("capture");
    let mut metrics = Registry::default();
    let counter = Counter::<u64>::default();
    metrics.register_with_unit(
        "millrace_copier_sent",
        "Sent.",
        Unit::Bytes,
        counter.clone(),
    );
    counter.inc_by(7);
    let listener = admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let status = || serde_json::json!({ "sessions": 3 });
    Admin::new(readiness, metrics, status)
        .merge(Router::new().route("/own", get(|| async { "mine" })))
        .serve(listener, &Handle::current(), std::future::pending())
        .unwrap();

    tokio::task::spawn_blocking(move || {
        assert_eq!(fetch(address, "/healthz"), (200, "ok\n".to_owned()));
        let pending = "not ready, pending: capture\n".to_owned();
        assert_eq!(fetch(address, "/readyz"), (503, pending));
        capture.ready();
        assert_eq!(fetch(address, "/readyz"), (200, "ready\n".to_owned()));
        let (code, text) = fetch(address, "/metrics");
        assert_eq!(code, 200);
        assert!(
            text.contains("millrace_copier_sent_bytes_total 7"),
            "{text}"
        );
        assert_eq!(
            fetch(address, "/status"),
            (200, "{\"sessions\":3}".to_owned())
        );
        assert_eq!(fetch(address, "/own"), (200, "mine".to_owned()));
        assert_eq!(fetch(address, "/none").0, 404);
    })
    .await
    .unwrap();
}
