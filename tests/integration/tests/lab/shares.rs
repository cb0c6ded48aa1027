//! Copiers that take their shares of the sources under locks in Consul (`-f auto`): none is another's while both send.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use millrace_integration::cluster::{ClusterScene, Mode, join};
use millrace_integration::{can_run, number};
use millrace_lab::wait_for;
use rustix::process::Signal;
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_secs(60);

fn scene() -> Option<ClusterScene> {
    if !can_run() {
        return None;
    }
    ClusterScene::in_consul(ClusterScene::options(), Mode::Sink)
}

/// The share that a copier says it has taken.
fn share(log: &str) -> u16 {
    let said = log
        .lines()
        .rfind(|line| line.contains("of the sources is this copier's"));
    let (_, rest) = said.unwrap().split_once("share ").unwrap();
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn copiers_take_different_shares_and_none_that_is_taken() {
    let Some(mut scene) = scene() else { return };
    for live in 0..2 {
        scene.start_copier(live, &["-f", "auto/2"]);
    }
    let shares: BTreeSet<u16> = (0..2).map(|live| share(&scene.copier_log(live))).collect();
    assert_eq!(shares, BTreeSet::from([0, 1]));
    let (code, log) = scene.refused_copier(0, &["-f", "auto/2"]);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("all 2 shares of cluster web are taken"),
        "{log}"
    );
    join(scene.loads(4 * SECOND));
    scene.finish_exact(SETTLE);
}

#[test]
fn a_copier_that_stood_still_sends_nothing_with_a_share_that_is_anothers_by_then() {
    let Some(mut scene) = scene() else { return };
    scene.start_copier(1, &["-f", "auto/1"]);
    let loads = scene.mixed_load(1, 6 * SECOND);
    sleep(2 * SECOND);
    scene.signal_copier(1, Signal::STOP);
    join(loads);
    // A session lives for up to two TTLs, and its lock is kept back for the lock delay.
    sleep(46 * SECOND);
    scene.start_copier(0, &["-f", "auto/1"]);
    scene.signal_copier(1, Signal::CONT);
    let (code, log) = scene.ended_copier(1);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("share 0 of the sources is another copier's now"),
        "{log}"
    );
    join(scene.mixed_load(0, 3 * SECOND));
    scene.settle(SETTLE);
    scene.finish().assert_delivered();
}

#[test]
fn without_consul_nothing_is_sent_once_the_share_may_be_anothers_and_all_arrives_afterwards() {
    let Some(mut scene) = scene() else { return };
    scene.start_copier(0, &["-f", "auto"]);
    let loads = scene.mixed_load(0, 30 * SECOND);
    sleep(3 * SECOND);
    scene.consul.as_mut().unwrap().kill();
    let cause = |status: &Value| status["headline"]["cause"].as_str().map(str::to_owned);
    wait_for("the share to be doubted", 20 * SECOND, || {
        cause(&scene.status(0)).as_deref() == Some("share")
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)["headline"]));
    let sent = || number(&scene.status(0), "/report/send/packets");
    sleep(SECOND);
    let before = sent();
    sleep(2 * SECOND);
    assert_eq!(sent(), before, "it sends though its share may be another's");
    scene.consul.as_mut().unwrap().run();
    join(loads);
    scene.settle(SETTLE);
    assert_eq!(cause(&scene.status(0)), None);
    scene.finish().assert_delivered();
}
