//! The live host is safe whatever happens to the copy: its clients see no error, and no other
//! latency than the clients of a live server without a copier, at the same time.

use std::time::Duration;

use millrace_integration::{Family, HTTP, Scene, can_run, number};
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::{StageOptions, wait_for};
use rustix::process::Signal;

/// Two live servers; only the first has a copier.
fn scene() -> Scene {
    Scene::new(StageOptions {
        live_servers: 2,
        ..StageOptions::default()
    })
}

/// The same load on both live servers at the same time: keep-alive and new connections.
fn compare(scene: &Scene) {
    let client = &scene.stage.client().unwrap().host;
    let path = "/bytes/1000".to_owned();
    let (lasting, pause) = (Duration::from_secs(6), Duration::from_millis(2));
    let kinds = [
        Kind::KeepAlive {
            lasting,
            pause,
            path: path.clone(),
        },
        Kind::OneRequest {
            count: 900,
            rate: Some(150.0),
            path,
        },
        Kind::Upload {
            size: 200_000,
            count: 60,
        },
    ];
    let loads: Vec<_> = kinds
        .into_iter()
        .map(|kind| {
            [0, 1].map(|live| {
                let load = Load::new(kind.clone(), scene.live_service(live, Family::V4, HTTP))
                    .from(&scene.client_addresses(Family::V4))
                    .concurrency(4);
                client.start(move || load.run())
            })
        })
        .collect();
    for pair in loads {
        let [copied, plain] = pair.map(|load| load.join().unwrap().unwrap());
        assert_eq!(
            copied.errors, 0,
            "clients of the copied server: {:?}",
            copied.examples
        );
        assert_eq!(plain.errors, 0, "{:?}", plain.examples);
        assert_same_latency(&copied, &plain);
    }
}

/// One request to the copied server.
fn a_request(scene: &Scene) {
    let kind = Kind::OneRequest {
        count: 1,
        rate: None,
        path: "/bytes/10".to_owned(),
    };
    let load = Load::new(kind, scene.live_service(0, Family::V4, HTTP));
    scene.load(load.from(&scene.client_addresses(Family::V4)));
}

/// Beyond noise: this machine also runs the servers, the clients and the copy itself, so single
/// requests vary by milliseconds on both sides; a copier in the way would cost every request.
fn assert_same_latency(copied: &Summary, plain: &Summary) {
    let (ours, theirs) = (copied.latency_us.p50, plain.latency_us.p50);
    eprintln!("latency p50 with a copier {ours} µs, without {theirs} µs");
    assert!(
        ours <= 3 * theirs + 1000,
        "p50 {ours} µs with a copier, {theirs} µs without"
    );
}

#[test]
fn with_the_target_gone() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_interceptor();
    scene.start_copier(0, &["--grace", "0"]);
    // The target's host does not answer any more, not even to ARP.
    scene
        .stage
        .target
        .host
        .ip(&["link set eth0 down".to_owned()])
        .unwrap();
    compare(&scene);
    assert!(scene.copiers[0].is_running());
    assert!(number(&scene.status(0), "/report/sessions/captured") > 900);
    scene.drain();
}

#[test]
fn with_the_targets_application_gone() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_interceptor();
    scene.start_copier(0, &["--grace", "0"]);
    // First contact: it was there once.
    a_request(&scene);
    let open = wait_for("first contact", Duration::from_secs(10), || {
        scene.status(0)["report"]["targets"][0]["state"] == "open"
    });
    open.unwrap();
    drop(scene.target_recorder.take().unwrap().stop().unwrap());
    compare(&scene);
    let report = &scene.status(0)["report"];
    assert!(
        number(report, "/replicas/aborted/refused") > 900,
        "{report:#}"
    );
    scene.drain();
}

#[test]
fn with_the_targets_application_not_there_yet() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_interceptor();
    scene.start_copier(0, &["--grace", "0"]);
    drop(scene.target_recorder.take().unwrap().stop().unwrap());
    compare(&scene);
    let report = &scene.status(0)["report"];
    let target = &report["targets"][0];
    let finding = target["finding"].as_str().unwrap();
    assert!(finding.starts_with("refused"), "{target:#}");
    assert_eq!(number(report, "/replicas/established"), 0, "{report:#}");
    assert!(number(report, "/replicas/waiting") > 900, "{report:#}");
    scene.drain();
}

#[test]
fn with_the_interceptor_gone() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_copier_only(0, &["--grace", "0"]);
    compare(&scene);
    let report = &scene.status(0)["report"];
    assert_eq!(number(report, "/packets/sent"), 0, "{report:#}");
    scene.drain();
}

#[test]
fn with_the_interceptor_hanging() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_interceptor();
    scene.start_copier(0, &["--grace", "0"]);
    scene
        .interceptor
        .as_mut()
        .unwrap()
        .signal(Signal::STOP)
        .unwrap();
    compare(&scene);
    scene
        .interceptor
        .as_mut()
        .unwrap()
        .signal(Signal::CONT)
        .unwrap();
    scene.drain();
}

#[test]
fn with_the_memory_limit_reached() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    // Nothing leaves without an interceptor, so 1 MB is soon full.
    scene.start_copier_only(0, &["--memory", "1", "--grace", "0"]);
    compare(&scene);
    let report = &scene.status(0)["report"];
    let refused =
        number(report, "/sessions/refused/memory") + number(report, "/replicas/aborted/memory");
    assert!(refused > 0, "{report:#}");
    let resident = scene.copiers[0].resident_bytes().unwrap();
    assert!(
        resident < 200 << 20,
        "{resident} bytes resident, capture buffer included"
    );
    scene.drain();
}

#[test]
fn with_a_filter_that_matches_everything() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_interceptor();
    scene.start_copier(0, &["-F", "ip or ip6"]);
    compare(&scene);
    let outcome = {
        scene.settle(Duration::from_secs(60));
        scene.finish()
    };
    assert_eq!(
        outcome.reports[0]["fidelity"], 1.0,
        "{:#}",
        outcome.reports[0]
    );
    let difference = outcome.live[0].compare(&outcome.target);
    assert!(difference.is_none(), "{difference}");
}
