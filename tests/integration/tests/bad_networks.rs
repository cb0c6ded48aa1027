//! Loss, reordering and duplication on each way between copier, target and interceptor: every
//! byte still arrives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::time::Duration;

use millrace_integration::{Family, GREETING, HTTP, Path, RESP, Scene, can_run};
use millrace_lab::fault::Fault;
use millrace_lab::load::{Kind, Load};

/// Every kind of traffic, some of it, over both families.
fn some_of_everything(scene: &Scene) {
    for family in Family::BOTH {
        let run = |port, concurrency, kind| {
            let load = Load::new(kind, scene.live_service(0, family, port))
                .from(&scene.client_addresses(family))
                .concurrency(concurrency);
            scene.load(load);
        };
        let path = "/bytes/100".to_owned();
        run(
            HTTP,
            16,
            Kind::OneRequest {
                count: 500,
                rate: Some(250.0),
                path: path.clone(),
            },
        );
        let (lasting, pause) = (Duration::from_secs(2), Duration::from_millis(5));
        run(
            HTTP,
            8,
            Kind::KeepAlive {
                lasting,
                pause,
                path,
            },
        );
        run(
            HTTP,
            8,
            Kind::Upload {
                size: 100_000,
                count: 40,
            },
        );
        run(
            HTTP,
            2,
            Kind::Upload {
                size: 10_000_000,
                count: 2,
            },
        );
        run(
            HTTP,
            4,
            Kind::Download {
                size: 1_000_000,
                count: 8,
            },
        );
        run(
            RESP,
            4,
            Kind::Resp {
                count: 8,
                batches: 20,
                pipeline: 16,
            },
        );
        run(
            GREETING,
            8,
            Kind::Greeting {
                count: 40,
                lines: 5,
            },
        );
    }
}

fn survives(path: Path, fault: Fault) {
    if !can_run() {
        return;
    }
    let mut scene = Scene::usual();
    scene.set_faults(path, fault, 42);
    some_of_everything(&scene);
    scene.finish_exact(Duration::from_secs(150));
}

#[test]
fn one_percent_loss_towards_the_target() {
    survives(Path::CopierToTarget, Fault::loss(0.01));
}

#[test]
fn five_percent_loss_towards_the_target() {
    survives(Path::CopierToTarget, Fault::loss(0.05));
}

#[test]
fn one_percent_loss_of_responses() {
    survives(Path::TargetToAssistant, Fault::loss(0.01));
}

#[test]
fn five_percent_loss_of_responses() {
    survives(Path::TargetToAssistant, Fault::loss(0.05));
}

#[test]
fn one_percent_loss_to_and_from_the_interceptor() {
    survives(Path::Interceptor, Fault::loss(0.01));
}

#[test]
fn five_percent_loss_to_and_from_the_interceptor() {
    survives(Path::Interceptor, Fault::loss(0.05));
}

#[test]
fn reordering_and_duplication_towards_the_target() {
    survives(Path::CopierToTarget, Fault::disorder(0.05, 0.05));
}

#[test]
fn reordering_and_duplication_of_responses() {
    survives(Path::TargetToAssistant, Fault::disorder(0.05, 0.05));
}

#[test]
fn reordering_and_duplication_to_and_from_the_interceptor() {
    survives(Path::Interceptor, Fault::disorder(0.05, 0.05));
}
