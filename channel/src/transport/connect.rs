//! Opening a channel to another daemon, and saying why it broke.

use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::http2;
use super::security::Security;
use super::write::write_through;
use crate::tls::{self, Expect, Role};
use millrace_daemon::exit::causes;
use millrace_notation::address::HostPort;

/// How long a peer may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Bound of resolving, connecting and shaking hands.
    pub connect: Duration,
    /// HTTP/2 ping interval.
    pub keepalive_interval: Duration,
    /// An unanswered ping ends the connection after this.
    pub keepalive_timeout: Duration,
}

impl Default for Timeouts {
    /// A silent peer is noticed within 5 s.
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(3),
            keepalive_interval: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(3),
        }
    }
}

/// An open channel: one connection, which is not opened again by itself.
#[derive(Debug, Clone)]
pub struct Opened {
    /// For a generated client.
    pub channel: Channel,
    /// Says what a failed call means.
    pub diagnosis: Diagnosis,
}

/// Resolves `address`, connects (each address that the name has is tried) and, with TLS, shakes
/// hands with a peer that must be whom `expect` says. When this returns, the peer has accepted us, too.
///
/// # Errors
/// One line in the operator's words.
pub async fn channel(
    address: &HostPort,
    security: &Security,
    expect: impl Into<Expect>,
    timeouts: &Timeouts,
) -> Result<Opened, String> {
    let Expect {
        role: expect,
        must_confirm,
    } = expect.into();
    let diagnosis = Diagnosis {
        found: Arc::default(),
        heard: Arc::new(Mutex::new(Instant::now())),
        patience: timeouts.keepalive_timeout,
        expect,
    };
    let limit = timeouts.connect;
    let stream = tokio::time::timeout(limit, connect_tcp(address, expect))
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "no answer within {limit:?}: is the host up, and does a firewall drop port {}?",
                address.port()
            ))
        })?;
    let stream = match security {
        Security::Insecure => Stream::Plain {
            stream,
            unread: true,
        },
        Security::Mutual(store) => {
            let material = store.current();
            let shaken = tls::connect(stream, &material, expect);
            let shaken = tokio::time::timeout(limit, shaken).await;
            let stream = shaken.unwrap_or_else(|_| {
                Err(format!(
                    "connected, but no answer in TLS within {limit:?}: is it a {}?",
                    program(expect)
                ))
            })?;
            if must_confirm {
                tls::confirm(&stream, address.host(), expect)?;
            }
            Stream::Tls(Box::new(stream))
        }
    };
    let io = ClientIo {
        stream,
        found: diagnosis.found.clone(),
        heard: diagnosis.heard.clone(),
    };
    // The connector below decides where this goes; the name is only what HTTP/2 wants to see.
    let endpoint = http2::client(Endpoint::from_static("http://millrace"), timeouts);
    let channel = endpoint
        .connect_with_connector(OneConnection(Some(io)))
        .await
        .map_err(|error| causes(&error))?;
    Ok(Opened { channel, diagnosis })
}

/// Whether a peer answers at `address` as a Millrace daemon with the role `expect` does. In plain text nothing tells more
/// than that it speaks HTTP/2.
///
/// # Errors
/// One line in the operator's words.
pub async fn reachable(
    address: &HostPort,
    security: &Security,
    expect: impl Into<Expect>,
    timeouts: &Timeouts,
) -> Result<(), String> {
    let expect = expect.into();
    if let Security::Mutual(_) = security {
        // Its end of TLS has spoken by then.
        return channel(address, security, expect, timeouts).await.map(drop);
    }
    let greeted = async {
        let mut stream = connect_tcp(address, expect.role).await?;
        let failed = |error: io::Error| format!("connected, and then: {error}");
        stream.write_all(PREFACE).await.map_err(failed)?;
        let mut head = [0; 9];
        let read = stream.read_exact(&mut head).await;
        match (head, read) {
            ([ALERT, ..], _) => Err(WANTS_TLS.to_owned()),
            // A server's first frame is SETTINGS, of stream 0 (RFC 9113 3.4).
            ([_, _, _, SETTINGS, _, 0, 0, 0, 0], Ok(_)) => Ok(()),
            (_, Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failed(error)),
            _ => Err(format!("what listens there is no {}", program(expect.role))),
        }
    };
    let limit = timeouts.connect;
    tokio::time::timeout(limit, greeted)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// How a client of HTTP/2 begins (RFC 9113 3.4), with an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Type of a SETTINGS frame (RFC 9113 6.5).
const SETTINGS: u8 = 4;

/// The program that has a role.
fn program(role: Role) -> String {
    format!("millrace-{role}")
}

async fn connect_tcp(address: &HostPort, expect: Role) -> Result<TcpStream, String> {
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
                    "{socket} refuses the connection: does {} run there and listen on that \
                     port? (With --insecure it listens on 127.0.0.1 unless -b says otherwise.)",
                    program(expect)
                );
            }
            Err(error) => last = format!("{socket}: {error}"),
        }
    }
    Err(last)
}

