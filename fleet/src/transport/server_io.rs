//! An accepted connection: its bytes, who is at the other end, and its deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::handshakes::Handshakes;
use super::incoming::Slot;
use super::write::write_through;
use crate::tls::{Identity, Reason, Refusal};

/// How long an accepted connection may live without a stream: a port scan or a stuck peer must not
/// use up the limit.
const ATTACH_WITHIN: Duration = Duration::from_secs(10);

/// First byte of a TLS connection.
const TLS: u8 = crate::tls::HANDSHAKE_RECORD;

/// An accepted connection, which counts against the limits while it lives.
#[derive(Debug)]
pub struct ServerIo {
    stream: Stream,
    peer: Peer,
    deadline: Pin<Box<Sleep>>,
    handshakes: Handshakes,
    _slot: Slot,
}

#[derive(Debug)]
enum Stream {
    /// `unread` until the first byte has come.
    Plain {
        stream: TcpStream,
        unread: bool,
    },
    Tls(Box<TlsStream<TcpStream>>),
}

/// The other end of an accepted connection. A service finds it in the extensions of a request.
#[derive(Debug, Clone)]
pub struct Peer {
    address: Option<SocketAddr>,
    identity: Option<Identity>,
    attached: Arc<AtomicBool>,
}

impl Peer {
    /// Its address, unless it was gone at once.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Who its certificate is for; none with `--insecure`.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// A stream is open: the connection may stay. One that nobody vouches for is ended soon.
    pub fn vouch(&self) {
        self.attached.store(true, Ordering::Relaxed);
    }
}

impl ServerIo {
    pub(super) fn plain(
        stream: TcpStream,
        address: Option<SocketAddr>,
        handshakes: Handshakes,
        slot: Slot,
    ) -> Self {
        let stream = Stream::Plain {
            stream,
            unread: true,
        };
        Self::new(stream, address, None, handshakes, slot)
    }

    pub(super) fn tls(
        stream: TlsStream<TcpStream>,
        address: Option<SocketAddr>,
        identity: Identity,
        handshakes: Handshakes,
        slot: Slot,
    ) -> Self {
        let stream = Stream::Tls(Box::new(stream));
        Self::new(stream, address, Some(identity), handshakes, slot)
    }

    fn new(
        stream: Stream,
        address: Option<SocketAddr>,
        identity: Option<Identity>,
        handshakes: Handshakes,
        slot: Slot,
    ) -> Self {
        ServerIo {
            stream,
            peer: Peer {
                address,
                identity,
                attached: Arc::default(),
            },
            deadline: Box::pin(tokio::time::sleep(ATTACH_WITHIN)),
            handshakes,
            _slot: slot,
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
        let this = &mut *self;
        match &mut this.stream {
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Plain { stream, unread } => {
                let before = buf.filled().len();
                let polled = Pin::new(stream).poll_read(cx, buf);
                let first = buf.filled().get(before).copied();
                if *unread && first.is_some() {
                    *unread = false;
                    if first == Some(TLS) {
                        this.handshakes.refused(this.peer.address, &tls_unasked());
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                    this.handshakes.accepted();
                }
                polled
            }
        }
    }
}

fn tls_unasked() -> Refusal {
    Refusal::new(
        Reason::UnexpectedTls,
        "it speaks TLS, but this daemon was started with --insecure: start this one with --ca, \
         --cert and --key, or that one with --insecure",
    )
}

write_through!(ServerIo);
