//! What a copier leaves alone on the live host: its firewall, its connection tracking, and its ICMP.

use std::time::Duration;

use millrace_integration::counter::{PacketCounter, counted};
use millrace_integration::{Family, HTTP, INTERCEPTOR_PORT, Scene, binary, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{Host, StageOptions, wait_for};

const CONNECTIONS: u64 = 500;

fn load(scene: &Scene) {
    let kind = Kind::OneRequest {
        count: CONNECTIONS,
        rate: Some(250.0),
        path: "/bytes/300".to_owned(),
    };
    let to = scene.live_service(0, Family::V4, HTTP);
    scene.load(Load::new(kind, to).from(&scene.client_addresses(Family::V4)));
}

fn nft(host: &Host, ruleset: &str) {
    let file = host.file("test.nft");
    std::fs::write(&file, ruleset).unwrap();
    host.check("nft", &["-f", &file.display().to_string()])
        .unwrap();
}

/// Lets the host track its connections, as any stateful rule does, and counts what leaves for `target`.
fn track(host: &Host, target: std::net::Ipv4Addr) {
    nft(
        host,
        &format!(
            "table ip test {{\ncounter seen {{\n}}\nchain in {{\ntype filter hook input priority 0;\nct state new \
             accept\n}}\nchain out {{\ntype filter hook output priority 0;\nip daddr {target} meta l4proto tcp counter name seen\nct \
             state new accept\n}}\n}}\n"
        ),
    );
}

fn tracked(host: &Host) -> u64 {
    let file = "/proc/sys/net/netfilter/nf_conntrack_count";
    host.check("cat", &[file]).unwrap().trim().parse().unwrap()
}

/// A scene whose live host tracks its connections; no copier yet.
fn tracking_scene() -> (Scene, Host) {
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let host = scene.stage.live[0].host.clone();
    track(&host, scene.stage.target.address.v4);
    (scene, host)
}

#[test]
fn copies_take_no_place_in_the_hosts_connection_tracking() {
    if !can_run() {
        return;
    }
    let (mut scene, host) = tracking_scene();
    scene.start_copier(0, &[]);
    load(&scene);
    scene.settle(Duration::from_secs(30));
    let tracked = tracked(&host);
    assert!(tracked >= CONNECTIONS, "the live connections: {tracked}");
    assert!(
        tracked < CONNECTIONS + 100,
        "{tracked} for {CONNECTIONS} live connections"
    );
    assert_eq!(
        counted(&host, &["ip", "test", "seen"]),
        0,
        "its firewall saw copies"
    );
    scene.finish_exact(Duration::from_secs(30));
}

#[test]
fn sending_through_the_routing_of_a_host_that_tracks_connections_must_be_allowed() {
    if !can_run() {
        return;
    }
    let (mut scene, host) = tracking_scene();
    load(&scene);
    scene.start_copier_only(0, &["-o", "routed"]);
    let status = scene.copiers[0].wait(Duration::from_secs(10)).unwrap();
    let log = scene.copiers[0].log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("--allow-conntrack"), "{log}");
    scene.copiers.clear();
    scene.start_copier(0, &["-o", "routed", "--allow-conntrack"]);
    load(&scene);
    scene.settle(Duration::from_secs(30));
    assert!(counted(&host, &["ip", "test", "seen"]) > CONNECTIONS);
    // Its first load was before the copier.
    let outcome = scene.finish();
    assert_eq!(outcome.reports[0]["fidelity"], 1.0);
    assert_eq!(
        number(&outcome.reports[0], "/sessions/captured"),
        CONNECTIONS
    );
}

#[test]
fn a_next_hop_that_does_not_answer_makes_nobody_say_so_to_clients() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let clients = scene.stage.clients.iter();
    let errors = "icmp type { destination-unreachable, time-exceeded, redirect }";
    let errors: Vec<_> = clients
        .map(|client| PacketCounter::start(&client.host, errors))
        .collect();
    let live = scene.stage.live[0].host.clone();
    // In the live server's own segment, and not there; and beyond a router that is not there.
    live.ip(&["route add 198.18.77.0/24 via 198.18.2.98".to_owned()])
        .unwrap();
    let assistant = scene.stage.assistant.address.v4;
    let interceptor = format!("{assistant}:{INTERCEPTOR_PORT}");
    for target in ["198.18.2.99", "198.18.77.1"] {
        let service = format!("{HTTP}-{target}:{HTTP}");
        let arguments = [
            ["-x", &service],
            ["-s", &interceptor],
            ["--admin", "127.0.0.1:9100"],
        ];
        let arguments = [
            &["--insecure", "--no-probe", "--grace", "0"],
            arguments.as_flattened(),
        ]
        .concat();
        let log = live.file("copier.log");
        let mut copier = live
            .spawn(binary("millrace-copier"), &arguments, &[], &log)
            .unwrap();
        let admin = ([127, 0, 0, 1], 9100).into();
        wait_for("the copier", Duration::from_secs(20), || {
            live.get(admin, "/readyz")
                .is_ok_and(|(code, _)| code == 200)
        })
        .unwrap();
        load(&scene);
        // Neighbour discovery gives up after three seconds.
        std::thread::sleep(Duration::from_secs(4));
        let status = live.get_json(admin, "/status").unwrap();
        assert!(number(&status, "/report/replicas/opened") >= CONNECTIONS);
        copier.terminate(Duration::from_secs(10)).unwrap();
        let seen: u64 = errors.iter().map(PacketCounter::seen).sum();
        assert_eq!(seen, 0, "{target}");
        let log = copier.log();
        assert!(log.contains("does not tell its MAC address"), "{log}");
    }
}
