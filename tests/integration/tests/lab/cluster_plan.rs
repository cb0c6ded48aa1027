//! Copiers that follow their cluster's plan in Consul (`--follow-plan`): how much they copy together, and how they stop.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use millrace_integration::cluster::{ClusterOutcome, ClusterScene, Mode, Running, join};
use millrace_integration::{HTTP, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::wait_for;

const SECOND: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(60);
const FOLLOWS: [&str; 3] = ["-f", "auto", "--follow-plan"];

fn scene(live_servers: u8) -> Option<ClusterScene> {
    if !can_run() {
        return None;
    }
    let mut options = ClusterScene::options();
    options.live_servers = live_servers;
    ClusterScene::in_consul(options, Mode::Sink)
}

/// So many short sessions in a second at a live server.
fn sessions(scene: &ClusterScene, live: usize, rate: u32, seconds: u64) -> Running {
    let to = SocketAddr::new(scene.cluster.live[live].address.v4.into(), HTTP);
    let kind = Kind::OneRequest {
        count: u64::from(rate) * seconds,
        rate: Some(rate.into()),
        path: format!("/bytes/{}", 300 + live),
    };
    scene.load_in_background(Load::new(kind, to).concurrency(8))
}

/// Sessions of all live servers, and of all real servers.
fn counts(outcome: &ClusterOutcome) -> (f64, f64) {
    (
        outcome.all_live().len() as f64,
        outcome.all_real().len() as f64,
    )
}

#[test]
fn four_copiers_with_different_loads_copy_what_the_plan_says_of_the_sum() {
    let Some(mut scene) = scene(4) else { return };
    scene.ctl(&["intensity", "50%"]);
    for live in 0..4 {
        scene.start_copier(live, &FOLLOWS);
    }
    let mut before = (0.0, 0.0);
    for level in ["50%", "100%", "200%"] {
        let shown = scene.ctl(&["intensity", level]);
        assert!(
            shown.contains(&format!("cluster web: {level} (running)")),
            "{shown}"
        );
        sleep(SECOND);
        // At half of it chance decides of each session: of 6000 that is within 1.3% for one time in three.
        let seconds = if level == "50%" { 15 } else { 4 };
        let rates = [40, 80, 120, 160].into_iter().enumerate();
        join(
            rates
                .map(|(live, rate)| sessions(&scene, live, rate, seconds))
                .collect(),
        );
        let wanted = level.trim_end_matches('%').parse::<f64>().unwrap() / 100.0;
        let off = |outcome: &ClusterOutcome| {
            let (live, real) = counts(outcome);
            (real - before.1) / (live - before.0) / wanted - 1.0
        };
        let outcome = scene.so_far(SETTLE / 4, |outcome| off(outcome).abs() < 0.05);
        let off = off(&outcome);
        assert!(off.abs() < 0.05, "{level}: {:.1}% off", off * 100.0);
        before = counts(&outcome);
    }
    let shown = scene.ctl(&["status"]);
    assert_eq!(shown.matches("  copier  ").count(), 4, "{shown}");
    assert!(
        shown.contains(": somebody@") || shown.contains("somebody@"),
        "{shown}"
    );
    scene.finish().assert_delivered();
}

#[test]
fn a_stop_is_done_everywhere_within_two_seconds_also_where_consul_is_cut_off() {
    let Some(mut scene) = scene(4) else { return };
    scene.ctl(&["intensity", "100%"]);
    for live in 0..4 {
        scene.start_copier(live, &FOLLOWS);
    }
    let loads: Vec<_> = (0..4)
        .flat_map(|live| scene.light_load(live, 30 * SECOND))
        .collect();
    let sent = |scene: &ClusterScene, live| number(&scene.status(live), "/report/send/packets");
    sleep(4 * SECOND);
    let cut_off = scene.cluster.live[3].host.clone();
    scene.consul.as_ref().unwrap().cut(&cut_off, true);
    scene.ctl(&["stop"]);
    let stopped = Instant::now();
    sleep(2 * SECOND - stopped.elapsed());
    let at_two: Vec<_> = (0..4).map(|live| sent(&scene, live)).collect();
    sleep(3 * SECOND);
    let later: Vec<_> = (0..4).map(|live| sent(&scene, live)).collect();
    assert_eq!(
        at_two, later,
        "packets were sent later than 2 s after the stop"
    );
    assert!(at_two.iter().all(|sent| *sent > 100), "{at_two:?}");
    let cause = |live| {
        scene.status(live)["headline"]["cause"]
            .as_str()
            .map(str::to_owned)
    };
    assert_eq!(
        cause(0).as_deref(),
        Some("operator"),
        "{:#}",
        scene.status(0)["headline"]
    );
    assert_eq!(
        cause(3).as_deref(),
        Some("plan"),
        "{:#}",
        scene.status(3)["headline"]
    );
    // The others see that it has lost Consul.
    wait_for("the lost copier to be missed", 40 * SECOND, || {
        let copiers = scene.status(0)["cluster"]["copiers"].clone();
        let copiers = copiers.as_array().cloned().unwrap_or_default();
        let silent = copiers
            .iter()
            .filter(|it| it["standing"] == "silent")
            .count();
        copiers.len() == 4 && silent == 1
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)["cluster"]));
    assert!(scene.ctl(&["status"]).contains("no word for 15 s"));
    let delivered = |scene: &ClusterScene| number(&scene.status(3), "/report/bytes/delivered");
    let before = delivered(&scene);
    scene.consul.as_ref().unwrap().cut(&cut_off, false);
    wait_for("the stop to be known there, too", 10 * SECOND, || {
        number(&scene.status(3), "/report/replicas/open") == 0
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(3)["report"]["replicas"]));
    assert_eq!(
        delivered(&scene),
        before,
        "it sent what had waited before it stopped"
    );
    join(loads);
    scene.ctl(&["resume"]);
    for live in 0..4 {
        wait_for("it to be heard", 10 * SECOND, || {
            scene.status(live)["headline"]["cause"]
                .as_str()
                .is_none_or(|cause| !matches!(cause, "operator" | "plan"))
        })
        .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(live)["headline"]));
    }
    let opened = |live| number(&scene.status(live), "/report/replicas/completed");
    let before: Vec<_> = (0..4).map(opened).collect();
    join((0..4).map(|live| sessions(&scene, live, 20, 2)).collect());
    for (live, before) in before.into_iter().enumerate() {
        // Open replicas alone would not do: the last session may still be on its way into the copier.
        wait_for("each session to be copied", SETTLE, || {
            opened(live) - before == 40
        })
        .unwrap_or_else(|error| {
            panic!("copier {live}: {error}: {:#}", scene.status(live)["report"])
        });
    }
    scene.finish().assert_safe();
}

