//! Copiers that take their shares of the sources under locks in Consul (`-f auto`): none is another's while both send.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use millrace_integration::cluster::{ClusterScene, Mode, join};
use millrace_integration::{HTTP, can_run, number};
use millrace_lab::{DEVICE, Host, wait_for};
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

/// Who sends with which share, as the target's side sees it: sources of the last second, by the sender's device.
struct Watched {
    director: Host,
    /// Shares that there are.
    of: u16,
}

impl Watched {
    fn start(scene: &ClusterScene, of: u16) -> Self {
        let director = scene.cluster.director.place().host.clone();
        let table = format!(
            "table netdev owners {{\n set seen {{\n type ether_addr . inet_service\n flags dynamic,timeout\n timeout 1s\n \
             size 65535\n }}\n chain in {{\n type filter hook ingress device \"{DEVICE}\" priority -300;\n \
             tcp dport {HTTP} update @seen {{ ether saddr . tcp sport }}\n }}\n}}\n"
        );
        let file = director.file("owners.nft");
        std::fs::write(&file, table).unwrap();
        director
            .check("nft", &["-f", &file.display().to_string()])
            .unwrap();
        Self { director, of }
    }

    /// Each share that was sent with in the last second, and by whom.
    fn owners(&self) -> BTreeMap<u16, BTreeSet<String>> {
        let text = self
            .director
            .check("nft", &["-j", "list", "set", "netdev", "owners", "seen"]);
        let document: Value = serde_json::from_str(&text.unwrap()).unwrap();
        let objects = document["nftables"].as_array().unwrap();
        let set = objects.iter().find_map(|object| object.get("set")).unwrap();
        let none = Vec::new();
        let mut owners = BTreeMap::<u16, BTreeSet<String>>::new();
        for element in set["elem"].as_array().unwrap_or(&none) {
            let pair = &element["elem"]["val"]["concat"];
            let (sender, port) = (pair[0].as_str().unwrap(), pair[1].as_u64().unwrap());
            // Equal blocks of the ports from 1024; what does not divide is nobody's.
            let share = (port - 1024) / ((65_536 - 1024) / u64::from(self.of));
            owners
                .entry(share as u16)
                .or_default()
                .insert(sender.to_owned());
        }
        owners
    }

    /// Looks once a second that no share is sent with by two; gives how many were sent with at most.
    fn watch(&self, lasting: Duration) -> usize {
        let end = Instant::now() + lasting;
        let mut most = 0;
        while Instant::now() < end {
            let owners = self.owners();
            for (share, senders) in &owners {
                assert_eq!(
                    senders.len(),
                    1,
                    "share {share} is sent with by {senders:?}"
                );
            }
            most = most.max(owners.len());
            sleep(SECOND);
        }
        most
    }
}

/// The shares of these copiers.
fn shares(scene: &ClusterScene, lives: impl Iterator<Item = usize>) -> BTreeSet<u16> {
    let all: Vec<u16> = lives.map(|live| share(&scene.copier_log(live))).collect();
    let distinct: BTreeSet<u16> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "{all:?}");
    distinct
}

#[test]
fn sixteen_copiers_never_send_with_one_share_whoever_dies_stands_still_or_is_cut_off() {
    const SHARES: &str = "auto/16";
    if !can_run() {
        return;
    }
    let mut options = ClusterScene::options();
    options.live_servers = 16;
    options.real_servers = 1;
    let Some(mut scene) = ClusterScene::in_consul(options, Mode::Sink) else {
        return;
    };
    let watched = Watched::start(&scene, 16);
    scene.start_copiers(0..16, &["-f", SHARES]);
    assert_eq!(shares(&scene, 0..16).len(), 16);
    let loads: Vec<_> = (0..16)
        .flat_map(|live| scene.faint_load(live, 105 * SECOND))
        .collect();
    let most = watched.watch(6 * SECOND);
    assert!(most >= 12, "at most {most} of 16 were seen at a moment");
    for live in 0..4 {
        scene.kill_copier(live);
    }
    let consul = scene.consul.as_ref().unwrap();
    for live in [4, 5] {
        consul.cut(&scene.cluster.live[live].host, true);
    }
    for live in [6, 7] {
        scene.signal_copier(live, Signal::STOP);
    }
    // By then nobody has the shares of these eight, and four new ones take some of them.
    watched.watch(53 * SECOND);
    scene.start_copiers(0..4, &["-f", SHARES]);
    watched.watch(8 * SECOND);
    let consul = scene.consul.as_ref().unwrap();
    for live in [4, 5] {
        consul.cut(&scene.cluster.live[live].host, false);
    }
    for live in [6, 7] {
        scene.signal_copier(live, Signal::CONT);
    }
    let most = watched.watch(20 * SECOND);
    assert!(
        most >= 9,
        "at most {most} of 12 and more were seen at a moment"
    );
    let mut alive: Vec<usize> = (0..16).collect();
    for live in 4..8 {
        if !scene.is_running(live) {
            let (code, log) = scene.ended_copier(live);
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("is another copier's now"), "{log}");
            alive.retain(|it| *it != live);
        }
    }
    shares(&scene, alive.into_iter());
    join(loads);
    scene.settle(SETTLE);
    scene.finish().assert_safe();
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
