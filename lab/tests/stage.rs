//! The lab measured on itself: namespaces, faults, recorder, load, comparison.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use millrace_lab::fault::Fault;
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::recorder::{End, Manners, Recorder, RecorderConfig};
use millrace_lab::{Host, Lab, Stage, StageOptions, connect};

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

fn namespaces() -> String {
    let output = Command::new("ip").args(["netns", "list"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn run(host: &Host, load: Load) -> Summary {
    let summary = host.enter_async(|| load.run()).unwrap();
    assert_eq!(summary.errors, 0, "{summary:?}");
    summary
}

fn everything() -> RecorderConfig {
    RecorderConfig {
        http: vec![8080, 8081],
        resp: vec![6379],
        greeting: vec![2525],
        ..RecorderConfig::default()
    }
}

/// Sends numbered datagrams and returns the numbers in the order in which they come back, with their round trips.
fn pings(from: &Host, to: &Host, address: SocketAddr, count: u32) -> Vec<(u32, Duration)> {
    let server = to.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    let echo = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, peer)) = server.recv_from(&mut buffer) {
            server.send_to(&buffer[..length], peer).unwrap();
        }
    });
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let client = from.enter(|| UdpSocket::bind(any)).unwrap().unwrap();
    client.connect(address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let receiving = client.try_clone().unwrap();
    let start = Instant::now();
    let receiver = std::thread::spawn(move || {
        let mut answers = Vec::new();
        let mut buffer = [0; 12];
        while receiving.recv(&mut buffer).is_ok() {
            let number = u32::from_be_bytes(buffer[..4].try_into().unwrap());
            let sent = u64::from_be_bytes(buffer[4..].try_into().unwrap());
            answers.push((number, start.elapsed() - Duration::from_nanos(sent)));
        }
        answers
    });
    for number in 0..count {
        let sent = u64::try_from(start.elapsed().as_nanos()).unwrap();
        client
            .send(&[&number.to_be_bytes()[..], &sent.to_be_bytes()].concat())
            .unwrap();
        if number % 10 == 9 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let answers = receiver.join().unwrap();
    echo.join().unwrap();
    answers
}

#[test]
fn namespaces_and_processes_are_made_and_gone_with_the_lab() {
    needs_lab!();
    let lab = Lab::new().unwrap();
    let host = lab.host("alone").unwrap();
    assert!(namespaces().contains(host.namespace()));
    let log = host.file("sleep.log");
    let process = host.spawn("sleep", &["60"], &[], &log).unwrap();
    let directory = lab.directory().to_owned();
    let proc = format!("/proc/{}", process.pid());
    assert!(directory.exists() && std::path::Path::new(&proc).exists());
    let namespace = host.namespace().to_owned();
    drop(lab);
    assert!(!namespaces().contains(&namespace));
    assert!(!directory.exists());
    drop(process);
    assert!(!std::path::Path::new(&proc).exists());
}

#[test]
fn two_hosts_on_one_cable_reach_each_other_and_nothing_else() {
    needs_lab!();
    let lab = Lab::new().unwrap();
    let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
    let a_address = [
        "198.18.9.1".parse().unwrap(),
        "2001:db8:9::1".parse().unwrap(),
    ];
    let b_address = [
        "198.18.9.2".parse().unwrap(),
        "2001:db8:9::2".parse().unwrap(),
    ];
    let mut link = connect(
        (&a, "eth0", &[(a_address[0], 24), (a_address[1], 64)]),
        (&b, "eth0", &[(b_address[0], 24), (b_address[1], 64)]),
    )
    .unwrap();
    for address in b_address {
        assert_eq!(pings(&a, &b, SocketAddr::new(address, 7), 20).len(), 20);
    }
    assert!(link.set_faults(Fault::loss(0.1), Fault::none(), 1).is_err());
    let outside = a.enter(|| {
        std::net::TcpStream::connect_timeout(&([192, 0, 2, 1], 80).into(), Duration::from_secs(1))
    });
    assert!(outside.unwrap().is_err());
}

#[test]
fn faults_are_as_asked_for_and_can_be_changed_and_taken_away() {
    needs_lab!();
    let mut stage = Stage::new(StageOptions::default()).unwrap();
    let to = SocketAddr::new(stage.target.address.v4.into(), 7);
    let live = stage.live().unwrap().host.clone();
    let target = stage.target.host.clone();

    let mut link = |to_host, from_host| {
        stage
            .target
            .link
            .set_faults(to_host, from_host, 42)
            .unwrap()
    };
    link(Fault::none(), Fault::none());
    assert_eq!(
        pings(&live, &target, to, 2000).len(),
        2000,
        "a hop without faults loses nothing"
    );

    link(Fault::loss(0.1), Fault::none());
    let answers = pings(&live, &target, to, 2000).len();
    assert!((1700..1900).contains(&answers), "{answers} of 2000");

    link(
        Fault::delay(Duration::from_millis(20)),
        Fault::delay(Duration::from_millis(10)),
    );
    let answers = pings(&live, &target, to, 200);
    assert_eq!(answers.len(), 200);
    assert!(
        answers
            .iter()
            .all(|(_, took)| (30..200).contains(&took.as_millis())),
        "{answers:?}"
    );
    assert!(
        answers.is_sorted_by_key(|(number, _)| *number),
        "delay keeps the order"
    );

    link(Fault::disorder(0.1, 0.1), Fault::none());
    let answers = pings(&live, &target, to, 1000);
    assert!(
        (1050..1150).contains(&answers.len()),
        "{} of 1000 with duplicates",
        answers.len()
    );
    assert!(
        !answers.is_sorted_by_key(|(number, _)| *number),
        "some were overtaken"
    );

    let counts = stage.target.link.clear_faults().unwrap();
    assert!(
        counts.back.lost > 100 && counts.back.duplicated > 50 && counts.back.reordered > 50,
        "{counts:?}"
    );
    assert_eq!(
        (counts.forth.dropped_by_hop, counts.back.dropped_by_hop),
        (0, 0),
        "{counts:?}"
    );
    assert_eq!(pings(&live, &target, to, 100).len(), 100);
    let v6 = SocketAddr::new(stage.target.address.v6.into(), 7);
    assert_eq!(pings(&live, &target, v6, 100).len(), 100);
}

#[test]
fn a_faulted_link_carries_tcp_in_both_directions() {
    needs_lab!();
    let mut stage = Stage::new(StageOptions::default()).unwrap();
    let recorder = Recorder::start(&stage.live[0].host, &everything()).unwrap();
    stage.live[0]
        .link
        .set_faults(Fault::loss(0.02), Fault::loss(0.02), 7)
        .unwrap();
    let client = stage.clients[0].host.clone();
    for address in stage.live[0].address.both() {
        let to = SocketAddr::new(address, 8080);
        run(
            &client,
            Load::new(
                Kind::Upload {
                    size: 200_000,
                    count: 10,
                },
                to,
            ),
        );
        run(
            &client,
            Load::new(
                Kind::Download {
                    size: 200_000,
                    count: 10,
                },
                to,
            ),
        );
    }
    let counts = stage.live[0].link.fault_counts();
    assert!(counts.forth.lost > 0 && counts.back.lost > 0, "{counts:?}");
    assert_eq!(recorder.stop().unwrap().len(), 40);
}

#[test]
fn a_hop_without_faults_drops_nothing_at_full_speed() {
    needs_lab!();
    let mut stage = Stage::new(StageOptions::default()).unwrap();
    let recorder = Recorder::start(&stage.live[0].host, &everything()).unwrap();
    stage.live[0]
        .link
        .set_faults(Fault::none(), Fault::none(), 7)
        .unwrap();
    let to = SocketAddr::new(stage.live[0].address.v4.into(), 8080);
    let client = stage.clients[0].host.clone();
    let start = Instant::now();
    run(
        &client,
        Load::new(
            Kind::Download {
                size: 5_000_000,
                count: 20,
            },
            to,
        ),
    );
    let rate = |packets: u64| packets as f64 / start.elapsed().as_secs_f64();
    let counts = stage.live[0].link.clear_faults().unwrap();
    eprintln!(
        "{:.0} packets/s: {counts:?}",
        rate(counts.forth.packets + counts.back.packets)
    );
    assert!(
        counts.forth.packets > 60_000,
        "without offloads, each segment is a packet: {counts:?}"
    );
    assert_eq!(
        (counts.forth.dropped_by_hop, counts.back.dropped_by_hop),
        (0, 0),
        "{counts:?}"
    );
    // And with the cable as it was, offloads on again.
    run(
        &client,
        Load::new(
            Kind::Download {
                size: 5_000_000,
                count: 20,
            },
            to,
        ),
    );
    assert_eq!(recorder.stop().unwrap().len(), 40);
}

#[test]
fn real_servers_count_what_they_are_asked() {
    needs_lab!();
    let stage = Stage::new(StageOptions::default()).unwrap();
    let live = &stage.live[0];
    let nginx = millrace_lab::apps::Nginx::start(&live.host, 80).unwrap();
    let password = millrace_lab::load::RESP_PASSWORD;
    let redis = millrace_lab::apps::Redis::start_with_password(&live.host, 6379, password).unwrap();
    for address in live.address.both() {
        let at = |port| SocketAddr::new(address, port);
        let one = Kind::OneRequest {
            count: 50,
            rate: None,
            path: "/".to_owned(),
        };
        run(&stage.clients[0].host, Load::new(one, at(80)));
        run(
            &stage.clients[0].host,
            Load::new(
                Kind::Resp {
                    count: 2,
                    batches: 3,
                    pipeline: 10,
                },
                at(6379),
            ),
        );
    }
    assert_eq!(nginx.requests().unwrap(), 100);
    assert_eq!(nginx.requests().unwrap(), 100);
    assert_eq!(
        redis.commands().unwrap(),
        // Each session logs in, and so does who asks.
        [("ping", 60), ("set", 60), ("auth", 5)].map(|(name, calls)| (name.to_owned(), calls))
    );
}

#[test]
fn the_recorder_hashes_every_kind_of_load_and_two_alike_runs_are_equal() {
    needs_lab!();
    let stage = Stage::new(StageOptions {
        live_servers: 2,
        ..StageOptions::default()
    })
    .unwrap();
    let client = &stage.clients[0];
    let from: Vec<_> = client
        .addresses
        .iter()
        .flat_map(|pair| pair.both())
        .collect();
    let mut recorded = Vec::new();
    for place in &stage.live {
        let recorder = Recorder::start(&place.host, &everything()).unwrap();
        for address in place.address.both() {
            let at = |port| SocketAddr::new(address, port);
            let load = |kind, to| run(&client.host, Load::new(kind, to).from(&from));
            let one = Kind::OneRequest {
                count: 300,
                rate: None,
                path: "/bytes/100".to_owned(),
            };
            assert_eq!(load(one, at(8080)).requests, 300);
            let rated = Kind::OneRequest {
                count: 50,
                rate: Some(200.0),
                path: "/".to_owned(),
            };
            assert!(load(rated, at(8080)).seconds > 0.2);
            load(
                Kind::Upload {
                    size: 1_000_000,
                    count: 5,
                },
                at(8080),
            );
            load(
                Kind::Download {
                    size: 3_000_000,
                    count: 5,
                },
                at(8080),
            );
            load(
                Kind::Resp {
                    count: 10,
                    batches: 10,
                    pipeline: 32,
                },
                at(6379),
            );
            load(
                Kind::Greeting {
                    count: 10,
                    lines: 5,
                },
                at(2525),
            );
            load(
                Kind::Idle {
                    count: 5,
                    lasting: Duration::from_millis(300),
                },
                at(8080),
            );
            load(
                Kind::SamePort {
                    count: 20,
                    other: at(8081),
                    first_port: 20_000,
                },
                at(8080),
            );
        }
        recorded.push(recorder.stop().unwrap());
    }
    let per_family = 300 + 50 + 5 + 5 + 10 + 10 + 5 + 40;
    assert_eq!(recorded[0].len(), 2 * per_family);
    assert_eq!(recorded[0].ended(End::Fin), 2 * per_family);
    assert_eq!(
        recorded[0].requests(),
        2 * (300 + 50 + 5 + 5 + 3200 + 10 + 60 + 10 + 80)
    );
    let difference = recorded[0].compare(&recorded[1]);
    assert!(difference.is_none(), "{difference}");
    // What must be found: a stream less, a stream more, a stream changed.
    let mut seen = 0;
    let cut = recorded[1].clone().filtered(|_| {
        seen += 1;
        seen != 100
    });
    assert_eq!(recorded[0].compare(&cut).missing, 1);
    assert_eq!(cut.compare(&recorded[0]).extra, 1);
}

#[test]
fn one_byte_changed_on_the_way_is_found() {
    needs_lab!();
    use std::io::{Read, Write};
    let stage = Stage::new(StageOptions {
        live_servers: 2,
        ..StageOptions::default()
    })
    .unwrap();
    let mut recorded = Vec::new();
    for (place, body) in stage.live.iter().zip(["0123456789", "012345678x"]) {
        let recorder = Recorder::start(&place.host, &everything()).unwrap();
        let to = SocketAddr::new(place.address.v4.into(), 8080);
        let mut stream = stage.clients[0]
            .host
            .enter(|| std::net::TcpStream::connect(to))
            .unwrap()
            .unwrap();
        write!(stream, "PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\n{body}").unwrap();
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // Left open: the recorder writes it down when it is stopped.
        recorded.push(recorder.stop().unwrap());
    }
    assert_eq!(recorded[0].ended(End::Open), 1);
    let difference = recorded[0].compare(&recorded[1]);
    assert_eq!(
        (difference.missing, difference.extra),
        (1, 1),
        "{difference}"
    );
}

#[test]
fn a_client_that_leaves_before_its_answers_is_recorded_to_its_last_byte() {
    needs_lab!();
    use std::io::Write;
    let stage = Stage::new(StageOptions::default()).unwrap();
    let recorder = Recorder::start(&stage.live[0].host, &everything()).unwrap();
    let to = SocketAddr::new(stage.live[0].address.v4.into(), 8080);
    let request = "GET /bytes/1000000 HTTP/1.1\r\n\r\n";
    let mut stream = stage.clients[0]
        .host
        .enter(|| std::net::TcpStream::connect(to))
        .unwrap()
        .unwrap();
    for _ in 0..10 {
        stream.write_all(request.as_bytes()).unwrap();
    }
    // Unread answers make the kernel reset the connection.
    std::thread::sleep(Duration::from_millis(200));
    drop(stream);
    let ended = || recorder.records().is_ok_and(|records| records.len() == 1);
    millrace_lab::wait_for("the record", Duration::from_secs(5), ended).unwrap();
    let records = recorder.stop().unwrap();
    assert_eq!(records.records()[0].end, End::Reset);
    assert_eq!(
        (records.bytes(), records.requests()),
        (10 * request.len() as u64, 10)
    );
}

#[test]
fn manners_are_kept() {
    needs_lab!();
    let stage = Stage::new(StageOptions::default()).unwrap();
    let manners = Manners {
        delay: Duration::from_millis(30),
        reset_every: Some(3),
        close_idle: None,
    };
    let config = RecorderConfig {
        manners,
        ..everything()
    };
    let recorder = Recorder::start(&stage.live[0].host, &config).unwrap();
    let to = SocketAddr::new(stage.live[0].address.v4.into(), 8080);
    let client = &stage.clients[0].host;
    let one = Kind::OneRequest {
        count: 5,
        rate: None,
        path: "/bytes/10".to_owned(),
    };
    assert!(run(client, Load::new(one, to)).latency_us.p50 >= 30_000);
    let keep = Kind::KeepAlive {
        lasting: Duration::from_secs(5),
        pause: Duration::ZERO,
        path: "/bytes/10".to_owned(),
    };
    let summary = client
        .enter_async(|| Load::new(keep, to).concurrency(1).run())
        .unwrap();
    assert_eq!((summary.requests, summary.errors), (2, 1), "{summary:?}");
    assert_eq!(recorder.stop().unwrap().ended(End::Reset), 1);
}

#[test]
fn the_target_answers_clients_by_way_of_the_assistant_which_forwards_nothing() {
    needs_lab!();
    let stage = Stage::new(StageOptions::default()).unwrap();
    let _recorder = Recorder::start(&stage.target.host, &everything()).unwrap();
    for address in stage.target.address.both() {
        let to = SocketAddr::new(address, 8080);
        let connect = move || std::net::TcpStream::connect_timeout(&to, Duration::from_millis(700));
        assert!(
            stage.clients[0].host.enter(connect).unwrap().is_err(),
            "no answer may reach a client"
        );
        assert!(
            stage.live[0].host.enter(connect).unwrap().is_ok(),
            "its own segment reaches it"
        );
    }
}
