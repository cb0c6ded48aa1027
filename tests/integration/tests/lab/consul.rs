//! A cluster whose daemons find each other in Consul, with access control: nobody lists an address.

use std::thread::sleep;
use std::time::{Duration, Instant};

use millrace_integration::cluster::{ClusterScene, Mode, POOLS, join};
use millrace_integration::{can_run, number};
use millrace_lab::wait_for;
use serde_json::Value;

const SETTLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn scene(real_servers: u8) -> Option<ClusterScene> {
    if !can_run() {
        return None;
    }
    let mut options = ClusterScene::options();
    options.real_servers = real_servers;
    ClusterScene::in_consul(options, Mode::Sink)
}

/// Starts both copiers and waits until each has links to so many interceptors.
fn copiers(scene: &mut ClusterScene, links: usize) {
    scene.start_copier(0, &[]);
    scene.start_copier(1, &["-c", POOLS[1]]);
    linked(scene, links);
}

fn linked(scene: &ClusterScene, links: usize) {
    let connected = |status: &Value| {
        let list = status["interceptors"].as_array().cloned();
        let list = list.unwrap_or_default();
        let held = status["router_agents"].as_array().cloned();
        let held = held.unwrap_or_default();
        let all = held.len() == links && held.iter().all(|it| it["held"] == true);
        list.len() == links && list.iter().all(|it| it["connected"] == true) && all
    };
    wait_for("the copiers to follow", 30 * SECOND, || {
        (0..2).all(|live| connected(&scene.status(live)))
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)));
}

fn doubt(scene: &ClusterScene) -> String {
    let status = scene.status(0);
    let services = status["consul"].as_array().cloned().unwrap_or_default();
    assert_eq!(services.len(), 2, "{status:#}");
    let doubts = services
        .iter()
        .map(|it| it["doubt"].as_str().unwrap().to_owned());
    doubts.collect::<Vec<_>>().join("; ")
}

#[test]
fn a_real_server_that_joins_and_one_that_leaves_are_found_and_let_go() {
    let Some(mut scene) = scene(4) else { return };
    scene.start_checks();
    scene.cluster.director.set_active(3, false).unwrap();
    scene.real[3].stop_interceptor();
    scene.real[3].stop_agent();
    copiers(&mut scene, 3);
    let loads = scene.loads(20 * SECOND);
    sleep(2 * SECOND);
    scene.real[3].start_agent();
    scene.real[3].start_interceptor();
    linked(&scene, 4);
    scene.cluster.director.set_active(3, true).unwrap();
    sleep(4 * SECOND);
    scene.cluster.director.set_active(0, false).unwrap();
    join(loads);
    scene.settle(SETTLE);
    scene.real[0].stop_interceptor();
    scene.real[0].stop_agent();
    linked(&scene, 3);
    join(scene.loads(2 * SECOND));
    scene.real[0].start_agent();
    scene.real[0].start_interceptor();
    let outcome = scene.finish_exact(SETTLE);
    assert!(outcome.real[3].len() > 20, "the one that joined took part");
}

#[test]
fn without_consul_everything_goes_on_and_a_copier_starts_with_those_it_knew() {
    let Some(mut scene) = scene(3) else { return };
    scene.start_checks();
    copiers(&mut scene, 3);
    let loads = scene.light_load(1, 66 * SECOND);
    sleep(2 * SECOND);
    scene.consul.as_mut().unwrap().kill();
    let killed = Instant::now();
    wait_for("Consul to be missed", 10 * SECOND, || {
        doubt(&scene).contains("does not answer")
    })
    .unwrap();
    let said = scene.status(0)["headline"]["also"].to_string();
    assert!(said.contains("stay as they were known last"), "{said}");
    // Its second life knows the peers of the first.
    scene.kill_copier_for(0, SECOND, &[]);
    linked(&scene, 3);
    let more = scene.mixed_load(0, 5 * SECOND);
    // Nobody misses a real server whose daemons are started anew.
    scene.real[2].stop_interceptor();
    scene.real[2].start_interceptor();
    sleep((60 * SECOND).saturating_sub(killed.elapsed()));
    scene.consul.as_mut().unwrap().run();
    wait_for("Consul's return to be noticed", 15 * SECOND, || {
        doubt(&scene) == "; "
    })
    .unwrap_or_else(|error| panic!("{error}: {}", doubt(&scene)));
    join(loads);
    join(more);
    linked(&scene, 3);
    scene.settle(SETTLE);
    let outcome = scene.finish();
    outcome.assert_delivered();
    for report in &outcome.reports {
        assert!(number(report, "/replicas/completed") > 20, "{report:#}");
    }
}

