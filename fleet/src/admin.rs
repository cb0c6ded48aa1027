//! The admin port: /healthz, /readyz, /metrics, /status, and what a daemon adds.

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;

use crate::exit::ExitError;
use crate::listen;
use crate::readiness::Readiness;

/// The content type of OpenMetrics text, as prometheus-client writes it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type StatusFn = dyn Fn() -> serde_json::Value + Send + Sync;

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    metrics: Arc<Registry>,
    status: Arc<StatusFn>,
    more: Router,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Shows `readiness` at /readyz, `metrics` at /metrics and what `status` returns at /status.
    ///
    /// Metric names are `millrace_<part>_<what>_<unit>`; counters get `_total` appended by the
    /// encoder.
    pub fn new(
        readiness: Readiness,
        metrics: Registry,
        status: impl Fn() -> serde_json::Value + Send + Sync + 'static,
    ) -> Self {
        Admin {
            readiness,
            metrics: Arc::new(metrics),
            status: Arc::new(status),
            more: Router::new(),
        }
    }

    /// Adds the daemon's own routes.
    #[must_use]
    pub fn merge(mut self, routes: Router) -> Self {
        self.more = self.more.merge(routes);
        self
    }

    /// Everything as one router.
    pub fn router(&self) -> Router {
        let readiness = self.readiness.clone();
        let metrics = self.metrics.clone();
        let status = self.status.clone();
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || async move { readyz(&readiness) }))
            .route("/metrics", get(move || async move { render(&metrics) }))
            .route("/status", get(move || async move { axum::Json(status()) }))
            .merge(self.more.clone())
    }

    /// Serves on `listener` until `end`.
    ///
    /// # Errors
    /// When the runtime cannot take the listener (exit code 1).
    pub fn serve(
        self,
        listener: TcpListener,
        runtime: &Handle,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ExitError> {
        let _inside = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| ExitError::caused("cannot serve the admin port", &error))?;
        let router = self.router();
        runtime.spawn(async move {
            // Not a graceful shutdown: a client that keeps its connection must not hold up the end.
            tokio::select! {
                result = async { axum::serve(listener, router).await } => if let Err(error) = result {
                    tracing::error!("the admin port ended: {error}");
                },
                () = end => {}
            }
        });
        Ok(())
    }
}

/// Opens the admin port, before anything is touched.
///
/// # Errors
/// Exit code 1, with what to do.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ExitError> {
    if !address.ip().is_loopback() {
        tracing::warn!(
            "the admin port is open to the network at {address}, without authentication: a \
             loopback address is safer"
        );
    }
    listen::bind(address, "--admin")
}

fn readyz(readiness: &Readiness) -> Response {
    let pending = readiness.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not ready, pending: {}\n", pending.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

fn render(metrics: &Registry) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, metrics) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            let text = format!("cannot encode the metrics: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}
