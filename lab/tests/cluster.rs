//! The cluster measured on itself: directors forward as IPVS does, and leaks are seen.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]

use std::net::SocketAddr;
use std::time::Duration;

use millrace_lab::cluster::{Cluster, ClusterOptions, Forwarding, HealthChecks, Scheduler};
use millrace_lab::load::{Kind, Load};
use millrace_lab::recorder::{Recorder, RecorderConfig};
use millrace_lab::wait_for;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PORT: u16 = 8080;

/// Skips a test, loudly, where no lab can be made; where CI runs, that is a failure.
macro_rules! needs_lab {
    () => {
        if let Some(why) = millrace_lab::missing() {
            assert!(std::env::var_os("CI").is_none(), "a lab is needed: {why}");
            eprintln!("SKIPPED: {why}");
            return;
        }
    };
}

/// Starts recorders at the real servers, then the director.
fn recorders(cluster: &mut Cluster) -> Vec<Recorder> {
    let config = RecorderConfig {
        http: vec![PORT],
        ..RecorderConfig::default()
    };
    let recorders = cluster
        .real_servers
        .iter()
        .map(|place| Recorder::start(&place.host, &config).unwrap())
        .collect();
    cluster.director.start().unwrap();
    recorders
}

/// Connections of the clients themselves to the virtual address, of each family.
fn visit(cluster: &Cluster, count: u64) {
    for to in cluster.vip().both() {
        let kind = Kind::OneRequest {
            count,
            rate: None,
            path: "/bytes/3000".to_owned(),
        };
        let from = cluster
            .client()
            .unwrap()
            .addresses
            .iter()
            .flat_map(|pair| pair.both());
        let load = Load::new(kind, (to, PORT).into()).from(&from.collect::<Vec<_>>());
        let host = &cluster.client().unwrap().host;
        let summary = host.enter_async(move || load.run()).unwrap();
        assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    }
}

fn counts(recorders: Vec<Recorder>) -> Vec<usize> {
    recorders
        .into_iter()
        .map(|recorder| recorder.stop().unwrap().without_empty().len())
        .collect()
}

#[test]
fn connections_in_turn_stay_with_their_real_server_and_each_answer_is_seen() {
    needs_lab!();
    let mut cluster = Cluster::new(ClusterOptions::new(&[PORT])).unwrap();
    let recorders = recorders(&mut cluster);
    assert_eq!(cluster.leaks.seen().unwrap(), []);
    visit(&cluster, 30);
    // Each family has its own turn.
    assert_eq!(counts(recorders), [20, 20, 20]);
    let seen = cluster.leaks.seen().unwrap();
    let hosts: Vec<&str> = seen.iter().map(|(host, _)| host.as_str()).collect();
    // Straight from the real servers, not through the director.
    assert_eq!(hosts, ["client1", "router"]);
    let segments = cluster.leaks.segments().unwrap();
    let answer = format!("client1 segments4: {} . {PORT} . ", cluster.vip().v4);
    assert!(
        segments.iter().any(|it| it.starts_with(&answer)),
        "{segments:?}"
    );
    // SYN-ACK, answer and FIN of 60 connections at least.
    assert!(seen.iter().all(|(_, packets)| *packets >= 180), "{seen:?}");
}

#[test]
fn by_source_each_client_has_one_real_server() {
    needs_lab!();
    let mut options = ClusterOptions::new(&[PORT]);
    options.scheduler = Scheduler::SourceHash;
    let mut cluster = Cluster::new(options).unwrap();
    let recorders = recorders(&mut cluster);
    visit(&cluster, 40);
    let mut owners = std::collections::BTreeMap::new();
    for (number, recorder) in recorders.into_iter().enumerate() {
        for record in recorder.stop().unwrap().records() {
            let owner = *owners.entry(record.peer.ip()).or_insert(number);
            assert_eq!(owner, number, "{} has two real servers", record.peer);
        }
    }
    assert_eq!(owners.len(), 16);
}