#[test]
fn a_ramp_goes_on_when_the_copier_that_moves_it_dies_and_a_guard_of_one_acts_for_all() {
    let Some(mut scene) = scene(3) else { return };
    let begun = Instant::now();
    scene.ctl(&["ramp", "10%..100%/12s"]);
    for live in 0..3 {
        scene.start_copier(live, &FOLLOWS);
    }
    let loads: Vec<_> = (0..3).map(|live| sessions(&scene, live, 30, 25)).collect();
    let now = |live| scene.status(live)["report"]["intensity"]["plan"]["now"].as_f64();
    wait_for("the ramp to rise", 10 * SECOND, || now(0) > Some(0.3)).unwrap();
    // Whoever moves it: all but one go, one after the other.
    for live in [0, 1] {
        scene.kill_copier(live);
        sleep(SECOND);
    }
    let at_end = wait_for("the ramp to end", 25 * SECOND, || {
        scene.status(2)["report"]["intensity"]["plan"]["now"].as_f64() == Some(1.0)
    });
    at_end.unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(2)["report"]["intensity"]));
    let took = begun.elapsed();
    assert!(
        took > 11 * SECOND,
        "12 s, and a moment for each death: {took:?}"
    );
    scene.start_copier(0, &["-f", "auto", "--follow-plan", "--guard-window", "4s"]);
    scene.ctl(&["guards", "latency-p50>0.01ms:stop"]);
    join(loads);
    // Only the first has enough to judge by.
    let mut loads = vec![sessions(&scene, 0, 60, 8)];
    loads.push(sessions(&scene, 2, 1, 8));
    wait_for("the guard to stop all", 20 * SECOND, || {
        [0, 2]
            .iter()
            .all(|live| scene.status(*live)["report"]["intensity"]["plan"]["mode"] == "stopped")
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)["report"]["intensity"]));
    join(loads);
    let shown = scene.ctl(&["status"]);
    assert!(shown.contains("guard latency-p50>0.01ms:stop: "), "{shown}");
    scene.finish().assert_safe();
}
