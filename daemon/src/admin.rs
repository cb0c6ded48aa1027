//! The admin port: /healthz, /readyz, /metrics, /status, /events, /config, and what a daemon adds.

mod events;

use std::fmt;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use rustix::net::sockopt;
use tokio::runtime::Handle;

use crate::config::started_with;
use crate::exit::ExitError;
use crate::listen;
use crate::readiness::Readiness;

/// The content type of OpenMetrics text, as prometheus-client writes it.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A peer that takes nothing for so long has gone (TCP_USER_TIMEOUT, tcp(7)).
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

type StatusFn = dyn Fn() -> serde_json::Value + Send + Sync;

/// A part of a daemon that shows itself at the admin port, besides what the daemon says of itself.
pub trait Section: Send + Sync + 'static {
    /// A field of /status as it is now: its name, and what it holds.
    fn status(&self) -> Option<(&'static str, serde_json::Value)> {
        None
    }

    /// Adds its metrics, as they are now, to a registry whose names begin with `millrace_`.
    fn register(&self, _registry: &mut Registry) {}
}

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    metrics: Arc<Registry>,
    status: Arc<StatusFn>,
    sections: Vec<Arc<dyn Section>>,
    room: events::Room,
    more: Router,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Shows `readiness` at /readyz, `metrics` at /metrics and what `status` returns at /status, and each second
    /// anew at /events.
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
            sections: Vec::new(),
            room: events::Room::default(),
            more: Router::new(),
        }
    }

    /// Adds a part of the daemon: its field in /status, its metrics in /metrics.
    #[must_use]
    pub fn section(mut self, section: impl Section) -> Self {
        self.sections.push(Arc::new(section));
        self
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
        let (metrics, status, events) = (self.clone(), self.clone(), self.clone());
        Router::new()
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(move || async move { readyz(&readiness) }))
            .route("/config", get(|| async { axum::Json(started_with()) }))
            .route("/metrics", get(move || async move { metrics.render() }))
            .route(
                "/status",
                get(move || async move { axum::Json(status.status()) }),
            )
            .route(
                "/events",
                get(move || async move {
                    let admin = events.clone();
                    events.room.events(move || admin.status())
                }),
            )
            .merge(self.more.clone())
    }

    fn status(&self) -> serde_json::Value {
        let mut status = (self.status)();
        if let Some(fields) = status.as_object_mut() {
            let more = self.sections.iter().filter_map(|section| section.status());
            fields.extend(more.map(|(name, value)| (name.to_owned(), value)));
        }
        status
    }

    fn render(&self) -> Response {
        let mut text = String::new();
        let mut sections = Registry::with_prefix("millrace");
        for section in &self.sections {
            section.register(&mut sections);
        }
        let encoded = encode_registry(&mut text, &self.metrics)
            .and_then(|()| encode_registry(&mut text, &sections))
            .and_then(|()| encode_eof(&mut text));
        match encoded {
            Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
            Err(error) => {
                let text = format!("cannot encode the metrics: {error}\n");
                (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
            }
        }
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
        let failed =
            |error: std::io::Error| ExitError::caused("cannot serve the admin port", &error);
        // Connections inherit it: whoever has gone without a word does not keep a place among the listeners.
        let limit = PEER_TIMEOUT.as_millis() as u32;
        sockopt::set_tcp_user_timeout(&listener, limit).map_err(|error| failed(error.into()))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
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

/// Opens the admin port where the operator names none: at `default`, or, where another instance has that, at the first
/// free port of `next`.
///
/// # Errors
/// As [`bind`].
pub fn bind_free(
    default: SocketAddr,
    next: std::ops::Range<u16>,
) -> Result<TcpListener, ExitError> {
    for port in std::iter::once(default.port()).chain(next) {
        let address = SocketAddr::new(default.ip(), port);
        let tried = TcpListener::bind(address).map(drop);
        if tried.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            continue;
        }
        if address != default {
            tracing::info!("{default} is taken, by another instance: the admin port is {address}");
        }
        // With the reasons in words, should it fail.
        return bind(address);
    }
    bind(default)
}

fn readyz(readiness: &Readiness) -> Response {
    let pending = readiness.pending();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    let text = format!("not ready, pending: {}\n", pending.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_usual_port_is_taken_the_first_free_one_is_used() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let (usual, other) = (taken.local_addr().unwrap(), free.local_addr().unwrap());
        drop(free);
        let found = bind_free(usual, other.port()..other.port() + 1).unwrap();
        assert_eq!(found.local_addr().unwrap(), other);
        let none = bind_free(usual, 0..0).unwrap_err().to_string();
        assert!(none.contains("the port is in use"), "{none}");
    }
}