#[test]
fn a_cluster_of_consul_that_loses_its_leader_goes_on_finding_who_joins() {
    if !can_run() {
        return;
    }
    let mut options = ClusterScene::options();
    options.real_servers = 4;
    let Some(mut scene) = ClusterScene::in_three_consuls(options, Mode::Sink) else {
        return;
    };
    scene.start_checks();
    scene.cluster.director.set_active(3, false).unwrap();
    scene.real[3].stop_interceptor();
    scene.real[3].stop_agent();
    // The second has a share and a plan, which both need a leader.
    scene.ctl(&["intensity", "100%"]);
    scene.start_copier(0, &[]);
    scene.start_copier(1, &["-f", "auto", "--follow-plan"]);
    linked(&scene, 3);
    let loads = (0..2).flat_map(|live| scene.light_load(live, 40 * SECOND));
    let loads: Vec<_> = loads.collect();
    sleep(2 * SECOND);
    scene.consul.as_mut().unwrap().kill_leader();
    sleep(SECOND);
    scene.kill_copier_for(0, SECOND, &[]);
    sleep(10 * SECOND);
    scene.real[3].start_agent();
    scene.real[3].start_interceptor();
    linked(&scene, 4);
    scene.cluster.director.set_active(3, true).unwrap();
    sleep(5 * SECOND);
    scene.consul.as_mut().unwrap().run();
    join(loads);
    scene.settle(SETTLE);
    let outcome = scene.finish();
    outcome.assert_delivered();
    assert!(outcome.real[3].len() > 20, "the one that joined took part");
    assert!(outcome.missing_of(1).is_none(), "{}", outcome.missing_of(1));
}

#[test]
fn a_token_that_is_revoked_makes_nobody_leave() {
    let Some(mut scene) = scene(3) else { return };
    copiers(&mut scene, 3);
    let token = scene.copier_token(0);
    let consul = scene.consul.as_ref().unwrap();
    let shown = scene.status(0).to_string() + &scene.copier_log(0);
    assert!(!shown.contains(&token), "a token is shown");
    consul.revoke(&token);
    // Something changes, so that the question that is open is answered.
    scene.real[1].stop_interceptor();
    scene.real[1].start_interceptor();
    wait_for("the token to be missed", 30 * SECOND, || {
        !doubt(&scene).trim_matches([';', ' ']).is_empty()
    })
    .unwrap();
    sleep(3 * SECOND);
    linked(&scene, 3);
    join(scene.loads(2 * SECOND));
    scene.finish_exact(SETTLE);
}

#[test]
fn until_an_agent_is_known_nothing_is_sent() {
    let Some(mut scene) = scene(3) else { return };
    for real in &mut scene.real {
        real.stop_agent();
    }
    scene.start_copier_only(0);
    let loads = scene.mixed_load(0, 3 * SECOND);
    wait_for("the cause", 10 * SECOND, || {
        let headline = &scene.status(0)["headline"];
        let sentence = headline["sentence"].as_str().unwrap().to_owned();
        headline["cause"] == "router_agents"
            && sentence.contains("Consul lists no router-agent of cluster web")
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)["headline"]));
    join(loads);
    let status = scene.status(0);
    assert_eq!(number(&status, "/report/send/packets"), 0, "{status:#}");
    for real in &mut scene.real {
        real.start_agent();
    }
    join(scene.mixed_load(0, 3 * SECOND));
    scene.settle(SETTLE);
    let outcome = scene.finish();
    outcome.assert_safe();
    assert!(number(&outcome.reports[0], "/replicas/completed") > 20);
}
