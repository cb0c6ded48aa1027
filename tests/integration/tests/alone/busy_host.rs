//! A live server that leaves the copier little: bursts, a copier that stands still, a small buffer,
//! a bound on CPU time, many devices.
#![allow(clippy::expect_used)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use millrace_integration::{Family, HTTP, Outcome, Scene, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::records::RecordedStreams;
use millrace_lab::{StageOptions, wait_for};
use rustix::net::{AddressFamily, SendFlags, SocketType};
use rustix::process::Signal;

const PATH: &str = "/bytes/100";

fn keep_alive(scene: &Scene, seconds: u64, pause: Duration) -> Load {
    let kind = Kind::KeepAlive {
        lasting: Duration::from_secs(seconds),
        pause,
        path: PATH.to_owned(),
    };
    Load::new(kind, scene.live_service(0, Family::V4, HTTP))
        .from(&scene.client_addresses(Family::V4))
        .concurrency(20)
}

/// A scene whose copier has these arguments.
fn scene(arguments: &[&str]) -> Scene {
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    scene.start_copier(0, arguments);
    scene
}

/// The shortest request and the longest: they bear their connection's number and their own.
const LENGTHS: (u64, u64) = (
    "GET /bytes/100?n=0.0 HTTP/1.1\r\nHost: lab\r\n\r\n".len() as u64,
    "GET /bytes/100?n=99.999999 HTTP/1.1\r\nHost: lab\r\n\r\n".len() as u64,
);

/// What a target got is, per connection, a run of whole requests and at most one that is cut.
fn assert_whole(target: &RecordedStreams) {
    for record in target.records() {
        let whole = record.requests * LENGTHS.0;
        let most = (record.requests + 1) * LENGTHS.1;
        assert!((whole..=most).contains(&record.bytes), "{record:?}");
    }
}

/// And what is missing of it is no more and no less than the report says.
fn assert_honest(outcome: &Outcome) {
    let (live, target) = (&outcome.live[0], &outcome.target);
    let report = &outcome.reports[0];
    assert_whole(target);
    assert!(target.requests() <= live.requests());
    let seen = target.bytes() as f64 / live.bytes() as f64;
    let (high, low) = (&report["fidelity"], &report["fidelity_low"]);
    let (high, low) = (high.as_f64().unwrap(), low.as_f64().unwrap());
    assert!(
        low - 0.02 <= seen && seen <= high + 0.001,
        "servers saw {seen:.4}, the report says {low:.4} to {high:.4}: {report:#}"
    );
}

#[test]
fn a_burst_of_uploads_arrives_whole() {
    if !can_run() {
        return;
    }
    let scene = scene(&[]);
    let upload = Kind::Upload {
        size: 1_000_000,
        count: 200,
    };
    for concurrency in [10, 20] {
        let load = Load::new(upload.clone(), scene.live_service(0, Family::V4, HTTP))
            .from(&scene.client_addresses(Family::V4))
            .concurrency(concurrency);
        scene.load(load);
    }
    scene.finish_exact(Duration::from_secs(120));
}

#[test]
fn keep_alive_connections_outlive_a_copier_that_stands_still_with_a_small_buffer() {
    if !can_run() {
        return;
    }
    let mut scene = scene(&["-B", "1", "--grace", "10"]);
    let load = keep_alive(&scene, 8, Duration::from_millis(2));
    let copier = scene.copiers.remove(0);
    let copier = std::thread::scope(|scope| {
        let stopped = scope.spawn(move || {
            let mut copier = copier;
            std::thread::sleep(Duration::from_secs(2));
            copier.signal(Signal::STOP).unwrap();
            std::thread::sleep(Duration::from_secs(2));
            copier.signal(Signal::CONT).unwrap();
            copier
        });
        scene.load(load);
        stopped.join().unwrap()
    });
    scene.copiers.push(copier);
    scene.settle(Duration::from_secs(60));
    let log = scene.copiers[0].log();
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert!(number(report, "/capture/dropped") > 0, "{report:#}");
    assert_eq!(number(report, "/capture/syns_lost"), 0, "{report:#}");
    assert_eq!(number(report, "/sessions/captured"), 20, "{report:#}");
    assert!(number(report, "/sessions/resumed") >= 15, "{report:#}");
    // Two of eight seconds went by unseen, and no more than that and what they cost on both sides.
    let seen = outcome.target.requests() as f64 / outcome.live[0].requests() as f64;
    assert!(seen > 0.6, "{seen:.3} {report:#}");
    assert!(log.contains("capture lost"), "{log}");
    assert_honest(&outcome);
}

#[test]
fn what_a_filter_takes_out_costs_its_turns_and_the_report_says_exactly_how_many_bytes() {
    if !can_run() {
        return;
    }
    // One frame in 512 of each connection and direction, by the number that its IP header bears.
    let filter = format!("tcp port {HTTP} and not (ip[4:2] & 0x1ff = 7)");
    // Connections whose FIN is taken out stay open to the end.
    let scene = scene(&["-F", &filter, "--grace", "2"]);
    scene.load(keep_alive(&scene, 6, Duration::ZERO));
    scene.settle(Duration::from_secs(10));
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert_eq!(number(report, "/capture/dropped"), 0, "{report:#}");
    assert!(number(report, "/sessions/resumed") > 20, "{report:#}");
    assert!(number(report, "/bytes/missing") > 0, "{report:#}");
    assert_honest(&outcome);
    let seen = outcome.target.bytes() as f64 / outcome.live[0].bytes() as f64;
    let said = report["fidelity"].as_f64().unwrap();
    assert!((seen - said).abs() < 0.0005, "{seen} {said} {report:#}");
    assert!(seen > 0.98, "{seen} {report:#}");
}

