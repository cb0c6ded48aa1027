//! Links and a server over real TCP on loopback: what a copier and an interceptor rely on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unused_crate_dependencies
)]

mod pair;

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use millrace_channel::link::{self, LinkConfig};
use millrace_channel::server::AttachEvent;
use millrace_channel::transport::Security;
use millrace_daemon::incarnation::Incarnation;
use millrace_notation::address::HostPort;
use millrace_proto::v1::refused::Code;
use millrace_proto::{ClaimSet, ClientRange, FlowKey, FlowRecords, HeaderRecords};
use millrace_routes::copier::{LinkEvent, SendError, Uplink};
use tokio::runtime::Handle;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;

use pair::*;

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

    link.handle.resync_begin(epoch).unwrap();
    link.handle.announce(epoch, flows(0..3)).unwrap();
    link.handle.resync_end(epoch).unwrap();
    link.handle
        .forget(epoch, 2u64.to_be_bytes().to_vec())
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
        .map(|it| it.unwrap().header.key)
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
        link.handle.announce(1, flows(0..1)),
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
    link.handle.announce(first, flows(0..5)).unwrap();
    assert!(matches!(
        server.next().await,
        AttachEvent::Announce { count: 5, .. }
    ));

    let address = server.kill().await;
    let (ended, reason) = link.down().await;
    assert_eq!(ended, first);
    assert!(!reason.is_empty());
    assert!(link.handle.announce(first, flows(5..6)).is_err());

    let mut server = server_at(address, |_| {});
    let second = link.up().await;
    assert_eq!(second, first + 1);
    server.attached().await;
    // What a shard has left over from the old epoch does not get into the new one.
    assert_eq!(
        link.handle.announce(first, flows(5..6)),
        Err(SendError::NotConnected)
    );
    link.handle.resync_begin(second).unwrap();
    link.handle.announce(second, flows(0..6)).unwrap();
    link.handle.resync_end(second).unwrap();
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
    server.handle.stop().await;
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
        ..ClaimSet::default()
    };
    link.handle.claim(epoch, &claim).unwrap();
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
async fn claims_are_read_no_faster_than_they_can_be_compared() {
    let any = "127.0.0.1:0".parse().unwrap();
    let mut server = server_at(any, |it| it.max_bytes_per_second = 32 << 20);
    let mut link = link_to(server.handle.local_addr(), |it| it.claims = true);
    server.attached().await;
    let epoch = link.up().await;
    let began = Instant::now();
    for _ in 0..40 {
        let claim = ClaimSet::default();
        link.handle.claim(epoch, &claim).unwrap();
    }
    let mut claims = 0;
    while claims < 40 {
        claims += u32::from(matches!(server.next().await, AttachEvent::Claim { .. }));
    }
    // A quarter of a second's worth is read at once.
    assert!(began.elapsed() > Duration::from_millis(500));
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
    config.peer.timeouts.keepalive_timeout = PATIENCE;
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
    let up = timeout(PATIENCE, slow_events.recv()).await.unwrap();
    assert!(matches!(up, Some(LinkEvent::Up { epoch: 1, .. })), "{up:?}");
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
        match link.handle.announce(epoch, batch.clone()) {
            Ok(()) => sent += 1,
            // The stream may only be a little behind: full is when it stays so.
            Err(SendError::Full) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                if link.handle.announce(epoch, batch.clone()).is_err() {
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
        it.peer.timeouts.connect = Duration::from_millis(50);
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
    let address = millrace_notation::address::DefaultPort(1)
        .parse("no-such-host.invalid")
        .unwrap();
    let mut config = LinkConfig::new(address, Security::Insecure, "live-1");
    config.peer.backoff.max = Duration::from_millis(20);
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
