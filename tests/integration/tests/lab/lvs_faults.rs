//! A cluster under load whose parts are killed, restarted, added and removed, one at a time.

use std::thread::sleep;
use std::time::Duration;

use millrace_integration::cluster::{
    ClusterScene, Mode, POOLS, assert_ended_by_target, assert_faithful, join,
};
use millrace_integration::{can_run, number};
use millrace_lab::wait_for;

const SETTLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn interceptors_killed_one_after_the_other_lose_no_session() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::copied(Mode::Sink);
    let loads = scene.loads(18 * SECOND);
    for real in &mut scene.real {
        sleep(2 * SECOND);
        real.kill_interceptor();
        sleep(3 * SECOND);
        real.start_interceptor();
    }
    join(loads);
    scene.finish_exact(SETTLE);
}

#[test]
fn router_agents_killed_one_after_the_other_lose_no_session() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::copied(Mode::Sink);
    let loads = scene.loads(12 * SECOND);
    for real in &mut scene.real {
        sleep(SECOND);
        real.kill_agent();
        sleep(2 * SECOND);
        real.start_agent();
    }
    join(loads);
    scene.finish_exact(SETTLE);
}

#[test]
fn a_rolling_restart_of_all_interceptors_and_router_agents_loses_no_session() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::copied(Mode::Sink);
    let loads = scene.loads(12 * SECOND);
    sleep(2 * SECOND);
    for real in &mut scene.real {
        real.stop_agent();
        real.start_agent();
        real.stop_interceptor();
        real.start_interceptor();
        sleep(SECOND);
    }
    join(loads);
    scene.finish_exact(SETTLE);
}

#[test]
fn a_copier_killed_takes_only_its_own_sessions_with_it() {
    if !can_run() {
        return;
    }
    for killed in 0..2 {
        let mut scene = ClusterScene::copied(Mode::Sink);
        let loads = scene.loads(10 * SECOND);
        sleep(3 * SECOND);
        // With the same pool.
        let pool = ["-c", POOLS[1]];
        scene.kill_copier_for(killed, 2 * SECOND, if killed == 0 { &[] } else { &pool });
        join(loads);
        scene.settle(SETTLE);
        let outcome = scene.finish();
        outcome.assert_safe();
        // The reports are in the order of the starts: the survivor first.
        assert_faithful(&outcome.reports[0]);
        let missing = outcome.missing_of(1 - killed);
        assert_eq!(missing.missing, 0, "of the copier that lived: {missing}");
        let second_life = &outcome.reports[1];
        assert_eq!(second_life["fidelity"], 1.0, "{second_life:#}");
        assert!(
            number(second_life, "/replicas/completed") > 20,
            "{second_life:#}"
        );
    }
}

#[test]
fn an_application_killed_ends_only_the_sessions_of_its_real_server() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.start_checks();
    scene.start_copier(0, &[]);
    scene.start_copier(1, &["-c", POOLS[1]]);
    let loads = scene.loads(10 * SECOND);
    sleep(3 * SECOND);
    scene.real[1].kill_application();
    // As a director would whose health check fails after a second. Connections that are given to the dead application
    // until then are refused: whatever was open when it died, each copier loses some.
    sleep(SECOND);
    scene.cluster.director.set_active(1, false).unwrap();
    join(loads);
    scene.settle(SETTLE);
    scene.real[1].start_application();
    let outcome = scene.finish();
    outcome.assert_no_leak();
    for report in &outcome.reports {
        assert_ended_by_target(report);
    }
    for checked in &outcome.checks {
        let dead = checked.server.ip() == scene_address(1, checked.server.is_ipv4());
        assert!(dead || checked.failed.is_empty(), "{checked:?}");
    }
}

fn scene_address(real: u8, v4: bool) -> std::net::IpAddr {
    let address = millrace_lab::Network::Servers.address(101 + real);
    if v4 {
        address.v4.into()
    } else {
        address.v6.into()
    }
}