#[test]
fn under_a_bound_on_cpu_time_whole_sessions_are_set_aside_and_the_others_arrive_whole() {
    if !can_run() {
        return;
    }
    let scene = scene(&["--max-cpu", "5", "--grace", "10"]);
    scene.load(keep_alive(&scene, 10, Duration::ZERO));
    let taken_again = wait_for("the pressure to go", Duration::from_secs(60), || {
        // Each look costs the copier CPU time, too.
        std::thread::sleep(Duration::from_millis(500));
        scene.status(0)["report"]["pressure"]["stage"] == "none"
    });
    taken_again.unwrap();
    scene.settle(Duration::from_secs(60));
    let log = scene.copiers[0].log();
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert!(number(report, "/sessions/set_aside") > 0, "{report:#}");
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(number(report, "/capture/dropped"), 0, "{report:#}");
    let lines = log.matches("the others are set aside").count();
    assert!((1..=5).contains(&lines), "{log}");
    let delivered = number(report, "/bytes/delivered");
    assert_eq!(outcome.target.bytes(), delivered);
    assert_whole(&outcome.target);
}

#[test]
fn a_host_with_fifty_devices_takes_no_more_memory() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    let live = scene.stage.live[0].host.clone();
    for number in 0..25 {
        let (one, two) = (format!("one{number}"), format!("two{number}"));
        let mut commands = vec![format!("link add {one} type veth peer name {two}")];
        for (device, last) in [(&one, 1), (&two, 2)] {
            commands.push(format!(
                "address add 198.19.{number}.{last}/24 dev {device}"
            ));
            commands.push(format!("link set {device} up"));
        }
        live.ip(&commands).unwrap();
    }
    scene.start_interceptor();
    let target = scene.stage.target.address.v4;
    let interceptor = scene.stage.assistant.address.v4.to_string();
    let report = live.file("report.json").display().to_string();
    let service = format!("{HTTP}-{target}:{HTTP}");
    let log = live.file("copier.log");
    let arguments = [
        "-x",
        &service,
        "-s",
        &interceptor,
        "--insecure",
        "--admin",
        "127.0.0.1:9100",
        "--report",
        &report,
    ];
    let binary = millrace_integration::binary("millrace-copier");
    let copier = live.spawn(binary, &arguments, &[], &log).unwrap();
    scene.copiers.push(copier);
    let ready = wait_for("the copier", Duration::from_secs(20), || {
        let host = &scene.stage.live[0].host;
        let admin = ([127, 0, 0, 1], 9100).into();
        host.get(admin, "/readyz")
            .is_ok_and(|(code, _)| code == 200)
    });
    ready.unwrap();
    let resident = scene.copiers[0].resident_bytes().unwrap();
    assert!(resident < 40 << 20, "{resident} bytes");
    scene.load(keep_alive(&scene, 1, Duration::from_millis(5)));
    scene.settle(Duration::from_secs(30));
    let outcome = scene.finish();
    assert_eq!(outcome.reports[0]["fidelity"], 1.0);
    assert!(outcome.live[0].compare(&outcome.target).is_none());
}

/// Sends `count` pieces of TCP packets that are never whole, with identifications from `first` on.
fn send_pieces(from: Ipv4Addr, to: Ipv4Addr, first: u16, count: u16) {
    let protocol = rustix::net::ipproto::RAW;
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, Some(protocol)).unwrap();
    for id in (0..count).map(|n| first.wrapping_add(n)) {
        // RFC 791 3.1: 28 bytes, more fragments behind it, offset 8; the kernel fills in the check sum.
        let [id_high, id_low] = id.to_be_bytes();
        let mut packet = vec![0x45, 0, 0, 28, id_high, id_low, 0x20, 1, 64, 6, 0, 0];
        packet.extend(from.octets());
        packet.extend(to.octets());
        packet.extend([0xab; 8]);
        let to = SocketAddrV4::new(to, 0);
        rustix::net::sendto(&socket, &packet, SendFlags::empty(), &to).unwrap();
    }
}

#[test]
fn pieces_of_packets_that_are_never_whole_cost_no_memory_and_disturb_no_copy() {
    if !can_run() {
        return;
    }
    let scene = scene(&[]);
    let (client, live) = (&scene.stage.clients[0], &scene.stage.live[0]);
    let (from, to) = (client.address.v4, live.address.v4);
    let flood = move |seconds: u16| {
        for first in (0..seconds * 50).map(|part| part.wrapping_mul(100)) {
            send_pieces(from, to, first, 100);
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let host = client.host.clone();
    let flooding = std::thread::spawn(move || host.enter(|| flood(6)).unwrap());
    scene.load(keep_alive(&scene, 2, Duration::from_millis(5)));
    let before = scene.copiers[0].resident_bytes().unwrap();
    scene.load(keep_alive(&scene, 3, Duration::from_millis(5)));
    flooding.join().unwrap();
    let after = scene.copiers[0].resident_bytes().unwrap();
    scene.settle(Duration::from_secs(30));
    let outcome = scene.finish();
    let fragments = number(&outcome.reports[0], "/capture/fragments");
    assert!(fragments > 20_000, "{fragments}");
    assert!(after < before + (8 << 20), "{before} bytes, then {after}");
    outcome.assert_exact();
}
