//! Several copiers of the same traffic on one host, started as TCPCopy's instances were: the first
//! without `-f`, the others with a number alone.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use millrace_integration::{Family, HTTP, INTERCEPTOR_PORT, Scene, binary, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{Process, StageOptions, wait_for};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);
/// A client pool in TCPCopy's form.
const POOL: [&str; 2] = ["-c", "198.18.9.x"];

/// A scene whose target sends answers to the pool to the assistant.
fn scene() -> Scene {
    let mut scene = Scene::new(StageOptions::default());
    let assistant = scene.stage.assistant.address.v4;
    let route = format!("route add 198.18.9.0/24 via {assistant}");
    scene.stage.target.host.ip(&[route]).unwrap();
    scene.start_interceptor();
    scene
}

/// A copier that runs, and where it shows its state.
struct Instance {
    process: Process,
    admin: SocketAddr,
}

impl Instance {
    /// Starts instance number `number` (from 0) as an operator of TCPCopy would, and waits until it
    /// is ready.
    fn start(scene: &Scene, number: u16, more: &[&str]) -> Self {
        let host = &scene.stage.live[0].host;
        let target = scene.stage.target.address.v4;
        let services = format!("{HTTP}-{target}:{HTTP}");
        let interceptor = format!("{}:{INTERCEPTOR_PORT}", scene.stage.assistant.address.v4);
        let share = number.to_string();
        let mut arguments = vec!["-x", &services, "-s", &interceptor, "--insecure"];
        arguments.extend(more);
        if number > 0 && !more.contains(&"-f") {
            arguments.extend(["-f", &share]);
        }
        let log = host.file(&format!("instance-{number}.log"));
        let program = binary("millrace-copier");
        let mut process = host.spawn(program, &arguments, &[], &log).unwrap();
        // The first has the usual port, others find one of their own.
        let port = match number {
            0 => 36_530,
            number => 36_539 + number,
        };
        let admin = SocketAddr::from(([127, 0, 0, 1], port));
        let is_ready = || {
            let answer = host.get(admin, "/readyz");
            answer.is_ok_and(|(status, _)| status == 200)
        };
        let ready = wait_for("an instance", PATIENCE, || {
            !process.is_running() || is_ready()
        });
        ready.unwrap_or_else(|error| panic!("{error}: {}", process.log()));
        assert!(process.is_running(), "{}", process.log());
        Self { process, admin }
    }

    fn report(&self, scene: &Scene) -> Value {
        let host = &scene.stage.live[0].host;
        host.get_json(self.admin, "/status").unwrap()["report"].clone()
    }

    /// Waits until every copy has ended, ends the instance, and gives its last report from before.
    fn stop(mut self, scene: &Scene) -> Value {
        // A report is up to 250 ms old.
        std::thread::sleep(Duration::from_millis(300));
        let mut report = Value::Null;
        wait_for("the copies to end", PATIENCE, || {
            report = self.report(scene);
            number(&report, "/replicas/open") == 0
        })
        .unwrap_or_else(|error| panic!("{error}: {report:#}"));
        let ended = self.process.terminate(PATIENCE).unwrap();
        assert!(ended.success(), "{}", self.process.log());
        report
    }
}

fn requests(scene: &Scene, count: u64, rate: f64) -> Load {
    let kind = Kind::OneRequest {
        count,
        rate: Some(rate),
        path: "/bytes/200".to_owned(),
    };
    load(scene, kind)
}

fn keep_alive(scene: &Scene, seconds: u64) -> Load {
    let kind = Kind::KeepAlive {
        lasting: Duration::from_secs(seconds),
        pause: Duration::from_millis(20),
        path: "/bytes/300".to_owned(),
    };
    load(scene, kind)
}

fn load(scene: &Scene, kind: Kind) -> Load {
    Load::new(kind, scene.live_service(0, Family::V4, HTTP))
        .from(&scene.client_addresses(Family::V4))
        .concurrency(64)
}

/// With a pool and without, three instances make exactly three connections of each session.
#[test]
fn three_instances_make_three_times_the_traffic() {
    if !can_run() {
        return;
    }
    for pool in [&[][..], &POOL] {
        let scene = scene();
        let instances: Vec<_> = (0..3)
            .map(|number| Instance::start(&scene, number, pool))
            .collect();
        scene.load(requests(&scene, 2000, 500.0));
        scene.load(keep_alive(&scene, 2));
        for instance in instances {
            let report = instance.stop(&scene);
            assert_eq!(report["fidelity"], 1.0, "{report:#}");
            assert_eq!(report["replicas"]["aborted"], json!({}), "{report:#}");
            assert_eq!(report["sessions"]["refused"], json!({}), "{report:#}");
        }
        let outcome = scene.finish();
        let difference = outcome.live[0].compare_times(&outcome.target, 3);
        assert!(difference.is_none(), "{pool:?}: {difference}");
        let peers: Vec<SocketAddr> = outcome.target.records().iter().map(|r| r.peer).collect();
        let distinct: HashSet<&SocketAddr> = peers.iter().collect();
        if !pool.is_empty() {
            assert_eq!(distinct.len(), peers.len(), "no two alike");
        }
    }
}

/// An instance that comes takes a part of the pool from the one that has all, and sessions that live
/// in that part go on; when it has gone nothing has been lost either.
#[test]
fn an_instance_that_comes_and_goes_costs_the_first_one_no_session() {
    if !can_run() {
        return;
    }
    // One address: whoever comes takes ports of it that are in use.
    let pool = ["-c", "198.18.9.7", "--port-rest", "0"];
    let scene = scene();
    let first = Instance::start(&scene, 0, &pool);
    let long = keep_alive(&scene, 8);
    let client = scene.stage.client().unwrap();
    let long = client.host.start(move || long.run());
    scene.load(requests(&scene, 500, 500.0));
    let second = Instance::start(&scene, 1, &[&pool[..], &["-f", "1/2"]].concat());
    scene.load(requests(&scene, 1000, 500.0));
    // The report is up to 250 ms old, and the load is over before its last copies are.
    let mut opened = 0;
    let copied = wait_for("the second one's copies", PATIENCE, || {
        opened = number(&second.report(&scene), "/replicas/opened");
        opened >= 1000
    });
    assert!(copied.is_ok(), "{opened}");
    let log = first.process.log();
    assert!(log.contains("other copiers claim parts"), "{log}");
    let mut second = second.process;
    assert!(second.terminate(PATIENCE).unwrap().success());
    scene.load(requests(&scene, 500, 500.0));
    let summary = long.join().unwrap().unwrap();
    assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    let report = first.stop(&scene);
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(report["replicas"]["aborted"], json!({}), "{report:#}");
    let outcome = scene.finish();
    let difference = outcome.live[0].compare(&outcome.target);
    assert_eq!(difference.missing, 0, "{difference}");
}
