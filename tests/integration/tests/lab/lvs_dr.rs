//! A cluster behind a director that routes directly: two live servers with a copier each, three real servers with an
//! interceptor each. No one tells the copiers which real server gets a connection.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use millrace_integration::cluster::{ClusterScene, Mode, POOLS, join};
use millrace_integration::{Family, GREETING, HTTP, RESP, can_run, number};
use millrace_lab::load::{Kind, Load, RESP_PASSWORD};
use serde_json::Value;

const SETTLE: Duration = Duration::from_secs(40);

/// Traffic of all kinds to both live servers over both families, at the same time.
fn traffic(scene: &ClusterScene) {
    let mut loads: Vec<_> = (0..2)
        .flat_map(|live| scene.mixed_load(live, Duration::from_secs(4)))
        .collect();
    for (live, place) in scene.cluster.live.iter().enumerate() {
        for (n, family) in Family::BOTH.into_iter().enumerate() {
            let different = (1 + n + 2 * live) as u64;
            let to = |port| SocketAddr::new(family.of(place.address), port);
            let resp = Kind::Resp {
                count: 20,
                batches: 10 + different,
                pipeline: 8,
            };
            let greeting = Kind::Greeting {
                count: 20,
                lines: 2 + different,
            };
            loads.push(scene.load_in_background(Load::new(resp, to(RESP)).concurrency(4)));
            loads.push(scene.load_in_background(Load::new(greeting, to(GREETING)).concurrency(4)));
        }
    }
    join(loads);
}

fn copied_exactly(mode: Mode, arguments: [&[&str]; 2]) {
    if can_run() {
        assert_eq!(replay(mode, arguments), 0, "bytes that nobody asked for");
    }
}

/// As [`copied_exactly`], the first copier with a protocol module for Redis: the answers to its log-ins come back with their payload. The
/// passwords are those of the live servers, so that the same bytes arrive.
fn copied_exactly_with_a_module(mode: Mode, arguments: [&[&str]; 2]) {
    if !can_run() {
        return;
    }
    let file =
        std::env::temp_dir().join(format!("millrace-accounts-{mode:?}-{}", std::process::id()));
    std::fs::write(&file, format!("default@{RESP_PASSWORD}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (module, path) = (format!("{RESP}=redis"), file.display().to_string());
    let module = ["--protocol", &module, "--accounts-file", &path];
    let [first, second] = arguments;
    let carried = replay(mode, [&[&module[..], first].concat(), second]);
    std::fs::remove_file(file).unwrap();
    // 40 sessions at the first live server log in.
    assert!(carried >= 40 * "+OK\r\n".len() as u64, "{carried} bytes");
}

/// Gives the bytes of payload that came back.
fn replay(mode: Mode, arguments: [&[&str]; 2]) -> u64 {
    let mut scene = ClusterScene::new(ClusterScene::options(), mode);
    scene.start_checks();
    scene.start_tester();
    for (live, arguments) in arguments.into_iter().enumerate() {
        scene.start_copier(live, arguments);
    }
    traffic(&scene);
    scene.settle(SETTLE);
    (0..2).for_each(|live| assert_copies_of_each_are_known(&scene.status(live)));
    let carried = scene.returned_payload();
    let outcome = scene.finish_exact(SETTLE);
    outcome.assert_shares(0.25);
    for report in &outcome.reports {
        assert!(number(report, "/sessions/captured") > 300, "{report:#}");
    }
    carried
}

/// A copier knows how many copies each real server got: its interceptor carried their answers.
fn assert_copies_of_each_are_known(status: &Value) {
    let links = status["interceptors"].as_array().unwrap();
    let copies: Vec<u64> = links
        .iter()
        .map(|link| number(link, "/copies_connected"))
        .collect();
    let all = number(status, "/report/replicas/established");
    assert_eq!(copies.iter().sum::<u64>(), all, "{status:#}");
    assert!(copies.iter().all(|of_one| *of_one > 0), "{copies:?}");
}

#[test]
fn clients_keep_their_addresses() {
    copied_exactly(Mode::Sink, [&[], &[]]);
}

#[test]
fn each_copier_claims_a_pool_of_its_own() {
    copied_exactly_with_a_module(Mode::Sink, [&["-c", POOLS[0]], &["-c", POOLS[1]]]);
}

#[test]
fn responses_are_taken_from_a_queue() {
    copied_exactly_with_a_module(Mode::Nfqueue, [&[], &["-c", POOLS[1]]]);
}

#[test]
fn responses_of_all_real_servers_end_at_one_assistant() {
    copied_exactly_with_a_module(Mode::Link, [&[], &["-c", POOLS[1]]]);
}

#[test]
fn bursts_of_uploads_reach_three_real_servers_whole() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.start_checks();
    scene.start_tester();
    scene.start_copier(0, &[]);
    let to = SocketAddr::new(Family::V4.of(scene.cluster.live[0].address), HTTP);
    for concurrency in [10, 20] {
        let kind = Kind::Upload {
            size: 1_000_000,
            count: 200,
        };
        let load = Load::new(kind, to).concurrency(concurrency);
        join(vec![scene.load_in_background(load)]);
        // One burst fits into the copier's memory even if nothing is delivered before its end; both do not.
        scene.settle(SETTLE);
    }
    scene.finish_exact(SETTLE);
}
