//! Other ways to copy: with a client pool, at the link layer, with several replicas of each
//! session, over several links, and from the middle of sessions.

use std::time::Duration;

use millrace_integration::counter::PacketCounter;
use millrace_integration::{Family, HTTP, Scene, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{StageOptions, wait_for};

/// A scene whose copier was started with more options.
fn scene_with(options: &[&str]) -> Scene {
    let mut scene = Scene::new(StageOptions::default());
    // Answers to the pool take the way of all answers: to the assistant.
    let assistant = scene.stage.assistant.address;
    let routes = [
        format!("route add 198.18.9.0/24 via {}", assistant.v4),
        format!("route add 2001:db8:9::/64 via {}", assistant.v6),
    ];
    scene.stage.target.host.ip(&routes).unwrap();
    scene.start_interceptor();
    scene.start_copier(0, options);
    scene
}

fn some_load(scene: &Scene) {
    for family in Family::BOTH {
        let to = scene.live_service(0, family, HTTP);
        let from = scene.client_addresses(family);
        let path = "/bytes/500".to_owned();
        for kind in [
            Kind::OneRequest {
                count: 300,
                rate: None,
                path,
            },
            Kind::Upload {
                size: 100_000,
                count: 30,
            },
        ] {
            scene.load(Load::new(kind, to).from(&from));
        }
    }
}

#[test]
fn a_client_pool_replaces_the_clients_addresses() {
    if !can_run() {
        return;
    }
    let scene = scene_with(&["-c", "198.18.9.x,2001:db8:9::10-2001:db8:9::20"]);
    some_load(&scene);
    let status = scene.interceptor_status();
    assert_eq!(
        number(&status, "/report/flows"),
        0,
        "claims announce no flows"
    );
    scene.finish_exact(Duration::from_secs(30));
}

#[test]
fn packets_sent_at_the_link_layer_find_their_way() {
    if !can_run() {
        return;
    }
    let scene = scene_with(&["-o", "eth0"]);
    some_load(&scene);
    scene.finish_exact(Duration::from_secs(30));
}

#[test]
fn three_links_to_one_interceptor_share_the_flows() {
    if !can_run() {
        return;
    }
    let scene = scene_with(&["-C", "3"]);
    some_load(&scene);
    scene.finish_exact(Duration::from_secs(30));
}

#[test]
fn three_replicas_of_each_session_arrive_three_times() {
    if !can_run() {
        return;
    }
    let scene = scene_with(&["-n", "3", "-c", "198.18.9.x,2001:db8:9::10-2001:db8:9::20"]);
    some_load(&scene);
    scene.settle(Duration::from_secs(30));
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(
        report["replicas"]["completed"],
        3 * number(report, "/sessions/captured")
    );
    let difference = outcome.live[0].compare_times(&outcome.target, 3);
    assert!(difference.is_none(), "{difference}");
}

#[test]
fn sessions_that_were_open_before_the_copier_are_picked_up_at_a_turn() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let to = scene.live_service(0, Family::V4, HTTP);
    let (lasting, pause) = (Duration::from_secs(6), Duration::from_millis(20));
    let kind = Kind::KeepAlive {
        lasting,
        pause,
        path: "/bytes/100".to_owned(),
    };
    let load = Load::new(kind, to)
        .from(&scene.client_addresses(Family::V4))
        .concurrency(8);
    let running = scene.stage.client().unwrap().host.start(move || load.run());
    std::thread::sleep(Duration::from_secs(2));
    scene.start_copier(0, &[]);
    let summary = running.join().unwrap().unwrap();
    assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    scene.settle(Duration::from_secs(20));
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert_eq!(number(report, "/sessions/midway"), 8, "{report:#}");
    assert_eq!(number(report, "/replicas/completed"), 8, "{report:#}");
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    let (live, target) = (outcome.live[0].requests(), outcome.target.requests());
    assert!(
        target > 0 && target < live,
        "only whole requests: {target} of {live}"
    );
}

#[test]
fn a_first_client_whose_answers_go_another_way_does_not_hold_up_the_others() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    scene.start_copier(0, &[]);
    let to = scene.live_service(0, Family::V4, HTTP);
    let request = |count| Kind::OneRequest {
        count,
        rate: None,
        path: "/bytes/500".to_owned(),
    };
    // It is in the target's own segment: no route of the target's leads its answers to the assistant.
    let neighbour = scene.stage.assistant.host.clone();
    let first = Load::new(request(1), to);
    let seen = neighbour.enter_async(move || first.run()).unwrap();
    assert_eq!(seen.errors, 0);
    let state = |clients: &str| {
        let status = scene.status(0);
        let mut targets = status["report"]["targets"].as_array().unwrap().iter();
        let its = |target: &&serde_json::Value| target["clients"] == clients;
        targets
            .find(its)
            .map(|target| target["state"].as_str().unwrap().to_owned())
    };
    let near = || state("in the target's network");
    wait_for("a volley in vain", Duration::from_secs(20), || {
        near().is_some_and(|state| state == "failed")
    })
    .unwrap();
    scene.load(Load::new(request(200), to).from(&scene.client_addresses(Family::V4)));
    wait_for("the others to be copied", Duration::from_secs(40), || {
        number(&scene.status(0), "/report/replicas/completed") == 200
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)["report"]["targets"]));
    assert_eq!(state("outside").unwrap(), "open");
    assert_ne!(near().unwrap(), "open");
    scene.drain();
}

