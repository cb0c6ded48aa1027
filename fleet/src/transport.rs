//! How bytes get from one daemon to another: the only place that knows about sockets and, from
//! the next version on, mutual TLS.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use crate::address::HostPort;
use crate::exit::ExitError;

/// How a channel between daemons is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Plain text, no authentication (`--insecure`).
    Insecure,
}

/// Why a channel cannot be protected as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecurityError {
    /// This version has no TLS.
    #[error(
        "this version has no TLS yet and will not talk in plain text unasked: give --insecure, and \
         only where everybody on the network between the daemons is trusted"
    )]
    TlsNotYet,
}

impl Security {
    /// What the options ask for.
    ///
    /// # Errors
    /// [`SecurityError::TlsNotYet`] without `--insecure`.
    pub fn from_options(insecure: bool) -> Result<Security, SecurityError> {
        if insecure {
            Ok(Security::Insecure)
        } else {
            Err(SecurityError::TlsNotYet)
        }
    }
}

impl From<SecurityError> for ExitError {
    fn from(error: SecurityError) -> Self {
        ExitError::usage(error.to_string())
    }
}

/// Resolves `address` and connects; tries each address that the name has.
///
/// # Errors
/// One line in the operator's words.
pub(crate) async fn connect(
    address: &HostPort,
    security: Security,
    timeout: Duration,
) -> Result<TcpStream, String> {
    match security {
        Security::Insecure => tokio::time::timeout(timeout, connect_tcp(address))
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "no answer within {timeout:?}: is the host up, and does a firewall drop port \
                     {}?",
                    address.port()
                ))
            }),
    }
}

async fn connect_tcp(address: &HostPort) -> Result<TcpStream, String> {
    let resolved = tokio::net::lookup_host((address.host(), address.port()))
        .await
        .map_err(|error| format!("cannot resolve '{}': {error}", address.host()))?;
    let mut last = format!("'{}' has no address", address.host());
    for socket in resolved {
        match TcpStream::connect(socket).await {
            Ok(stream) => {
                // Batches leave at once; Nagle would hold them.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                last = format!(
                    "{socket} refuses the connection: does millrace-interceptor run there and \
                     listen on that port?"
                );
            }
            Err(error) => last = format!("{socket}: {error}"),
        }
    }
    Err(last)
}

/// Pause after a failed accept: the usual reason is that file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts for ever, at most `limit` connections at a time; the others wait in the kernel.
pub(crate) fn incoming(
    listener: TcpListener,
    security: Security,
    limit: usize,
) -> impl tokio_stream::Stream<Item = io::Result<ServerIo>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let Security::Insecure = security;
    let limit = Arc::new(Semaphore::new(limit));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = limit.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let io = ServerIo::new(stream, permit);
                    if sender.send(Ok(io)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!("cannot accept a connection: {error}; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// How long an accepted connection may live without a stream: a port scan or a stuck peer must not
/// use up the limit.
const ATTACH_WITHIN: Duration = Duration::from_secs(10);

/// An accepted connection, which counts against the limit while it lives.
#[derive(Debug)]
pub(crate) struct ServerIo {
    stream: TcpStream,
    peer: Peer,
    deadline: Pin<Box<Sleep>>,
    _permit: OwnedSemaphorePermit,
}

/// The other end of an accepted connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its address, unless it was gone at once.
    pub(crate) address: Option<SocketAddr>,
    /// Set by the service once a stream is open.
    pub(crate) attached: Arc<AtomicBool>,
}

impl ServerIo {
    fn new(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        let peer = Peer {
            address: stream.peer_addr().ok(),
            attached: Arc::default(),
        };
        ServerIo {
            stream,
            peer,
            deadline: Box::pin(tokio::time::sleep(ATTACH_WITHIN)),
            _permit: permit,
        }
    }
}

impl Connected for ServerIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for ServerIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.peer.attached.load(Ordering::Relaxed) && self.deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ServerIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_insecure_a_daemon_refuses_to_start_in_one_line() {
        assert_eq!(Security::from_options(true), Ok(Security::Insecure));
        let error = ExitError::from(Security::from_options(false).unwrap_err());
        assert_eq!(error.code(), 64);
        assert!(error.to_string().contains("give --insecure"), "{error}");
    }
}
