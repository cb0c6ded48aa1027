//! Links and a server over real TCP on loopback: what a copier and an interceptor rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unused_crate_dependencies
)]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millrace_fleet::address::HostPort;
use millrace_fleet::incarnation::Incarnation;
use millrace_fleet::link::{self, Backoff, LinkConfig, LinkEvent, LinkHandle, SendError};
use millrace_fleet::listen;
use millrace_fleet::server::{
    self, AttachEvent, AttachEvents, Attached, ConnId, ServerConfig, ServerHandle,
};
use millrace_fleet::transport::Security;
use millrace_proto::v1::copier_message::Kind;
use millrace_proto::v1::interceptor_client::InterceptorClient;
use millrace_proto::v1::interceptor_message::Kind as Answer;
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{Announce, CopierMessage, Hello, Refused};
use millrace_proto::{
    ClaimSet, ClientRange, FlowKey, FlowRecord, FlowRecords, HeaderRecord, HeaderRecords,
};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(10);

struct TestServer {
    handle: ServerHandle,
    events: AttachEvents,
    woken: Arc<AtomicUsize>,
}

fn server_at(address: SocketAddr, change: impl FnOnce(&mut ServerConfig)) -> TestServer {
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

fn server() -> TestServer {
    server_at("127.0.0.1:0".parse().unwrap(), |_| {})
}

impl TestServer {
    async fn next(&mut self) -> AttachEvent {
        timeout(PATIENCE, self.events.next())
            .await
            .expect("no event")
            .expect("server gone")
    }

    async fn attached(&mut self) -> (ConnId, Attached) {
        match self.next().await {
            AttachEvent::Attached { conn, who } => (conn, who),
            other => panic!("not Attached: {other:?}"),
        }
    }

    async fn detached(&mut self) -> ConnId {
        match self.next().await {
            AttachEvent::Detached { conn } => conn,
            other => panic!("not Detached: {other:?}"),
        }
    }

    /// Kills the process, as far as a peer can tell: sockets and all.
    async fn kill(self) -> SocketAddr {
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

struct TestLink {
    handle: LinkHandle,
    events: UnboundedReceiver<LinkEvent>,
}

fn link_to(address: SocketAddr, change: impl FnOnce(&mut LinkConfig)) -> TestLink {
    let mut config = LinkConfig::new(HostPort::from(address), Security::Insecure, "live-1");
    config.backoff = Backoff {
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
    async fn next(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("no event")
            .expect("link gone")
    }

    async fn up(&mut self) -> u64 {
        match self.next().await {
            LinkEvent::Up { epoch, .. } => epoch,
            other => panic!("not Up: {other:?}"),
        }
    }

    async fn down(&mut self) -> (u64, String) {
        match self.next().await {
            LinkEvent::Down { epoch, reason } => (epoch, reason),
            other => panic!("not Down: {other:?}"),
        }
    }

    async fn refused(&mut self) -> (Code, String, String) {
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
                | LinkEvent::Granted => {
                    panic!("headers")
                }
            }
        }
    }

    async fn headers(&mut self) -> (Vec<u8>, u32, u64) {
        match self.next().await {
            LinkEvent::Headers {
                bytes,
                count,
                dropped,
            } => (bytes.to_vec(), count, dropped),
            other => panic!("not Headers: {other:?}"),
        }
    }
}

fn flow(id: u64) -> FlowRecord {
    FlowRecord {
        id,
        target: "198.18.0.9:80".parse().unwrap(),
        client: SocketAddr::from(([198, 18, 1, 1], 1024 + id as u16)),
    }
}

fn flows(ids: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ids.for_each(|id| flow(id).encode(&mut bytes).unwrap());
    bytes
}

fn header(id: u64) -> Vec<u8> {
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

#[tokio::test(flavor = "multi_thread")]
async fn route_info_goes_up_and_headers_come_down() {
    let mut server = server();
    let mut link = link_to(server.handle.local_addr(), |_| {});
    let (conn, who) = server.attached().await;
    assert_eq!(
        (who.copier_id.as_str(), who.link, who.links, who.claims),
        ("live-1", 0, 1, false)
    );
    let epoch = link.up().await;
    assert_eq!(epoch, 1);

    link.handle.try_resync_begin(epoch).unwrap();
    link.handle.try_announce(epoch, flows(0..3)).unwrap();
    link.handle.try_resync_end(epoch).unwrap();
    link.handle
        .try_forget(epoch, 2u64.to_be_bytes().to_vec())
        .unwrap();
    assert!(matches!(server.next().await, AttachEvent::ResyncBegin { conn: c } if c == conn));
    match server.next().await {
        AttachEvent::Announce {
            conn: c,
            flows,
            count,
        } => {
            let ids: Vec<_> = FlowRecords::new(&flows).map(|it| it.unwrap().id).collect();
            assert_eq!((c, ids, count), (conn, vec![0, 1, 2], 3));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(server.next().await, AttachEvent::ResyncEnd { .. }));
    assert!(matches!(
        server.next().await,
        AttachEvent::Forget { count: 1, .. }
    ));
    // The call comes after the event.
    while server.woken.load(Ordering::Relaxed) < 5 {
        tokio::task::yield_now().await;
    }

    let queue = who.queue.clone();
    std::thread::spawn(move || queue.push(header(7), 1))
        .join()
        .unwrap();
    let (bytes, count, dropped) = link.headers().await;
    let keys: Vec<_> = HeaderRecords::new(&bytes)
        .map(|it| it.unwrap().key)
        .collect();
    assert_eq!((keys, count, dropped), (vec![FlowKey::Id(7)], 1, 0));

    let status = server.handle.status();
    assert_eq!(
        (status.announced, status.forgotten, status.malformed),
        (3, 1, 0)
    );
    assert_eq!(status.connections[0].queue.sent, 1);
    let status = link.handle.status();
    assert!(status.connected && status.headers_in == 1 && status.interceptor_id == "rs1");
    assert_eq!(status.bytes_out, 3 * 21 + 8 + "live-1".len() as u64);

    drop(link);
    assert_eq!(server.detached().await, conn);
    assert_eq!(server.handle.status().malformed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_started_first_finds_the_interceptor_when_it_comes() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut link = link_to(address, |_| {});
    while link.handle.status().attempts < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = link.handle.status();
    assert!(!status.connected);
    assert!(
        status.last_error.contains("refuses the connection"),
        "{}",
        status.last_error
    );
    assert_eq!(
        link.handle.try_announce(1, flows(0..1)),
        Err(SendError::NotConnected)
    );

    let mut server = server_at(address, |_| {});
    server.attached().await;
    assert_eq!(link.up().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interceptor_killed_and_back_gets_everything_again_in_a_new_epoch() {
    let mut server = server();
    let mut link = link_to(server.handle.local_addr(), |_| {});
    server.attached().await;
    let first = link.up().await;
    link.handle.try_announce(first, flows(0..5)).unwrap();
    assert!(matches!(
        server.next().await,
        AttachEvent::Announce { count: 5, .. }
    ));

    let address = server.kill().await;
    let (ended, reason) = link.down().await;
    assert_eq!(ended, first);
    assert!(!reason.is_empty());
    assert!(link.handle.try_announce(first, flows(5..6)).is_err());

    let mut server = server_at(address, |_| {});
    let second = link.up().await;
    assert_eq!(second, first + 1);
    server.attached().await;
    // What a shard has left over from the old epoch does not get into the new one.
    assert_eq!(
        link.handle.try_announce(first, flows(5..6)),
        Err(SendError::NotConnected)
    );
    link.handle.try_resync_begin(second).unwrap();
    link.handle.try_announce(second, flows(0..6)).unwrap();
    link.handle.try_resync_end(second).unwrap();
    assert!(matches!(
        server.next().await,
        AttachEvent::ResyncBegin { .. }
    ));
    assert!(matches!(
        server.next().await,
        AttachEvent::Announce { count: 6, .. }
    ));
    assert!(matches!(server.next().await, AttachEvent::ResyncEnd { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interceptor_that_ends_in_order_says_so_and_is_found_again() {
    let mut server = server();
    let mut link = link_to(server.handle.local_addr(), |_| {});
    server.attached().await;
    link.up().await;
    server.handle.stop();
    let (code, _, _) = link.refused().await;
    assert_eq!(code, Code::ShuttingDown);
    let address = server.kill().await;
    let mut server = server_at(address, |_| {});
    server.attached().await;
    assert_eq!(link.up().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_links_of_one_copier_have_streams_of_their_own() {
    let mut server = server();
    let incarnation = Incarnation::start();
    let mut links: Vec<_> = (0..3)
        .map(|number| {
            link_to(server.handle.local_addr(), |config| {
                config.incarnation = incarnation;
                config.link = number;
                config.links = 3;
            })
        })
        .collect();
    let mut queues = Vec::new();
    for _ in 0..3 {
        let (_, who) = server.attached().await;
        queues.push((who.link, who.queue));
    }
    queues.sort_by_key(|(link, _)| *link);
    for (number, link) in links.iter_mut().enumerate() {
        link.up().await;
        queues[number].1.push(header(number as u64), 1);
        assert_eq!(link.headers().await.0, header(number as u64));
    }
    assert_eq!(server.handle.status().connections.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_takes_over_and_the_earlier_one_is_told() {
    let mut server = server();
    let run = |id, started_at_ms| Incarnation { id, started_at_ms };
    let mut old = link_to(server.handle.local_addr(), |it| {
        it.incarnation = run(1, 100)
    });
    let (first, _) = server.attached().await;
    old.up().await;

    let mut new = link_to(server.handle.local_addr(), |it| {
        it.incarnation = run(2, 200)
    });
    assert_eq!(server.detached().await, first);
    let (_, who) = server.attached().await;
    assert_eq!(who.incarnation, run(2, 200));
    new.up().await;

    let (code, _, _) = old.refused().await;
    assert_eq!(code, Code::Replaced);
    // It comes back, and is told who is there; the new one does not notice.
    let (code, reason, owner) = old.refused().await;
    assert_eq!((code, owner.as_str()), (Code::Replaced, "live-1"));
    assert!(reason.contains("started later"), "{reason}");
    assert!(new.handle.status().connected);
    assert!(new.events.try_recv().is_err());

    // Once the new one is gone, the old one serves again.
    drop(new);
    old.events.close();
    while old.events.recv().await.is_some() {}
    server.detached().await;
    let (_, who) = server.attached().await;
    assert_eq!(who.incarnation, run(1, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_arrives_checked_and_its_refusal_names_the_owner() {
    let mut server = server();
    let mut link = link_to(server.handle.local_addr(), |it| it.claims = true);
    let (_, who) = server.attached().await;
    let epoch = link.up().await;
    let (first, last) = (
        "198.18.1.1".parse().unwrap(),
        "198.18.1.254".parse().unwrap(),
    );
    let claim = ClaimSet {
        ranges: vec![ClientRange::new(first, last, 1024, 65535).unwrap()],
        targets: vec!["198.18.0.9:80".parse().unwrap()],
    };
    link.handle.try_claim(epoch, &claim).unwrap();
    match server.next().await {
        AttachEvent::Claim {
            claim: received, ..
        } => assert_eq!(received, claim),
        other => panic!("{other:?}"),
    }
    who.queue
        .refuse(Code::ClaimConflict, "198.18.1.0/24 is taken", "live-2");
    let (code, reason, owner) = link.refused().await;
    assert_eq!(code, Code::ClaimConflict);
    assert_eq!(
        (reason.as_str(), owner.as_str()),
        ("198.18.1.0/24 is taken", "live-2")
    );
    server.detached().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_that_stream_only() {
    let mut server = server();
    let mut good = link_to(server.handle.local_addr(), |_| {});
    server.attached().await;
    good.up().await;

    let mut bad = link_to(server.handle.local_addr(), |it| {
        it.copier_id = "bad".to_owned()
    });
    let (conn, _) = server.attached().await;
    let epoch = bad.up().await;
    bad.handle.try_announce(epoch, vec![0xff; 100]).unwrap();
    let (code, reason, _) = bad.refused().await;
    assert_eq!(code, Code::Malformed);
    assert!(reason.contains("address family"), "{reason}");
    assert_eq!(server.detached().await, conn);
    assert_eq!(server.handle.status().malformed, 1);
    bad.handle.close();

    assert!(good.handle.status().connected);
    good.handle.try_announce(1, flows(0..1)).unwrap();
    loop {
        match server.next().await {
            AttachEvent::Announce { count, .. } => break assert_eq!(count, 1),
            AttachEvent::Attached { who, .. } => assert_eq!(who.copier_id, "bad"),
            AttachEvent::Detached { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn route_info_of_the_wrong_form_is_refused() {
    let mut server = server();
    let mut link = link_to(server.handle.local_addr(), |it| it.claims = true);
    server.attached().await;
    let epoch = link.up().await;
    link.handle.try_announce(epoch, flows(0..1)).unwrap();
    assert_eq!(link.refused().await.0, Code::Malformed);
}

/// A peer that says whatever it likes.
async fn say(address: SocketAddr, kinds: Vec<Kind>) -> Refused {
    let mut client = InterceptorClient::connect(format!("http://{address}"))
        .await
        .unwrap();
    let messages = kinds
        .into_iter()
        .map(|kind| CopierMessage { kind: Some(kind) });
    let open =
        tokio_stream::StreamExt::chain(tokio_stream::iter(messages), tokio_stream::pending());
    let mut answers = client.attach(open).await.unwrap().into_inner();
    loop {
        let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap();
        match answer.expect("no refusal").kind.unwrap() {
            Answer::Refused(refused) => {
                assert_eq!(
                    answers.message().await.unwrap(),
                    None,
                    "the stream ends after it"
                );
                return refused;
            }
            Answer::Welcome(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn hello() -> Hello {
    Hello {
        protocol_version: 1,
        copier_id: "rude".to_owned(),
        incarnation: 1,
        started_at_ms: 1,
        link: 0,
        links: 1,
        claims: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_break_the_contract_are_refused_in_words_and_counted() {
    let server = server_at("127.0.0.1:0".parse().unwrap(), |it| {
        it.max_message_bytes = 1000;
        it.hello_timeout = Duration::from_millis(50);
    });
    let address = server.handle.local_addr();
    let announce = |bytes: Vec<u8>| {
        Kind::Announce(Announce {
            flows: bytes.into(),
        })
    };
    let no_name = Hello {
        copier_id: String::new(),
        ..hello()
    };
    let mut refused = 0;
    for (kinds, said) in [
        (
            vec![Kind::Hello(hello()), announce(flows(0..100))],
            "too large",
        ),
        (
            vec![Kind::Hello(hello()), announce(vec![0; 9])],
            "Announce: ",
        ),
        (
            vec![Kind::Hello(hello()), Kind::Hello(hello())],
            "second Hello",
        ),
        (vec![Kind::Hello(no_name)], "name must be"),
        (vec![announce(flows(0..1))], "first message is not Hello"),
        (vec![], "no Hello came in time"),
    ] {
        let answer = say(address, kinds).await;
        assert_eq!(answer.code(), Code::Malformed, "{answer:?}");
        assert!(answer.reason.contains(said), "{answer:?}");
        refused += 1;
        assert_eq!(server.handle.status().malformed, refused);
    }
    let old = Hello {
        protocol_version: 0,
        ..hello()
    };
    let answer = say(address, vec![Kind::Hello(old)]).await;
    assert_eq!(answer.code(), Code::Version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_keeps_to_the_message_size_that_the_interceptor_takes() {
    let mut server = server_at("127.0.0.1:0".parse().unwrap(), |it| {
        it.max_message_bytes = 1000
    });
    let mut link = link_to(server.handle.local_addr(), |_| {});
    server.attached().await;
    let epoch = link.up().await;
    assert_eq!(
        link.handle.try_announce(epoch, flows(0..100)),
        Err(SendError::TooLarge)
    );
    link.handle.try_announce(epoch, flows(0..40)).unwrap();
    assert!(matches!(
        server.next().await,
        AttachEvent::Announce { count: 40, .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copier_that_dies_is_detached_and_not_taken_for_a_rude_one() {
    let mut server = server();
    let address = server.handle.local_addr();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = LinkConfig::new(HostPort::from(address), Security::Insecure, "live-1");
    let _link = link::spawn(config, runtime.handle(), |_| {});
    let (conn, _) = server.attached().await;
    runtime.shutdown_background();
    assert_eq!(server.detached().await, conn);
    assert_eq!(server.handle.status().malformed, 0);
}

/// Between the two a host that goes silent without closing anything.
#[tokio::test(flavor = "multi_thread")]
async fn silence_is_noticed_by_both_sides() {
    let quick = (Duration::from_millis(100), Duration::from_millis(400));
    let mut server = server_at("127.0.0.1:0".parse().unwrap(), |it| {
        (it.keepalive_interval, it.keepalive_timeout) = quick;
    });
    let address = server.handle.local_addr();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let middle = listener.local_addr().unwrap();
    let silent = Arc::new(tokio::sync::Notify::new());
    let cut = silent.clone();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
            () = cut.notified() => std::future::pending().await,
        }
    });
    let mut link = link_to(middle, |it| {
        (it.keepalive_interval, it.keepalive_timeout) = quick
    });
    let (conn, _) = server.attached().await;
    link.up().await;
    // Pings are answered: quiet alone is no silence.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(link.handle.status().connected);

    silent.notify_one();
    let (_, reason) = link.down().await;
    assert!(reason.contains("the connection was lost"), "{reason}");
    assert_eq!(server.detached().await, conn);
    assert_eq!(server.handle.status().malformed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_http2_hurt_nobody() {
    use std::io::{Read, Write};

    let mut server = server();
    let address = server.handle.local_addr();
    tokio::task::spawn_blocking(move || {
        for garbage in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &[0xff; 4096],
            b"PRI * HTTP/2.0\r\n\r\nSM",
        ] {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_millis(200)))
                .unwrap();
            let _ = stream.write_all(garbage);
            let _ = stream.read(&mut [0; 100]);
        }
    })
    .await
    .unwrap();
    let mut link = link_to(address, |_| {});
    server.attached().await;
    link.up().await;
    assert_eq!(server.handle.status().attached, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_of_streams_a_copier_is_refused_in_words() {
    let mut server = server_at("127.0.0.1:0".parse().unwrap(), |it| it.max_streams = 1);
    let mut first = link_to(server.handle.local_addr(), |_| {});
    server.attached().await;
    first.up().await;
    let mut second = link_to(server.handle.local_addr(), |it| {
        it.copier_id = "live-2".to_owned()
    });
    let (code, reason, _) = second.refused().await;
    assert_eq!(code, Code::Overloaded);
    assert!(reason.contains("attached already"), "{reason}");
}

/// The copier's callback is the only reader: while it blocks, its stream is not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_reader_loses_its_oldest_headers_and_slows_nobody() {
    let mut server = server_at("127.0.0.1:0".parse().unwrap(), |it| {
        it.queue_bytes = 256 << 10
    });
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let (sender, mut slow_events) = unbounded_channel();
    let mut config = LinkConfig::new(
        HostPort::from(server.handle.local_addr()),
        Security::Insecure,
        "slow",
    );
    config.keepalive_timeout = PATIENCE;
    let gate = std::sync::Mutex::new(gate);
    // On a runtime of its own: a worker that is blocked keeps the tasks that it was to run next,
    // and one of them could be the server's or the test's.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let _slow = link::spawn(config, runtime.handle(), move |event| {
        if matches!(event, LinkEvent::Headers { .. }) {
            let _ = gate.lock().unwrap().recv_timeout(PATIENCE);
        }
        let _ = sender.send(event);
    });
    let (_, slow) = server.attached().await;
    let mut fast = link_to(server.handle.local_addr(), |_| {});
    let (_, quick) = server.attached().await;
    fast.up().await;

    // More than sockets, HTTP/2 windows and the queue hold together.
    let batch: Vec<u8> = (0..1000).flat_map(header).collect();
    let mut dropped = 0;
    let mut pushed = 0;
    let mut received = 0;
    for _ in 0..4000 {
        dropped += slow.queue.push(batch.clone(), 1000);
        pushed += 1000;
        if pushed % 100_000 == 0 {
            quick.queue.push(header(1), 1);
            received += u64::from(fast.headers().await.1);
        }
        if dropped > 0 && received >= 3 {
            break;
        }
    }
    assert!(dropped > 0, "nothing was dropped of {pushed}");
    assert_eq!(quick.queue.status().dropped, 0);
    assert!(slow.queue.status().queued_bytes <= 256 << 10);

    // The slow one wakes up: it gets the rest, and learns what it missed.
    drop(open);
    slow.queue.push(header(99), 1);
    let (mut got, mut told) = (0, 0);
    while got + told < pushed + 1 {
        match timeout(PATIENCE, slow_events.recv())
            .await
            .unwrap()
            .unwrap()
        {
            LinkEvent::Headers { count, dropped, .. } => {
                got += u64::from(count);
                told = dropped;
            }
            LinkEvent::Up { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        (got + told, told),
        (pushed + 1, slow.queue.status().dropped)
    );
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_thread_that_does_not_read_slows_the_stream_and_memory_stays_bounded() {
    let mut server = server_at("127.0.0.1:0".parse().unwrap(), |it| it.event_capacity = 4);
    let mut link = link_to(server.handle.local_addr(), |it| it.queue_bytes = 1 << 20);
    server.attached().await;
    let epoch = link.up().await;
    let batch = flows(0..1500);
    let mut sent = 0u64;
    let full = loop {
        match link.handle.try_announce(epoch, batch.clone()) {
            Ok(()) => sent += 1,
            // The stream may only be a little behind: full is when it stays so.
            Err(SendError::Full) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if link.handle.try_announce(epoch, batch.clone()).is_err() {
                    break true;
                }
                sent += 1;
            }
            Err(other) => panic!("{other}"),
        }
        if sent > 2000 {
            break false;
        }
    };
    assert!(full, "nothing holds the stream back");
    assert!(link.handle.status().overflows > 0);
    assert!(link.handle.queued_bytes() <= 1 << 20);

    // Read again: nothing of what was accepted is lost.
    let mut announced = 0;
    while announced < sent * 1500 {
        match server.next().await {
            AttachEvent::Announce { count, .. } => announced += count as u64,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(announced, sent * 1500);
    assert!(link.handle.status().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_accepts_and_says_nothing_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = link_to(listener.local_addr().unwrap(), |it| {
        it.connect_timeout = Duration::from_millis(50);
    });
    let mut waited = 0;
    while link.handle.status().attempts < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        waited += 1;
        assert!(waited < 500, "{:?}", link.handle.status());
    }
    let error = link.handle.status().last_error;
    assert!(error.contains("no answer to Hello"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_said() {
    let address = millrace_fleet::address::DefaultPort(1)
        .parse("no-such-host.invalid")
        .unwrap();
    let mut config = LinkConfig::new(address, Security::Insecure, "live-1");
    config.backoff.max = Duration::from_millis(20);
    let link = link::spawn(config, &Handle::current(), |_| {});
    while link.status().attempts < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = link.status().last_error;
    assert!(
        error.contains("cannot resolve 'no-such-host.invalid'"),
        "{error}"
    );
}