#[test]
fn a_real_server_that_leaves_keeps_its_connections() {
    needs_lab!();
    let mut cluster = Cluster::new(ClusterOptions::new(&[PORT])).unwrap();
    let recorders = recorders(&mut cluster);
    let kind = Kind::KeepAlive {
        lasting: Duration::from_secs(3),
        pause: Duration::from_millis(5),
        path: "/bytes/100".to_owned(),
    };
    let load = Load::new(kind, (cluster.vip().v4, PORT).into()).concurrency(9);
    let staying = cluster.client().unwrap().host.start(move || load.run());
    let logs = || {
        cluster
            .client()
            .unwrap()
            .host
            .check("ss", &["-Htn", "state", "established"])
    };
    wait_for("nine connections", Duration::from_secs(5), || {
        logs().is_ok_and(|list| list.lines().count() == 9)
    })
    .unwrap();
    cluster.director.set_active(2, false).unwrap();
    visit(&cluster, 20);
    let summary = staying.join().unwrap().unwrap();
    assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    assert_eq!(counts(recorders), [23, 23, 3]);
    assert!(cluster.director.set_active(7, false).is_err());
    cluster.director.set_active(1, false).unwrap();
    assert!(cluster.director.set_active(0, false).is_err());
}

#[test]
fn a_port_that_is_used_again_belongs_to_no_real_server_that_left() {
    needs_lab!();
    let mut cluster = Cluster::new(ClusterOptions::new(&[PORT])).unwrap();
    let recorders = recorders(&mut cluster);
    let visit = |cluster: &Cluster| {
        let to = (cluster.vip().v4, PORT).into();
        let client = &cluster.client().unwrap().host;
        client.enter_async(async move || {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            // No rest for the port.
            socket.set_zero_linger()?;
            socket.bind("0.0.0.0:40000".parse().unwrap())?;
            let mut stream = socket.connect(to).await?;
            stream
                .write_all(b"GET /bytes/100 HTTP/1.1\r\nHost: lab\r\n\r\n")
                .await?;
            let mut answer = [0; 100];
            stream.read_exact(&mut answer).await?;
            std::io::Result::Ok(())
        })
    };
    // The first in turn is the first real server.
    visit(&cluster).unwrap().unwrap();
    cluster.director.set_active(0, false).unwrap();
    visit(&cluster).unwrap().unwrap();
    assert_eq!(counts(recorders), [1, 1, 0]);
}

#[test]
fn behind_address_translation_answers_bear_the_real_servers_address() {
    needs_lab!();
    let mut options = ClusterOptions::new(&[PORT]);
    options.forwarding = Forwarding::AddressTranslation;
    let mut cluster = Cluster::new(options).unwrap();
    let _recorders = recorders(&mut cluster);
    let client = cluster.client().unwrap();
    for (ip, local) in cluster.vip().both().into_iter().zip(client.address.both()) {
        // The client refuses an answer from an address that it has not called: that is what the leak looks like.
        let (to, from) = (SocketAddr::new(ip, PORT), SocketAddr::new(local, 20_000));
        let before: u64 = cluster.leaks.seen().unwrap().iter().map(|(_, n)| n).sum();
        let outcome = client
            .host
            .enter_async(move || async move {
                let socket = if from.is_ipv4() {
                    tokio::net::TcpSocket::new_v4()?
                } else {
                    tokio::net::TcpSocket::new_v6()?
                };
                socket.bind(from)?;
                let connecting = socket.connect(to);
                tokio::time::timeout(Duration::from_secs(3), connecting)
                    .await
                    .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
            })
            .unwrap();
        assert!(outcome.is_err(), "{to} answered itself");
        let after: u64 = cluster.leaks.seen().unwrap().iter().map(|(_, n)| n).sum();
        assert!(
            after > before,
            "{to}: no answer of a real server at the client"
        );
    }
}

#[test]
fn health_checks_fail_when_and_only_when_the_application_is_gone() {
    needs_lab!();
    let mut cluster = Cluster::new(ClusterOptions::new(&[PORT])).unwrap();
    let mut recorders = recorders(&mut cluster);
    let servers: Vec<SocketAddr> = cluster
        .real_servers
        .iter()
        .map(|place| (place.address.v4, PORT).into())
        .collect();
    let checks = HealthChecks::start(&cluster.director.place().host, &servers);
    std::thread::sleep(Duration::from_secs(2));
    drop(recorders.remove(1));
    std::thread::sleep(Duration::from_secs(2));
    let checked = checks.stop().unwrap();
    let failed: Vec<bool> = checked
        .iter()
        .map(|server| !server.failed.is_empty())
        .collect();
    assert_eq!(failed, [false, true, false], "{checked:?}");
    assert!(
        checked.iter().all(|server| server.passed >= 1),
        "{checked:?}"
    );
    assert_eq!(
        cluster.leaks.seen().unwrap(),
        [],
        "the director's own checks are no leak"
    );
}
