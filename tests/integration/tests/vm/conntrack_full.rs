//! A live host whose table of tracked connections is small: copies take no place in it, so that real clients keep
//! theirs. `nf_conntrack_max` belongs to the whole machine: `make test-vm` runs this file in one of its own, which is
//! slow.

use std::net::Ipv4Addr;
use std::time::Duration;

use millrace_integration::{Family, HTTP, Scene, can_run};
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::{Host, StageOptions};

/// Connections that the machine may track.
const MAX: u64 = 1000;
/// The smallest hash table that Linux makes. An entry that is over stays in it until a new one comes to the same bucket, or
/// until the next sweep.
const BUCKETS: u64 = 512;
const RATE: f64 = 50.0;
/// Connections of one load: twice as many as may be tracked.
const CONNECTIONS: u64 = 2000;

fn is_virtual_machine() -> bool {
    let here = std::env::var_os("MILLRACE_VM").is_some();
    if !here {
        eprintln!(
            "SKIPPED: nf_conntrack_max belongs to the whole machine; make test-vm runs it in a virtual one"
        );
    }
    here && can_run()
}

fn load(scene: &Scene) -> Summary {
    let kind = Kind::OneRequest {
        count: CONNECTIONS,
        rate: Some(RATE),
        path: "/bytes/300".to_owned(),
    };
    let to = scene.live_service(0, Family::V4, HTTP);
    scene.load(Load::new(kind, to).from(&scene.client_addresses(Family::V4)))
}

/// Lets the host track its connections, as any stateful rule does, and forget those that are over at once: what live
/// clients alone need fits.
fn track(host: &Host) {
    let file = host.file("track.nft");
    let rules = "table ip test { chain in { type filter hook input priority 0; ct state new accept; }; \
                 chain out { type filter hook output priority 0; ct state new accept; }; }\n";
    std::fs::write(&file, rules).unwrap();
    host.check("nft", &["-f", &file.display().to_string()])
        .unwrap();
    for state in ["time_wait", "close", "fin_wait", "last_ack"] {
        let name = format!("net.netfilter.nf_conntrack_tcp_timeout_{state}=1");
        host.check("sysctl", &["-q", "-w", &name]).unwrap();
    }
}

/// Packets that the host dropped since its table was full.
fn dropped(host: &Host) -> u64 {
    let table = host.check("cat", &["/proc/net/stat/nf_conntrack"]).unwrap();
    let mut lines = table.lines();
    let mut names = lines.next().unwrap().split_whitespace();
    let column = names.position(|name| name == "drop").unwrap();
    let of_cpu = |line: &str| {
        let value = line.split_whitespace().nth(column).unwrap();
        u64::from_str_radix(value, 16).unwrap()
    };
    lines.map(of_cpu).sum()
}

/// TCP connections to this address that the host tracks.
fn tracked(host: &Host, address: Ipv4Addr) -> usize {
    let table = host.check("cat", &["/proc/net/nf_conntrack"]).unwrap();
    let to = format!(" dst={address} ");
    table
        .lines()
        .filter(|line| line.contains(" tcp ") && line.contains(&to))
        .count()
}

#[test]
fn live_clients_see_no_error_beside_a_full_rate_of_copies() {
    if !is_virtual_machine() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let host = scene.stage.live[0].host.clone();
    track(&host);
    for (name, value) in [("max", MAX), ("buckets", BUCKETS)] {
        let file = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
        std::fs::write(file, value.to_string()).unwrap();
    }
    scene.start_copier(0, &["-B", "256"]);
    let before = dropped(&host);
    let summary = load(&scene);
    eprintln!("beside copies: {summary:?}");
    assert_eq!((summary.errors, dropped(&host) - before), (0, 0));
    let (live, target) = (&scene.stage.live[0], &scene.stage.target);
    assert!(tracked(&host, live.address.v4) > 0, "it tracks nothing");
    assert_eq!(tracked(&host, target.address.v4), 0, "copies among them");
    scene.finish_exact(Duration::from_secs(120));
}
