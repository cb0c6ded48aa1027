//! The servers' end of every contract: accepting, the first message, whose name a peer may use, the last words.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::{Code, Status, Streaming};

use crate::tls::{Identity, Roles};
use crate::transport::{Handshakes, Security, incoming, server_builder};
use millrace_daemon::exit::{ExitError, causes};

/// Longest name of a peer. Bytes.
const MAX_ID: usize = 128;

/// What is still open after a stop gets this long to receive its last words.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Where and how a server listens.
pub(crate) struct Serving {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
    /// Whom it serves, for messages: `copiers`.
    whom: &'static str,
}

/// What bounds the connections of a server.
pub(crate) struct Bounds<'a> {
    /// How they are protected.
    pub(crate) security: &'a Security,
    /// Who gets in.
    pub(crate) roles: Roles,
    /// Open TCP connections; further ones wait in the kernel.
    pub(crate) max_connections: usize,
    /// HTTP/2 ping interval.
    pub(crate) keepalive_interval: Duration,
    /// An unanswered ping ends the connection after this.
    pub(crate) keepalive_timeout: Duration,
}

impl Serving {
    /// Takes a listener over for `runtime`.
    ///
    /// # Errors
    /// When the runtime cannot take it (exit code 1).
    pub(crate) fn new(
        listener: std::net::TcpListener,
        runtime: &Handle,
        whom: &'static str,
    ) -> Result<Self, ExitError> {
        let _inside = runtime.enter();
        let cannot =
            |error: std::io::Error| ExitError::caused(format!("cannot serve {whom}"), &error);
        Ok(Self {
            address: listener.local_addr().map_err(cannot)?,
            listener: tokio::net::TcpListener::from_std(listener).map_err(cannot)?,
            whom,
        })
    }

    /// Where it listens; the port is the real one if 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, and then as long as last words take. Who is let in and who is not is counted in
    /// `handshakes`.
    pub(crate) async fn run<S>(
        self,
        service: S,
        bounds: Bounds<'_>,
        handshakes: &Handshakes,
        stop: &CancellationToken,
    ) where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let incoming = incoming(
            self.listener,
            bounds.security.clone(),
            bounds.roles,
            bounds.max_connections,
            handshakes,
        );
        let server = server_builder(bounds.keepalive_interval, bounds.keepalive_timeout)
            .serve_with_incoming_shutdown(service, incoming, stop.clone().cancelled_owned());
        let stopped = async {
            stop.cancelled().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            result = server => if let Err(error) = result {
                tracing::error!("the server for {} ended: {}", self.whom, causes(&error));
            },
            () = stopped => {}
        }
    }
}

/// How a stream begins.
#[derive(Debug)]
pub(crate) enum First<M> {
    /// With a message.
    Message(M),
    /// With something that is none: why.
    Unreadable(String),
    /// Not in time.
    Late,
    /// Not at all: the peer is gone, or the server stops.
    Gone,
}

/// Waits for the first message of a stream.
pub(crate) async fn first<M>(
    inbound: &mut Streaming<M>,
    within: Duration,
    cancel: &CancellationToken,
) -> First<M> {
    let first = tokio::select! {
        () = cancel.cancelled() => return First::Gone,
        first = timeout(within, inbound.message()) => first,
    };
    match first {
        Ok(Ok(Some(message))) => First::Message(message),
        Ok(Ok(None)) => First::Gone,
        Ok(Err(status)) => unreadable(&status).map_or(First::Gone, First::Unreadable),
        Err(_) => First::Late,
    }
}

/// Why what a peer sent is no message; none if the peer is gone instead.
pub(crate) fn unreadable(status: &Status) -> Option<String> {
    let message = status.message();
    match status.code() {
        Code::OutOfRange => Some(format!("its message is too large ({message})")),
        Code::Internal | Code::Unimplemented | Code::DataLoss => {
            Some(format!("its message cannot be read ({message})"))
        }
        // A foreign enum: everything else comes from a connection that is gone.
        _ => None,
    }
}

/// Whether a peer, as in `the copier`, may call itself so.
///
/// # Errors
/// Why not, for its operator.
pub(crate) fn check_name(
    name: &str,
    whose: &str,
    identity: Option<&Identity>,
) -> Result<(), String> {
    let id = name.as_bytes();
    if id.is_empty() || id.len() > MAX_ID || !id.iter().all(u8::is_ascii_graphic) {
        return Err(format!(
            "{whose}'s name must be 1 to {MAX_ID} printable characters without blanks"
        ));
    }
    match identity {
        Some(identity) if !identity.may_be_called(name) => Err(format!(
            "its certificate is for {identity}, so it may not call itself '{name}': give it an --id \
             that is, or begins with, the certificate's name and '/' or ':'"
        )),
        Some(_) | None => Ok(()),
    }
}

/// Where a peer comes from, for the log.
pub(crate) fn shown(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "unknown".to_owned(), |it| it.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_printable_and_that_of_the_certificate() {
        for bad in ["", &"x".repeat(129), "a\nb", "a b", "é"] {
            let refused = check_name(bad, "a holder", None).unwrap_err();
            assert!(refused.starts_with("a holder's name must be"), "{refused}");
        }
        let identity: Identity = "spiffe://example.test/millrace/copier/live-1"
            .parse()
            .unwrap();
        for (name, allowed) in [("live-1", true), ("live-1:80", true), ("live-2", false)] {
            let checked = check_name(name, "the copier", Some(&identity));
            assert_eq!(checked.is_ok(), allowed, "{checked:?}");
        }
    }

    #[test]
    fn what_is_no_message_is_told_from_a_peer_that_is_gone() {
        let large = unreadable(&Status::out_of_range("5 bytes"));
        assert_eq!(large.as_deref(), Some("its message is too large (5 bytes)"));
        assert!(unreadable(&Status::internal("bad tag")).is_some());
        assert_eq!(unreadable(&Status::unavailable("reset")), None);
    }
}
