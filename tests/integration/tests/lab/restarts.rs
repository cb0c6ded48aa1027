//! Interceptors and copiers come, go and come back, in any order, under load.

use std::time::Duration;

use millrace_integration::{Family, HTTP, Scene, can_run, number};
use millrace_lab::StageOptions;
use millrace_lab::load::{Kind, Load, Summary};

/// Mixed load in the background: new sessions all the time, and sessions that stay.
fn load_in_background(scene: &Scene, live: usize, lasting: Duration) -> Vec<Running> {
    let client = &scene.stage.client().unwrap().host;
    let seconds = lasting.as_secs();
    Family::BOTH
        .into_iter()
        .flat_map(|family| {
            let to = scene.live_service(live, family, HTTP);
            let from = scene.client_addresses(family);
            let path = "/bytes/300".to_owned();
            let pause = Duration::from_millis(3);
            [
                Kind::OneRequest {
                    count: 150 * seconds,
                    rate: Some(150.0),
                    path: path.clone(),
                },
                Kind::KeepAlive {
                    lasting,
                    pause,
                    path,
                },
                Kind::Upload {
                    size: 300_000,
                    count: 3 * seconds,
                },
            ]
            .map(|kind| Load::new(kind, to).from(&from).concurrency(6))
        })
        .map(|load| client.start(move || load.run()))
        .collect()
}

type Running = std::thread::JoinHandle<millrace_lab::Result<Summary>>;

fn join(loads: Vec<Running>) {
    for load in loads {
        let summary = load.join().unwrap().unwrap();
        assert_eq!(
            summary.errors, 0,
            "live clients saw errors: {:?}",
            summary.examples
        );
    }
}

#[test]
fn an_interceptor_killed_and_back_after_five_seconds_loses_no_session() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::usual();
    let loads = load_in_background(&scene, 0, Duration::from_secs(16));
    std::thread::sleep(Duration::from_secs(4));
    scene.interceptor.take().unwrap().kill().unwrap();
    std::thread::sleep(Duration::from_secs(5));
    scene.start_interceptor();
    join(loads);
    assert!(scene.copiers[0].is_running());
    scene.finish_exact(Duration::from_secs(60));
}

#[test]
fn an_interceptor_started_ten_seconds_after_the_copier_gets_everything() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_copier_only(0, &[]);
    std::thread::sleep(Duration::from_secs(1));
    let loads = load_in_background(&scene, 0, Duration::from_secs(12));
    std::thread::sleep(Duration::from_secs(9));
    let status = scene.status(0);
    assert_eq!(
        number(&status, "/report/bytes/sent"),
        0,
        "nothing is sent without an interceptor"
    );
    assert!(number(&status, "/report/replicas/waiting") > 0);
    scene.start_interceptor();
    join(loads);
    scene.finish_exact(Duration::from_secs(60));
}

#[test]
fn three_copiers_on_one_interceptor_each_get_their_own() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions {
        live_servers: 3,
        ..StageOptions::default()
    });
    for live in 0..3 {
        scene.start_copier_only(live, &[]);
        if live == 1 {
            scene.start_interceptor();
        }
    }
    // The first two find the interceptor by trying again.
    std::thread::sleep(Duration::from_secs(3));
    let loads = (0..3)
        .flat_map(|live| load_in_background(&scene, live, Duration::from_secs(6)))
        .collect();
    join(loads);
    let outcome = scene.finish_exact(Duration::from_secs(60));
    assert_eq!(outcome.reports.len(), 3);
}

#[test]
fn a_copier_killed_takes_only_its_own_sessions_with_it() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions {
        live_servers: 2,
        ..StageOptions::default()
    });
    scene.start_interceptor();
    for live in 0..2 {
        scene.start_copier(live, &[]);
    }
    let loads: Vec<_> = (0..2)
        .flat_map(|live| load_in_background(&scene, live, Duration::from_secs(8)))
        .collect();
    std::thread::sleep(Duration::from_secs(3));
    let mut killed = scene.copiers.pop().unwrap();
    killed.kill().unwrap();
    join(loads);
    let outcome = {
        scene.settle(Duration::from_secs(60));
        scene.finish()
    };
    let report = &outcome.reports[0];
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(
        report["replicas"]["aborted"],
        serde_json::json!({}),
        "{report:#}"
    );
    let difference = outcome.live[0].compare(&outcome.target);
    assert_eq!(
        difference.missing, 0,
        "sessions of the copier that lived: {difference}"
    );
}
