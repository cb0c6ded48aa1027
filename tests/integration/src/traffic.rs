//! Traffic for tests that want some of everything.

use std::time::Duration;

use millrace_lab::load::{Kind, Load};

use crate::{Family, GREETING, HTTP, RESP, Scene};

/// Every kind of traffic, some of it, over both families.
pub fn some_of_everything(scene: &Scene) {
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
