//! Mutual TLS over real TCP on loopback: who gets in, and who does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    unused_crate_dependencies
)]

mod log;
mod pki;
mod secure;

use std::time::Duration;

use log::Lines;
use millrace_channel::link::LinkConfig;
use millrace_channel::server::{AttachEvent, ServerHandle};
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_notation::address::DefaultPort;
use pki::{Files, Pair, ca, good, params, sign};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use secure::{COPIER, PATIENCE, attempt, link_to, link_with, serve, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn refused(server: &ServerHandle, label: &str) -> u64 {
    for _ in 0..500 {
        let count = server.status().handshakes.refused[label];
        if count > 0 {
            return count;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!(
        "nothing refused as {label}: {:?}",
        server.status().handshakes
    );
}

/// A TLS 1.2 ClientHello (RFC 5246, section 7.4.1.2), without the extension supported_versions.
fn client_hello_of_tls12() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],
        &[0, 11, 0, 2, 1, 0],
        &[0, 13, 0, 4, 0, 2, 4, 3],
    ]
    .concat();
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut hello = vec![
        0x16,
        3,
        1,
        0,
        body.len() as u8 + 4,
        1,
        0,
        0,
        body.len() as u8,
    ];
    hello.extend(body);
    hello
}

#[tokio::test]
async fn wrong_certificates_are_refused_counted_and_named_in_one_line() {
    let lines = Lines::capture();
    let (ours, foreign) = (ca("ours"), ca("foreign"));
    let files = Files::new("table", &[&ours], &good(&ours, "interceptor/rs1"));
    let self_signed = {
        let key = KeyPair::generate().unwrap();
        Pair {
            cert: params(&[COPIER]).self_signed(&key).unwrap().pem(),
            key: key.serialize_pem(),
        }
    };
    let corrupted = {
        let mut pair = good(&ours, "copier/live-1");
        // The last character but four of the base64 is a part of the signature.
        let end = pair.cert.find("\n-----END").unwrap() - 5;
        let other = if &pair.cert[end..=end] == "A" {
            "B"
        } else {
            "A"
        };
        pair.cert.replace_range(end..=end, other);
        pair
    };
    let of = |params: &CertificateParams| Some(sign(&ours, params));
    let table: Vec<(&str, Option<Pair>, &str, &str)> = vec![
        (
            "interceptor's own role",
            Some(good(&ours, "interceptor/rs2")),
            "wrong_role",
            "AccessDenied",
        ),
        (
            "router-agent",
            Some(good(&ours, "router-agent")),
            "wrong_role",
            "AccessDenied",
        ),
        (
            "operator",
            Some(good(&ours, "operator/ann")),
            "wrong_role",
            "AccessDenied",
        ),
        (
            "expired",
            of(&with(COPIER, |it| it.not_after = date_time_ymd(2021, 1, 1))),
            "expired",
            "CertificateExpired",
        ),
        (
            "not yet valid",
            of(&with(COPIER, |it| {
                it.not_before = date_time_ymd(2099, 1, 1)
            })),
            "not_yet_valid",
            "CertificateExpired",
        ),
        (
            "unknown CA",
            Some(good(&foreign, "copier/live-1")),
            "unknown_ca",
            "UnknownCA",
        ),
        ("self-signed", Some(self_signed), "unknown_ca", "UnknownCA"),
        (
            "corrupted",
            Some(corrupted),
            "bad_certificate",
            "DecryptError",
        ),
        (
            "no certificate",
            None,
            "no_certificate",
            "CertificateRequired",
        ),
        ("no URI", of(&params(&[])), "bad_identity", "BadCertificate"),
        (
            "two URIs",
            of(&params(&[
                COPIER,
                "spiffe://example.test/millrace/operator",
            ])),
            "bad_identity",
            "BadCertificate",
        ),
        (
            "another program's URI",
            of(&params(&["spiffe://example.test/ns/default/sa/web"])),
            "bad_identity",
            "BadCertificate",
        ),
        (
            "no such role",
            of(&params(&["spiffe://example.test/millrace/admin"])),
            "bad_identity",
            "BadCertificate",
        ),
        (
            "another trust domain",
            of(&params(&["spiffe://other.test/millrace/copier"])),
            "trust_domain",
            "BadCertificate",
        ),
        (
            "for servers only",
            of(&with(COPIER, |it| {
                it.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
            "wrong_usage",
            "UnsupportedCertificate",
        ),
    ];
    for (what, pair, label, alert) in &table {
        let (server, _events) = serve(files.security(Role::Interceptor));
        let said = attempt(server.local_addr(), pair.as_ref()).await;
        assert!(said.contains(alert), "{what}: {said}");
        assert_eq!(refused(&server, label).await, 1, "{what}");
        let line = lines.one().await;
        assert!(
            line.contains("WARN") && line.contains("127.0.0.1:"),
            "{what}: {line}"
        );
        assert_eq!(server.status().handshakes.accepted, 0, "{what}");
        assert_eq!(server.status().attached, 0, "{what}");
    }
    // The same client with a right certificate gets in.
    let (server, _events) = serve(files.security(Role::Interceptor));
    let right = good(&ours, "copier/live-1");
    assert_eq!(attempt(server.local_addr(), Some(&right)).await, "");
    assert_eq!(server.status().handshakes.accepted, 1);
}

#[tokio::test]
async fn what_is_no_tls_13_is_refused_counted_and_named() {
    let lines = Lines::capture();
    let ours = ca("ours");
    let files = Files::new("bytes", &[&ours], &good(&ours, "interceptor/rs1"));
    let mut broken = client_hello_of_tls12();
    broken.truncate(20);
    broken[9] = 0xff;
    for (what, bytes, label, answer) in [
        (
            "plain HTTP/2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            "plain_text",
            0x15,
        ),
        (
            "plain HTTP/1",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "plain_text",
            0x15,
        ),
        ("TLS 1.2", client_hello_of_tls12(), "old_tls", 0x15),
        (
            "garbage",
            [&[0x16, 3, 1, 0, 4][..], &[9, 0, 0, 0]].concat(),
            "other",
            0x15,
        ),
    ] {
        let (server, _events) = serve(files.security(Role::Interceptor));
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answered = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answered))
            .await
            .expect(what);
        assert_eq!(answered.first(), Some(&answer), "{what}: no alert");
        assert_eq!(refused(&server, label).await, 1, "{what}");
        let line = lines.one().await;
        assert!(line.contains("WARN"), "{what}: {line}");
    }
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_holds_up_nobody() {
    let ours = ca("ours");
    let files = Files::new("slow", &[&ours], &good(&ours, "interceptor/rs1"));
    let (server, _events) = serve(files.security(Role::Interceptor));
    let mut slow = Vec::new();
    for n in 0..100 {
        let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[0x16, 3, 1]).await.unwrap();
        }
        slow.push(stream);
    }
    let copier = Files::new("slow-c", &[&ours], &good(&ours, "copier/live-1"));
    let mut link = link_to(server.local_addr(), copier.security(Role::Copier), "live-1");
    link.up().await;
    // They are ended by themselves.
    for mut stream in slow {
        let mut rest = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("kept");
    }
    assert_eq!(refused(&server, "timed_out").await, 100);
}

