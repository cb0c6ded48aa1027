//! Peers that break the contract, lie or fall silent: they are refused in words, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unused_crate_dependencies
)]

mod pair;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_channel::link::{self, LinkConfig};
use millrace_channel::server::AttachEvent;
use millrace_channel::transport::Security;
use millrace_notation::address::HostPort;
use millrace_proto::v1::copier_message::Kind;
use millrace_proto::v1::interceptor_client::InterceptorClient;
use millrace_proto::v1::interceptor_message::Kind as Answer;
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{Announce, CopierMessage, Hello, Refused};
use millrace_proto::{ClaimSet, ClientRange};
use millrace_routes::copier::{SendError, Uplink};
use tokio::time::timeout;

use pair::*;

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
    bad.handle.announce(epoch, vec![0xff; 100]).unwrap();
    let (code, reason, _) = bad.refused().await;
    assert_eq!(code, Code::Malformed);
    assert!(reason.contains("address family"), "{reason}");
    assert_eq!(server.detached().await, conn);
    assert_eq!(server.handle.status().malformed, 1);
    bad.handle.close();

    assert!(good.handle.status().connected);
    good.handle.announce(1, flows(0..1)).unwrap();
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
    let mut link = link_to(server.handle.local_addr(), |_| {});
    server.attached().await;
    let epoch = link.up().await;
    let (first, last) = ("198.18.9.1".parse().unwrap(), "198.18.9.9".parse().unwrap());
    let claim = ClaimSet {
        ranges: vec![ClientRange::new(first, last, 1, 65_535).unwrap()],
        ..ClaimSet::default()
    };
    link.handle.claim(epoch, &claim).unwrap();
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
        link.handle.announce(epoch, flows(0..100)),
        Err(SendError::TooLarge)
    );
    link.handle.announce(epoch, flows(0..40)).unwrap();
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
        (
            it.peer.timeouts.keepalive_interval,
            it.peer.timeouts.keepalive_timeout,
        ) = quick;
    });
    let (conn, _) = server.attached().await;
    link.up().await;
    // Pings are answered: quiet alone is no silence.
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(link.handle.status().connected);

    silent.notify_one();
    let (_, reason) = link.down().await;
    let said = "the connection was lost (nothing was heard of it for ";
    assert!(reason.contains(said), "{reason}");
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
