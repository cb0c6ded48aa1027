//! A cluster under load to which somebody does what would let responses out: copying stops, nothing
//! or next to nothing reaches a client, and when the cause is gone every session goes on.

use std::thread::sleep;
use std::time::Duration;

use millrace_integration::cluster::{ClusterScene, Mode, join};
use millrace_integration::{can_run, number};
use millrace_lab::wait_for;
use rustix::process::Signal;

const SETTLE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
/// What may be on its way at the moment when nobody vouches for a host any more.
const IN_FLIGHT: u64 = 10;

fn sent(scene: &ClusterScene) -> u64 {
    let live = 0..2;
    live.map(|live| number(&scene.status(live), "/report/send/packets"))
        .sum()
}

/// Waits until no copier sends any more; says why, as the first one has it.
fn stands_still(scene: &ClusterScene) -> String {
    wait_for("copying to stop", Duration::from_secs(10), || {
        let before = sent(scene);
        // The report is replaced four times a second.
        sleep(Duration::from_millis(600));
        sent(scene) == before
    })
    .unwrap();
    let status = scene.status(0);
    let agents = status["router_agents"].as_array().unwrap();
    let unheld = agents.iter().find(|agent| agent["held"] == false).unwrap();
    let why = |key: &str| unheld[key].as_str().unwrap_or_default().to_owned();
    why("trouble") + &why("last_error")
}

fn goes_on(scene: &ClusterScene) {
    let before = sent(scene);
    wait_for("copying to go on", Duration::from_secs(20), || {
        sent(scene) > before
    })
    .unwrap();
}

#[test]
fn a_policy_rule_of_somebody_else_stops_copying_until_it_is_gone() {
    if !can_run() {
        return;
    }
    let scene = ClusterScene::copied(Mode::Sink);
    let loads = scene.loads(7 * SECOND);
    sleep(2 * SECOND);
    let [v4, v6] = scene.cluster.vip().both();
    let host = scene.cluster.real_servers[1].host.clone();
    let rules = |verb: &str| {
        for (family, vip) in [("-4", v4), ("-6", v6)] {
            let vip = vip.to_string();
            let rule = [family, "rule", verb, "from", &vip, "lookup", "main"];
            host.check("ip", &rule).unwrap();
        }
    };
    rules("add");
    let why = stands_still(&scene);
    assert!(why.contains("comes before ours"), "{why}");
    sleep(SECOND);
    rules("del");
    goes_on(&scene);
    join(loads);
    scene.finish_exact(SETTLE);
}

#[test]
fn a_real_server_that_is_started_anew_within_the_grace_time() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::copied(Mode::Sink);
    let loads = scene.loads(7 * SECOND);
    sleep(2 * SECOND);
    let host = scene.cluster.real_servers[1].host.clone();
    // What a restart leaves: no agent, no rules, no sink; the address and the application are back first.
    scene.real[1].kill_agent();
    for command in [
        "nft flush ruleset",
        "ip rule flush; ip rule add pref 32766 lookup main",
        "ip -6 rule flush; ip -6 rule add pref 32766 lookup main",
        "ip route flush table 36524; ip -6 route flush table 36524; ip link del millrace0",
    ] {
        host.check("sh", &["-c", command]).unwrap();
    }
    stands_still(&scene);
    sleep(SECOND);
    scene.real[1].start_agent();
    goes_on(&scene);
    join(loads);
    scene.settle(SETTLE);
    let outcome = scene.finish();
    let leaked: u64 = outcome.leaks.iter().map(|(_, packets)| packets).sum();
    assert!(leaked <= IN_FLIGHT, "{:?}", outcome.leaks);
    // What its kernel says to real clients makes these reset its connections: those, and no others, are lost.
    for report in &outcome.reports {
        let aborted = report["replicas"]["aborted"].as_object().unwrap();
        let of_others = aborted
            .keys()
            .find(|reason| !["target_reset", "target_closed"].contains(&reason.as_str()));
        assert!(of_others.is_none(), "{report:#}");
        assert_eq!(report["capture"]["dropped"], 0, "{report:#}");
    }
    outcome.assert_checks();
}

#[test]
fn an_agent_that_hangs_is_a_reason_to_wait() {
    if !can_run() {
        return;
    }
    let mut scene = ClusterScene::copied(Mode::Sink);
    let loads = scene.loads(12 * SECOND);
    sleep(2 * SECOND);
    scene.real[1].signal_agent(Signal::STOP);
    stands_still(&scene);
    sleep(6 * SECOND);
    scene.real[1].signal_agent(Signal::CONT);
    goes_on(&scene);
    join(loads);
    scene.finish_exact(SETTLE);
}

#[test]
fn an_assistant_that_begins_to_forward_serves_nobody_until_it_does_not() {
    if !can_run() {
        return;
    }
    let scene = ClusterScene::copied(Mode::Link);
    let loads = scene.loads(7 * SECOND);
    sleep(2 * SECOND);
    let assistant = scene.cluster.assistant.host.clone();
    let forwarding = |value: &str| {
        for key in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            assistant.sysctl(key, value).unwrap();
        }
    };
    forwarding("1");
    wait_for("copying to stop", Duration::from_secs(10), || {
        let before = sent(&scene);
        sleep(Duration::from_millis(600));
        sent(&scene) == before
    })
    .unwrap();
    let log = scene.copier_log(0);
    assert!(log.contains("this host forwards packets"), "{log}");
    let at_client = || {
        let seen = scene.cluster.leaks.seen().unwrap();
        let client = seen.into_iter().find(|(host, _)| host == "client1");
        client.map_or(0, |(_, packets)| packets)
    };
    let before = at_client();
    sleep(SECOND);
    // A target may repeat what was under way when copying stopped.
    let after = at_client();
    assert!(after <= before + IN_FLIGHT, "it goes on: {before}, {after}");
    // Some hundred answers a second are on their way, and it takes some milliseconds to notice.
    assert!(after < 100, "{after}");
    forwarding("0");
    goes_on(&scene);
    join(loads);
    scene.settle(SETTLE);
    let outcome = scene.finish();
    outcome.assert_checks();
    eprintln!("before it was noticed: {:?}", outcome.leaks);
}