#[tokio::test]
async fn a_link_says_what_is_wrong_on_either_side() {
    let (ours, foreign) = (ca("ours"), ca("foreign"));
    let interceptor = Files::new("say-i", &[&ours], &good(&ours, "interceptor/rs1"));
    let stranger = Files::new("say-s", &[&ours], &good(&foreign, "interceptor/rs1"));
    let agent = Files::new("say-a", &[&ours], &good(&ours, "router-agent/rs1"));
    let expired = Files::new("say-e", &[&ours], &good(&ours, "copier/live-1"));
    let copier = expired.security(Role::Copier);
    let wrong_role = agent.security(Role::RouterAgent);
    let foreign_copier = Files::new("say-f", &[&ours], &good(&foreign, "copier/live-1"));

    for (what, server, client, expected, label) in [
        (
            "the client's role",
            interceptor.security(Role::Interceptor),
            wrong_role.clone(),
            "it refuses this side's role",
            "wrong_role",
        ),
        (
            "the client's CA",
            interceptor.security(Role::Interceptor),
            foreign_copier.security(Role::Copier),
            "it does not know the CA of this side's certificate",
            "unknown_ca",
        ),
        (
            "the server's role",
            wrong_role,
            copier.clone(),
            "the interceptor is not trusted: its certificate is for \
             spiffe://example.test/millrace/router-agent/rs1",
            "refused_by_peer",
        ),
        (
            "the server's CA",
            stranger.security(Role::Interceptor),
            copier.clone(),
            "the interceptor is not trusted: no CA in our --ca",
            "refused_by_peer",
        ),
        (
            "a client in plain text",
            interceptor.security(Role::Interceptor),
            Security::Insecure,
            "it speaks TLS, but this side was started with --insecure",
            "plain_text",
        ),
        (
            "a server in plain text",
            Security::Insecure,
            copier.clone(),
            "it answers in plain text",
            "unexpected_tls",
        ),
    ] {
        let (server, _events) = serve(server);
        let link = link_to(server.local_addr(), client, "live-1");
        let error = link.error().await;
        assert!(error.starts_with(expected), "{what}: {error}");
        assert_eq!(error.lines().count(), 1);
        assert!(refused(&server, label).await > 0, "{what}");
        link.handle.close();
    }
}

