//! An accepted connection: its bytes, who is at the other end, and its deadline.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    idle: Idle,
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
    /// Open streams.
    streams: Arc<AtomicUsize>,
}

/// A stream is open on the connection, until this is dropped.
#[derive(Debug)]
pub struct Vouched {
    streams: Arc<AtomicUsize>,
}

impl Drop for Vouched {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
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
    pub fn vouch(&self) -> Vouched {
        self.streams.fetch_add(1, Ordering::Relaxed);
        Vouched {
            streams: self.streams.clone(),
        }
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
                streams: Arc::default(),
            },
            idle: Idle::default(),
            handshakes,
            _slot: slot,
        }
    }
}

/// How long a connection has been without a stream.
#[derive(Debug, Default)]
struct Idle {
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    /// Ready when the connection has been without one for too long. Each read asks, and the answers
    /// to this side's pings are reads.
    fn poll_over(&mut self, streams: usize, cx: &mut Context<'_>) -> Poll<()> {
        if streams > 0 {
            self.deadline = None;
            return Poll::Pending;
        }
        let begin = || Box::pin(tokio::time::sleep(ATTACH_WITHIN));
        self.deadline.get_or_insert_with(begin).as_mut().poll(cx)
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
        let this = &mut *self;
        let streams = this.peer.streams.load(Ordering::Relaxed);
        if this.idle.poll_over(streams, cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_some_time_after_its_last_stream() {
        let peer = Peer {
            address: None,
            identity: None,
            streams: Arc::default(),
        };
        let mut idle = Idle::default();
        let streams = || peer.streams.load(Ordering::Relaxed);
        let mut over = async |within: Duration| {
            let over = poll_fn(|cx| idle.poll_over(streams(), cx));
            tokio::time::timeout(within, over).await.is_ok()
        };
        assert!(!over(ATTACH_WITHIN / 2).await);
        let vouched = [peer.vouch(), peer.vouch()];
        assert!(!over(10 * ATTACH_WITHIN).await);
        let [first, last] = vouched;
        drop(first);
        assert!(!over(10 * ATTACH_WITHIN).await);
        drop(last);
        assert!(!over(ATTACH_WITHIN / 2).await);
        assert!(over(ATTACH_WITHIN).await);
    }
}
