//! One client connection: connects from where it is told, reads with a bound, and ends cleanly.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// More than any line or header of ours.
const LARGEST_HEAD: usize = 64 << 10;
const BUFFER: usize = 16 << 10;

/// Why a session counts as an error.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    #[error("wrong answer: {0}")]
    Wrong(String),
}

/// A connection with what was received and not yet used.
#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
}

impl Client {
    /// From a given address and port (0: any), or from wherever the kernel chooses.
    pub(super) async fn connect(from: Option<SocketAddr>, to: SocketAddr) -> Result<Self, Trouble> {
        let failed = |error| Trouble::Io("connecting", error);
        let socket = if to.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        };
        let socket = socket.map_err(failed)?;
        if let Some(from) = from {
            // Ports in TIME_WAIT, and ports in use towards another service, may be used again.
            socket.set_reuseaddr(true).map_err(failed)?;
            socket
                .bind(from)
                .map_err(|error| Trouble::Io("binding the client's address", error))?;
        }
        let stream = socket.connect(to).await.map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            start: 0,
            filled: 0,
        })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.stream
            .write_all(bytes)
            .await
            .map_err(|error| Trouble::Io("sending", error))
    }

    /// What was received and not yet used.
    pub(super) fn received(&self) -> &[u8] {
        self.buffer.get(self.start..self.filled).unwrap_or_default()
    }

    /// Marks the first `length` bytes of [`Self::received`] as used.
    pub(super) fn used(&mut self, length: usize) {
        self.start = (self.start + length).min(self.filled);
    }

    /// Waits for more; an end of the stream is an error.
    pub(super) async fn more(&mut self) -> Result<(), Trouble> {
        self.buffer.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.buffer.len() {
            if self.buffer.len() >= LARGEST_HEAD {
                return Err(Trouble::Wrong("a line or header without an end".to_owned()));
            }
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let space = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let read = self
            .stream
            .read(space)
            .await
            .map_err(|error| Trouble::Io("receiving", error))?;
        if read == 0 {
            return Err(Trouble::Wrong(
                "the server closed before its answer was complete".to_owned(),
            ));
        }
        self.filled += read;
        Ok(())
    }

    /// Receives exactly this.
    pub(super) async fn expect(&mut self, expected: &[u8]) -> Result<(), Trouble> {
        let mut rest = expected;
        while !rest.is_empty() {
            let received = self.received();
            let length = received.len().min(rest.len());
            let (head, tail) = rest.split_at(length);
            if received.get(..length) != Some(head) {
                let seen =
                    String::from_utf8_lossy(received.get(..length.min(60)).unwrap_or_default());
                return Err(Trouble::Wrong(format!("'{seen}'")));
            }
            self.used(length);
            rest = tail;
            if !rest.is_empty() {
                self.more().await?;
            }
        }
        Ok(())
    }

    /// Sends a FIN and waits for the server's; whatever still comes is one byte too many.
    pub(super) async fn close(mut self) -> Result<(), Trouble> {
        self.stream
            .shutdown()
            .await
            .map_err(|error| Trouble::Io("closing", error))?;
        self.closed_by_server().await
    }

    /// Waits for the server's FIN.
    pub(super) async fn closed_by_server(&mut self) -> Result<(), Trouble> {
        let mut scrap = [0; 64];
        let unexpected = !self.received().is_empty();
        let read = self
            .stream
            .read(&mut scrap)
            .await
            .map_err(|error| Trouble::Io("closing", error))?;
        if unexpected || read > 0 {
            return Err(Trouble::Wrong("more than was asked for".to_owned()));
        }
        Ok(())
    }
}