/// What was seen on a connection besides what HTTP/2 makes of it.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    found: Arc<OnceLock<String>>,
    /// When bytes came last.
    heard: Arc<Mutex<Instant>>,
    patience: Duration,
    expect: Role,
}

impl Diagnosis {
    /// A gRPC status in the operator's words, in one line.
    pub fn explain(&self, status: &tonic::Status) -> String {
        if let Some(found) = self.found.get() {
            return found.clone();
        }
        if let Some(cause) = cause(status) {
            // HTTP/2 ends a connection without an answer to its pings, and does not say why.
            let silence = lock(&self.heard).elapsed();
            return if silence < self.patience {
                format!("the connection was lost ({cause})")
            } else {
                let seconds = silence.as_secs_f64();
                format!("the connection was lost (nothing was heard of it for {seconds:.1} s)")
            };
        }
        let mut text = match status.code() {
            tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled => {
                "the connection was lost".to_owned()
            }
            tonic::Code::Unimplemented => {
                format!("it is a gRPC server, but no {}", program(self.expect))
            }
            // A foreign enum: what the status says is the best there is.
            _ => status.code().description().to_owned(),
        };
        let message = status.message();
        if !message.is_empty() {
            text = format!("{text} ({message})");
        }
        text
    }
}

/// What broke a connection, in the words of whoever noticed first; nothing when it is the peer that
/// speaks.
fn cause(status: &tonic::Status) -> Option<&dyn std::error::Error> {
    let source = std::error::Error::source(status)?;
    std::iter::successors(Some(source), |error| error.source()).last()
}

/// Hands out the connection that is already open; who wants another opens another channel.
struct OneConnection(Option<ClientIo>);

impl tonic::codegen::Service<Uri> for OneConnection {
    type Response = TokioIo<ClientIo>;
    type Error = io::Error;
    type Future = Ready<io::Result<TokioIo<ClientIo>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.take().map(TokioIo::new);
        ready(stream.ok_or_else(|| io::Error::other("the connection was lost")))
    }
}

fn lock(heard: &Mutex<Instant>) -> MutexGuard<'_, Instant> {
    heard.lock()
}

/// The bytes of a channel. It notes what TLS says before HTTP/2 makes a riddle of it, and when bytes
/// come.
struct ClientIo {
    stream: Stream,
    found: Arc<OnceLock<String>>,
    heard: Arc<Mutex<Instant>>,
}

enum Stream {
    /// `unread` until the first byte has come.
    Plain {
        stream: TcpStream,
        unread: bool,
    },
    Tls(Box<TlsStream<TcpStream>>),
}

/// First byte of a TLS alert (RFC 8446, section 5.1).
const ALERT: u8 = 0x15;

const WANTS_TLS: &str = "it speaks TLS, but this side was started with --insecure: start this one \
                         with --ca, --cert and --key, or that one with --insecure";

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let polled = match &mut this.stream {
            Stream::Tls(stream) => {
                let polled = Pin::new(stream).poll_read(cx, buf);
                if let Poll::Ready(Err(error)) = &polled
                    && let Some(text) = tls::explain(error)
                {
                    let _ = this.found.set(text);
                }
                polled
            }
            Stream::Plain { stream, unread } => {
                let polled = Pin::new(stream).poll_read(cx, buf);
                let first = buf.filled().get(before).copied();
                if *unread && first.is_some() {
                    *unread = false;
                    if first == Some(ALERT) {
                        let _ = this.found.set(WANTS_TLS.to_owned());
                        return Poll::Ready(Err(io::Error::other(WANTS_TLS)));
                    }
                }
                polled
            }
        };
        if buf.filled().len() > before {
            *lock(&this.heard) = Instant::now();
        }
        polled
    }
}

write_through!(ClientIo);