/// A virtual address that VRRP may give to the live server.
const VIP: [u8; 4] = [198, 18, 2, 200];

#[test]
fn an_address_that_comes_later_is_copied_and_one_that_goes_is_not() {
    if !can_run() {
        return;
    }
    let vip = std::net::Ipv4Addr::from(VIP);
    for live in [String::new(), format!("{vip}:")] {
        let mut scene = Scene::new(StageOptions::default());
        scene.start_interceptor();
        let host = scene.stage.live[0].host.clone();
        let (target, assistant) = (scene.stage.target.address.v4, scene.stage.assistant.address);
        let service = format!("{live}{HTTP}-{target}:{HTTP}");
        let (interceptor, report) = (assistant.v4.to_string(), host.file("report.json"));
        let report = report.display().to_string();
        let arguments = [
            ["-x", &service],
            ["-s", &interceptor],
            ["--admin", "127.0.0.1:9100"],
            ["--report", &report],
        ];
        let arguments = [&["--insecure"], arguments.as_flattened()].concat();
        let (program, log) = (
            millrace_integration::binary("millrace-copier"),
            host.file("copier.log"),
        );
        let copier = host.spawn(program, &arguments, &[], &log).unwrap();
        scene.copiers.push(copier);
        let is_ready = |host: &millrace_lab::Host| {
            host.get(([127, 0, 0, 1], 9100).into(), "/readyz")
                .is_ok_and(|(code, _)| code == 200)
        };
        wait_for("the copier", Duration::from_secs(20), || is_ready(&host)).unwrap();
        let address = format!("address add {vip}/24 dev {}", millrace_lab::DEVICE);
        host.ip(&[address]).unwrap();
        std::thread::sleep(Duration::from_secs(2));
        let kind = Kind::OneRequest {
            count: 200,
            rate: None,
            path: "/bytes/500".to_owned(),
        };
        let from = scene.client_addresses(Family::V4);
        scene.load(Load::new(kind, (vip, HTTP).into()).from(&from));
        scene.settle(Duration::from_secs(30));
        host.ip(&[format!("address del {vip}/24 dev {}", millrace_lab::DEVICE)])
            .unwrap();
        wait_for("it to be said", Duration::from_secs(10), || {
            scene.copiers[0].log().contains("is gone from this host")
        })
        .unwrap();
        assert!(scene.copiers[0].log().contains("has come to this host"));
        let outcome = scene.finish_exact(Duration::from_secs(30));
        assert_eq!(number(&outcome.reports[0], "/sessions/captured"), 200);
    }
}

#[test]
fn clients_whose_answers_would_leave_another_way_are_refused_and_the_others_are_copied() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions {
        live_servers: 2,
        ..StageOptions::default()
    });
    scene.start_interceptor();
    scene.start_copier(0, &[]);
    // The target answers hosts in its own network directly: the second live server is a client here.
    let neighbour = scene.stage.live[1].host.clone();
    let target = scene.stage.target.address.v4;
    let answers = format!("ip saddr {target} tcp sport {HTTP}");
    let answers = PacketCounter::start(&neighbour, &answers);
    let to = scene.live_service(0, Family::V4, HTTP);
    let some = |count| Kind::OneRequest {
        count,
        rate: Some(50.0),
        path: "/bytes/700".to_owned(),
    };
    let load = Load::new(some(600), to);
    let near = neighbour.start(move || load.run());
    std::thread::sleep(Duration::from_secs(1));
    scene.load(Load::new(some(300), to).from(&scene.client_addresses(Family::V4)));
    assert_eq!(near.join().unwrap().unwrap().errors, 0);
    scene.settle(Duration::from_secs(10));
    let leaked = answers.seen();
    assert!(leaked <= 10, "{leaked} answers reached a neighbour");
    let log = scene.copiers[0].log();
    assert!(log.contains("clients in the target's network"), "{log}");
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert_eq!(number(report, "/replicas/completed"), 300, "{report:#}");
    let refused = number(report, "/replicas/refused/unproven");
    let given_up = number(report, "/replicas/aborted/unproven");
    assert_eq!(refused + given_up, 600, "{report:#}");
    let received = outcome.target.without_empty();
    assert_eq!(received.len(), 300);
}

#[test]
fn an_interceptor_that_sees_answers_leave_its_host_says_what_to_run_instead() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.interceptor_on_target = true;
    scene.start_interceptor();
    scene.start_copier_only(0, &[]);
    wait_for("the copier", Duration::from_secs(20), || {
        let host = &scene.stage.live[0].host;
        host.get(([127, 0, 0, 1], 9100).into(), "/status").is_ok()
    })
    .unwrap();
    let to = scene.live_service(0, Family::V4, HTTP);
    let from = scene.client_addresses(Family::V4);
    let kind = Kind::OneRequest {
        count: 20,
        rate: Some(20.0),
        path: "/bytes/500".to_owned(),
    };
    scene.load(Load::new(kind, to).from(&from));
    let interceptor = scene.interceptor.as_ref().unwrap();
    wait_for("a word of the interceptor", Duration::from_secs(3), || {
        let log = interceptor.log();
        log.contains("sends answers to copied connections out of device eth0")
            && log.contains("run a router-agent here")
    })
    .unwrap();
}
