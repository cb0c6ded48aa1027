//! A server that hashes the byte stream of every connection and writes one JSON line about each that ended.
//!
//! Run on a live server and on a target, its two files say whether the target received what the live server
//! received: see [`crate::records`]. It goes on reading whatever happens to its own answers, so that both record
//! the same bytes even where a client left before it had read everything.

mod connection;
mod dialogue;
mod greeting;
mod http;
mod remote;
mod resp;
mod writer;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

pub use remote::Recorder;

use crate::error::{Doing, Result};
use connection::Connection;
use writer::{RecordWriter, Records};

/// What the kernel may queue for `accept`: a burst of a whole test's connections.
const BACKLOG: u32 = 65_535;
/// How long `accept` pauses when the process has run out of descriptors.
const PAUSE: Duration = Duration::from_millis(20);

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 (RFC 9112): keep-alive, pipelining, `GET /bytes/N`, uploads with Content-Length.
    Http,
    /// RESP2, the protocol of redis.
    Resp,
    /// Lines in the manner of SMTP (RFC 5321): the server speaks first.
    Greeting,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Resp => "resp",
            Self::Greeting => "greeting",
        })
    }
}

/// How the client's side of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// With a FIN.
    Fin,
    /// With a reset, of either side.
    Reset,
    /// Not at all: the recorder was stopped first.
    Open,
}

/// One line of the file: what one connection brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was spoken.
    pub proto: Protocol,
    /// The recorder's own port.
    pub port: u16,
    /// The client.
    pub peer: SocketAddr,
    /// Bytes received.
    pub bytes: u64,
    /// XXH3, 128 bits, of those bytes, in hexadecimal.
    pub hash: String,
    /// How it ended.
    pub end: End,
    /// Complete requests in those bytes.
    pub requests: u64,
}

/// What the recorder does.
#[derive(Clone, Debug, Default)]
pub struct RecorderConfig {
    /// Ports that speak HTTP.
    pub http: Vec<u16>,
    /// Ports that speak RESP.
    pub resp: Vec<u16>,
    /// Ports that speak first.
    pub greeting: Vec<u16>,
    /// The file for the records; made anew.
    pub out: PathBuf,
    /// How it behaves on each connection.
    pub manners: Manners,
}

/// How the recorder behaves on each connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Wait this long before each answer.
    pub delay: Duration,
    /// Reset the connection in place of its answer number N.
    pub reset_every: Option<u64>,
    /// Send a FIN when a connection was idle this long.
    pub close_idle: Option<Duration>,
}

/// Listens and records until `stop` is done; then writes records of the connections that are still open too.
///
/// # Errors
/// When a port is in use or the file cannot be written.
pub async fn serve(config: RecorderConfig, stop: impl Future<Output = ()>) -> Result<()> {
    let writer = RecordWriter::create(&config.out)?;
    let (stopping, stopped) = watch::channel(());
    let mut accepting = Vec::new();
    let ports = [
        (Protocol::Http, &config.http),
        (Protocol::Resp, &config.resp),
        (Protocol::Greeting, &config.greeting),
    ];
    for (protocol, port) in ports
        .into_iter()
        .flat_map(|(protocol, ports)| ports.iter().map(move |port| (protocol, *port)))
    {
        let service = Arc::new(Service {
            protocol,
            port,
            manners: config.manners,
            records: writer.records(),
            stopped: stopped.clone(),
        });
        accepting.push(tokio::spawn(accept(listen(port)?, service)));
    }
    drop(stopped);
    stop.await;
    for task in &accepting {
        task.abort();
    }
    drop(stopping);
    for task in accepting {
        // An aborted task ends with an error that says so.
        let _ = task.await;
    }
    writer.finish().await
}

/// What the connections of one port share.
#[derive(Debug)]
struct Service {
    protocol: Protocol,
    port: u16,
    manners: Manners,
    records: Records,
    /// Its other end is dropped when the recorder stops.
    stopped: watch::Receiver<()>,
}

/// One socket for both families; for IPv4 alone where the kernel has no IPv6.
fn listen(port: u16) -> Result<TcpListener> {
    let doing = || format!("listening on port {port} (is something else using it?)");
    let socket = TcpSocket::new_v6();
    let (socket, any) = match socket {
        Ok(socket) => (socket, IpAddr::from(Ipv6Addr::UNSPECIFIED)),
        Err(_) => (
            TcpSocket::new_v4().doing(doing)?,
            IpAddr::from(Ipv4Addr::UNSPECIFIED),
        ),
    };
    socket.set_reuseaddr(true).doing(doing)?;
    socket.bind(SocketAddr::new(any, port)).doing(doing)?;
    socket.listen(BACKLOG).doing(doing)
}

async fn accept(listener: TcpListener, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Failing would only mean that answers leave a little later.
                let _ = stream.set_nodelay(true);
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let service = Arc::clone(&service);
                tokio::spawn(async move { Connection::new(&service).serve(stream, peer).await });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
