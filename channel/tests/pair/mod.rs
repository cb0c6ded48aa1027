//! Links and a server over real TCP on loopback, for tests.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_channel::link::{self, LinkConfig, LinkHandle};
use millrace_channel::server::{
    self, AttachEvent, AttachEvents, Attached, ServerConfig, ServerHandle,
};
use millrace_channel::transport::Security;
use millrace_channel::upkeep::Backoff;
use millrace_daemon::listen;
use millrace_notation::address::HostPort;
use millrace_proto::v1::refused::Code;
use millrace_proto::{FlowKey, FlowRecord, HeaderRecord};
use millrace_routes::copier::LinkEvent;
use millrace_routes::interceptor::ConnId;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Far longer than anything here takes: reached only when a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct TestServer {
    pub handle: ServerHandle,
    pub events: AttachEvents,
    pub woken: Arc<AtomicUsize>,
}

pub fn server_at(address: SocketAddr, change: impl FnOnce(&mut ServerConfig)) -> TestServer {
    let mut config = ServerConfig::new(Security::Insecure, "rs1");
    change(&mut config);
    let listener = listen::bind(address, "-p").unwrap();
    let woken = Arc::new(AtomicUsize::new(0));
    let count = woken.clone();
    let (handle, events) = server::spawn(config, listener, &Handle::current(), move || {
        count.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    TestServer {
        handle,
        events,
        woken,
    }
}

pub fn server() -> TestServer {
    server_at("127.0.0.1:0".parse().unwrap(), |_| {})
}

impl TestServer {
    pub async fn next(&mut self) -> AttachEvent {
        timeout(PATIENCE, self.events.next())
            .await
            .expect("no event")
            .expect("server gone")
    }

    pub async fn attached(&mut self) -> (ConnId, Attached) {
        match self.next().await {
            AttachEvent::Attached { conn, who } => (conn, who),
            other => panic!("not Attached: {other:?}"),
        }
    }

    pub async fn detached(&mut self) -> ConnId {
        match self.next().await {
            AttachEvent::Detached { conn } => conn,
            other => panic!("not Detached: {other:?}"),
        }
    }

    /// Kills the process, as far as a peer can tell: sockets and all.
    pub async fn kill(self) -> SocketAddr {
        let address = self.handle.local_addr();
        drop(self);
        // Until the port is free.
        for _ in 0..200 {
            if TcpListener::bind(address).is_ok() {
                return address;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server does not let go of {address}");
    }
}

pub struct TestLink {
    pub handle: LinkHandle,
    pub events: UnboundedReceiver<LinkEvent>,
}

pub fn link_to(address: SocketAddr, change: impl FnOnce(&mut LinkConfig)) -> TestLink {
    let mut config = LinkConfig::new(HostPort::from(address), Security::Insecure, "live-1");
    config.peer.backoff = Backoff {
        first: Duration::from_millis(5),
        max: Duration::from_millis(40),
    };
    change(&mut config);
    let (sender, events) = unbounded_channel();
    let handle = link::spawn(config, &Handle::current(), move |event| {
        let _ = sender.send(event);
    });
    TestLink { handle, events }
}

impl TestLink {
    pub async fn next(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("no event")
            .expect("link gone")
    }

    pub async fn up(&mut self) -> u64 {
        match self.next().await {
            LinkEvent::Up { epoch, .. } => epoch,
            other => panic!("not Up: {other:?}"),
        }
    }

    pub async fn down(&mut self) -> (u64, String) {
        match self.next().await {
            LinkEvent::Down { epoch, reason } => (epoch, reason),
            other => panic!("not Down: {other:?}"),
        }
    }

    pub async fn refused(&mut self) -> (Code, String, String) {
        loop {
            match self.next().await {
                LinkEvent::Refused {
                    code,
                    reason,
                    owner,
                } => return (code, reason, owner),
                LinkEvent::Down { .. } | LinkEvent::Up { .. } => {}
                LinkEvent::Headers { .. }
                | LinkEvent::Conflict { .. }
                | LinkEvent::Traced(_)
                | LinkEvent::Others { .. }
                | LinkEvent::Taken { .. }
                | LinkEvent::Granted => {
                    panic!("headers")
                }
            }
        }
    }

    pub async fn headers(&mut self) -> (Vec<u8>, u32, u64) {
        match self.next().await {
            LinkEvent::Headers {
                bytes,
                count,
                dropped,
                ..
            } => (bytes.to_vec(), count, dropped),
            other => panic!("not Headers: {other:?}"),
        }
    }
}

pub fn flow(id: u64) -> FlowRecord {
    FlowRecord {
        id,
        target: "198.18.0.9:80".parse().unwrap(),
        client: SocketAddr::from(([198, 18, 1, 1], 1024 + id as u16)),
        with_payload: false,
    }
}

pub fn flows(ids: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ids.for_each(|id| flow(id).encode(&mut bytes).unwrap());
    bytes
}

pub fn header(id: u64) -> Vec<u8> {
    let record = HeaderRecord {
        key: FlowKey::Id(id),
        seq: 1,
        ack: 2,
        flags: 0x10,
        window: 100,
        payload_len: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
        sack: [(0, 0); 4],
        sack_count: 0,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).unwrap();
    bytes
}
