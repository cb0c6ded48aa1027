//! Live traffic of every kind is copied completely and exactly, over IPv4 and IPv6, with the
//! offloads that veth has by default.

use std::time::Duration;

use millrace_integration::{Family, GREETING, HTTP, HTTP_TOO, RESP, Scene, can_run};
use millrace_lab::load::{Kind, Load};

/// One kind of traffic over each family, then everything is compared.
fn copied_exactly(port: u16, concurrency: u64, kind: impl Fn(&Scene, Family) -> Kind) {
    if !can_run() {
        return;
    }
    let scene = Scene::usual();
    for family in Family::BOTH {
        let load = Load::new(kind(&scene, family), scene.live_service(0, family, port))
            .from(&scene.client_addresses(family))
            .concurrency(concurrency);
        let summary = scene.load(load);
        assert!(summary.sessions > 0);
    }
    scene.finish_exact(Duration::from_secs(60));
}

#[test]
fn twenty_thousand_one_request_connections() {
    copied_exactly(HTTP, 32, |_, _| Kind::OneRequest {
        count: 10_000,
        rate: None,
        path: "/bytes/100".to_owned(),
    });
}

#[test]
fn keep_alive_at_full_speed() {
    copied_exactly(HTTP, 16, |_, _| Kind::KeepAlive {
        lasting: Duration::from_secs(5),
        pause: Duration::ZERO,
        path: "/bytes/200".to_owned(),
    });
}

#[test]
fn uploads_of_100_kilobytes() {
    copied_exactly(HTTP, 16, |_, _| Kind::Upload {
        size: 100_000,
        count: 300,
    });
}

#[test]
fn uploads_of_10_megabytes() {
    copied_exactly(HTTP, 4, |_, _| Kind::Upload {
        size: 10_000_000,
        count: 10,
    });
}

#[test]
fn responses_of_1_megabyte() {
    copied_exactly(HTTP, 8, |_, _| Kind::Download {
        size: 1_000_000,
        count: 100,
    });
}

#[test]
fn pipelined_redis_commands() {
    copied_exactly(RESP, 8, |_, _| Kind::Resp {
        count: 50,
        batches: 50,
        pipeline: 32,
    });
}

#[test]
fn a_server_that_speaks_first() {
    copied_exactly(GREETING, 16, |_, _| Kind::Greeting {
        count: 500,
        lines: 5,
    });
}

#[test]
fn idle_for_thirty_seconds_and_then_a_request() {
    if !can_run() {
        return;
    }
    let scene = Scene::usual();
    let idle = Kind::Idle {
        count: 20,
        lasting: Duration::from_secs(30),
    };
    // Nobody has to be idle after the other.
    let loads = Family::BOTH.map(|family| {
        let load = Load::new(idle.clone(), scene.live_service(0, family, HTTP))
            .from(&scene.client_addresses(family))
            .concurrency(20);
        let client = scene.stage.client().unwrap();
        client.host.start(move || load.run())
    });
    for load in loads {
        let summary = load.join().unwrap().unwrap();
        assert_eq!(summary.errors, 0, "{:?}", summary.examples);
        assert!(summary.sessions > 0);
    }
    scene.finish_exact(Duration::from_secs(60));
}

#[test]
fn two_services_at_once_from_the_same_client_ports() {
    copied_exactly(HTTP, 8, |scene, family| Kind::SamePort {
        count: 300,
        other: scene.live_service(0, family, HTTP_TOO),
        first_port: 20_000,
    });
}
