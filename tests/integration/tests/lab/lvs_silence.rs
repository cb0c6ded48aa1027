//! Real servers whose answers nobody sees, though connections are given to them: copying stops before more than a
//! few packets reach a client, says why, and loses nothing.

use std::thread::sleep;
use std::time::Duration;

use millrace_integration::cluster::{ClusterOutcome, ClusterScene, Mode, join};
use millrace_integration::{HTTP, can_run, number};
use millrace_lab::wait_for;

const SETTLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// What may reach the clients of each target before its silence is noticed.
const UNNOTICED: u64 = 10;
/// The virtual addresses are of two families.
const TARGETS: u64 = 2;

/// How many of the targets under load are stopped.
fn stopped(scene: &ClusterScene) -> usize {
    let status = scene.status(0);
    let targets = status["report"]["targets"].as_array().unwrap();
    let port = format!(":{HTTP}");
    let is_stopped = |target: &&serde_json::Value| {
        target["target"].as_str().unwrap().ends_with(&port) && target["state"] != "open"
    };
    targets.iter().filter(is_stopped).count()
}

/// Waits until both targets under load are stopped and nothing is delivered any more.
fn stands_still(scene: &ClusterScene) {
    wait_for("copying to stop", Duration::from_secs(10), || {
        let delivered = || number(&scene.status(0), "/report/bytes/delivered");
        let before = delivered();
        sleep(Duration::from_millis(600));
        stopped(scene) as u64 >= TARGETS && delivered() == before
    })
    .unwrap();
}

fn goes_on(scene: &ClusterScene) {
    wait_for("all targets to be open", Duration::from_secs(30), || {
        stopped(scene) == 0
    })
    .unwrap();
}

/// What reached clients.
fn at_clients(outcome: &ClusterOutcome) -> u64 {
    let clients = outcome
        .leaks
        .iter()
        .filter(|(host, _)| host.starts_with("client"));
    clients.map(|(_, packets)| packets).sum()
}

#[test]
fn a_real_server_that_joins_without_an_agent_stops_copying_until_it_is_out() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.real[2].stop_interceptor();
    scene.real[2].stop_agent();
    scene.real[2].is_named = false;
    scene.cluster.director.set_active(2, false).unwrap();
    scene.start_copier(0, &[]);
    let load = scene.mixed_load(0, 12 * SECOND);
    sleep(3 * SECOND);
    scene.cluster.director.set_active(2, true).unwrap();
    stands_still(&scene);
    sleep(4 * SECOND);
    let log = scene.copier_log(0);
    assert!(log.contains("it fell silent"), "{log}");
    scene.cluster.director.set_active(2, false).unwrap();
    goes_on(&scene);
    join(load);
    scene.settle(SETTLE);
    let log = scene.copier_log(0);
    assert!(
        log.contains("a real server whose answers are not diverted"),
        "{log}"
    );
    let outcome = scene.finish();
    assert!(
        at_clients(&outcome) <= TARGETS * UNNOTICED,
        "{:?}",
        outcome.leaks
    );
    eprintln!("before it was noticed: {:?}", outcome.leaks);
    outcome.assert_exact();
}

#[test]
fn a_real_server_that_is_named_no_more_and_still_gets_connections_stops_copying() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.start_copier(0, &[]);
    let load = scene.mixed_load(0, 12 * SECOND);
    sleep(3 * SECOND);
    scene.real[2].is_named = false;
    scene.name_interceptors();
    stands_still(&scene);
    sleep(3 * SECOND);
    scene.real[2].is_named = true;
    scene.name_interceptors();
    goes_on(&scene);
    join(load);
    let outcome = scene.finish_exact(SETTLE);
    assert_eq!(at_clients(&outcome), 0, "its agent still diverts");
}
