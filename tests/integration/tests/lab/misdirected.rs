//! A target that leads to the live server again: copying stops before it goes round, and the live server's clients feel
//! nothing of it.

use std::time::Duration;

use millrace_integration::counter::PacketCounter;
use millrace_integration::{Family, HTTP, Scene, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{StageOptions, wait_for};

/// Answers of the live server to copies: to the one probe that goes round, until the client has reset it.
const UNNOTICED: u64 = 2;
/// Connections of each load.
const CONNECTIONS: u64 = 8;

#[test]
fn a_target_that_is_a_balancer_for_the_live_server_is_given_up_at_first_contact() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    let target = scene.stage.target.host.clone();
    let (from, to) = (
        scene.stage.target.address.v4,
        scene.stage.live[0].address.v4,
    );
    let rules = format!(
        "table ip balancer {{\nchain in {{\ntype nat hook prerouting priority -100;\n\
         ip daddr {from} tcp dport {HTTP} dnat to {to}\n}}\n}}\n"
    );
    let file = target.file("balancer.nft");
    std::fs::write(&file, rules).unwrap();
    let file = file.display().to_string();
    target.check("nft", &["-f", &file]).unwrap();
    target.sysctl("net/ipv4/ip_forward", "1").unwrap();

    scene.start_interceptor();
    scene.start_copier(0, &[]);
    let client = &scene.stage.client().unwrap().host;
    let accepted = format!("ip saddr {to} tcp sport {HTTP} tcp flags & (syn|ack) == (syn|ack)");
    let accepted = PacketCounter::start(client, &accepted);
    let load = |path: &str| {
        let kind = Kind::KeepAlive {
            lasting: Duration::from_secs(3),
            pause: Duration::from_millis(10),
            path: path.to_owned(),
        };
        let to = scene.live_service(0, Family::V4, HTTP);
        let from = scene.client_addresses(Family::V4);
        let summary = scene.load(Load::new(kind, to).from(&from).concurrency(CONNECTIONS));
        assert_eq!(summary.errors, 0);
    };
    load("/bytes/500");
    let state = || {
        let status = scene.status(0);
        let targets = status["report"]["targets"].as_array().unwrap().clone();
        let its = format!("{from}:{HTTP}");
        let mut its = targets
            .into_iter()
            .filter(|it| it["target"] == its.as_str());
        its.next().unwrap()["state"].clone()
    };
    wait_for("copying to be over", Duration::from_secs(5), || {
        state() == "misdirected"
    })
    .unwrap();
    load("/bytes/700");
    assert_eq!(state(), "misdirected");
    let log = scene.copiers[0].log();
    assert!(log.contains("leads to the live service again"), "{log}");
    let of_copies = accepted.seen() - 2 * CONNECTIONS;
    assert!(of_copies <= UNNOTICED, "{of_copies}");
    let live = scene.stage.live[0].host.clone();
    let admin = ([127, 0, 0, 1], 9100).into();
    let (code, text) = live.get(admin, "/readyz").unwrap();
    assert_eq!(code, 503);
    assert!(text.contains(&format!("target {from}:{HTTP}")), "{text}");
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert_eq!(number(report, "/replicas/completed"), 0, "{report:#}");
}