#[tokio::test]
async fn a_certificates_name_keeps_a_copier_from_anothers_name() {
    let ours = ca("ours");
    let interceptor = Files::new("name-i", &[&ours], &good(&ours, "interceptor/rs1"));
    let (server, mut events) = serve(interceptor.security(Role::Interceptor));
    let copier = Files::new("name-c", &[&ours], &good(&ours, "copier/live-1"));

    let thief = link_to(server.local_addr(), copier.security(Role::Copier), "live-2");
    let error = thief.error().await;
    assert!(error.contains("may not call itself 'live-2'"), "{error}");
    thief.handle.close();
    assert_eq!(server.status().attached, 0);

    let mut own = link_to(
        server.local_addr(),
        copier.security(Role::Copier),
        "live-1:80",
    );
    own.up().await;
    match timeout(PATIENCE, events.next()).await.unwrap() {
        Some(AttachEvent::Attached { who, .. }) => assert_eq!(who.copier_id, "live-1:80"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_address_that_nobody_named_must_be_one_of_the_certificates_own_if_that_has_any() {
    let ca = ca("root");
    let copier = Files::new("confirm-copier", &[&ca], &good(&ca, "copier"));
    let hosts = |names: &[SanType]| {
        let mut params = params(&["spiffe://example.test/millrace/interceptor/rs1"]);
        params.subject_alt_names.extend(names.iter().cloned());
        sign(&ca, &params)
    };
    let ip = |text: &str| SanType::IpAddress(text.parse().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    for (n, (names, host, confirms)) in [
        (vec![], "127.0.0.1", true),
        (vec![ip("127.0.0.1")], "127.0.0.1", true),
        (vec![ip("198.18.0.9"), ip("127.0.0.1")], "localhost", true),
        (vec![dns("localhost")], "localhost", true),
        (vec![ip("198.18.0.9"), dns("rs1")], "127.0.0.1", false),
        (vec![dns("localhost")], "127.0.0.1", false),
    ]
    .into_iter()
    .enumerate()
    {
        let files = Files::new(&format!("confirm-{n}"), &[&ca], &hosts(&names));
        let (server, _attached) = serve(files.security(Role::Interceptor));
        for must_confirm in [false, true] {
            let address = DefaultPort(server.local_addr().port()).parse(host).unwrap();
            let mut config = LinkConfig::new(address, copier.security(Role::Copier), "live1");
            config.peer.must_confirm = must_confirm;
            let mut link = link_with(config);
            if confirms || !must_confirm {
                link.up().await;
                continue;
            }
            let error = link.error().await;
            assert!(
                error.contains(&format!(
                    "does not confirm the address {host} that Consul lists"
                )),
                "{error}"
            );
        }
    }
}