#[test]
fn an_interceptor_gone_for_good_costs_only_the_sessions_of_its_real_server() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.start_checks();
    scene.start_tester();
    // What gets no answer is given up soon.
    scene.start_copier(0, &["-t", "5"]);
    scene.start_copier(1, &["-t", "5", "-c", POOLS[1]]);
    let loads = scene.loads(12 * SECOND);
    sleep(3 * SECOND);
    scene.real[2].kill_interceptor();
    join(loads);
    scene.settle(SETTLE);
    let outcome = scene.finish();
    outcome.assert_safe();
    for report in &outcome.reports {
        let aborted: Vec<_> = report["replicas"]["aborted"]
            .as_object()
            .unwrap()
            .iter()
            .collect();
        assert!(!aborted.is_empty(), "they are counted: {report:#}");
        let (done, all) = (
            number(report, "/replicas/completed"),
            number(report, "/sessions/captured"),
        );
        // One of three real servers, for three quarters of the time.
        assert!(done * 2 > all && done < all, "{report:#}");
    }
}

#[test]
fn a_real_server_joins_and_leaves_under_load() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.start_checks();
    scene.cluster.director.set_active(2, false).unwrap();
    scene.real[2].is_named = false;
    scene.start_copier(0, &[]);
    scene.start_copier(1, &["-c", POOLS[1]]);
    let loads = scene.loads(12 * SECOND);
    sleep(2 * SECOND);
    // First its interceptor, then its connections: and the other way round when it leaves.
    name(&mut scene, true);
    scene.cluster.director.set_active(2, true).unwrap();
    sleep(3 * SECOND);
    scene.cluster.director.set_active(2, false).unwrap();
    join(loads);
    scene.settle(SETTLE);
    name(&mut scene, false);
    // Those that stay have not noticed.
    join(scene.loads(2 * SECOND));
    let outcome = scene.finish_exact(SETTLE);
    outcome.assert_shares(0.02);
    assert!(outcome.real[2].len() * 3 < outcome.all_real().len());
}

#[test]
fn a_real_server_without_an_interceptor_keeps_the_target_closed_until_it_has_one() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::new(ClusterScene::options(), Mode::Sink);
    scene.real[2].is_named = false;
    scene.start_copier(0, &[]);
    scene.start_copier(1, &["-c", POOLS[1]]);
    // Of many clients, so that probes go to all real servers.
    let loads = scene.mixed_load(0, 4 * SECOND);
    wait_for("the missing hop to be named", 60 * SECOND, || {
        let status = scene.status(0);
        let targets = status["report"]["targets"].as_array().cloned();
        targets.unwrap_or_default().iter().any(|target| {
            let finding = target["finding"].as_str().unwrap_or_default();
            target["state"] != "open" && finding.contains("probes came back; the others: ")
        })
    })
    .unwrap();
    name(&mut scene, true);
    wait_for("the target to open", 60 * SECOND, || {
        let status = scene.status(0);
        let targets = status["report"]["targets"].as_array().cloned();
        // Those of services without clients wait for one.
        let mut asked = targets.unwrap_or_default();
        asked.retain(|target| target["state"] != "waiting");
        !asked.is_empty() && asked.iter().all(|target| target["state"] == "open")
    })
    .unwrap();
    join(loads);
    scene.settle(SETTLE);
    scene.finish().assert_safe();
}

/// Names the third real server's interceptor to the copiers, or not any more, and waits until they act on it.
fn name(scene: &mut ClusterScene, named: bool) {
    scene.real[2].is_named = named;
    scene.name_interceptors();
    let links = if named { 3 } else { 2 };
    wait_for("the copiers to follow", 10 * SECOND, || {
        (0..2).all(|live| {
            let status = scene.status(live);
            let list = status["interceptors"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            list.len() == links && list.iter().all(|link| link["connected"] == true)
        })
    })
    .unwrap();
}
