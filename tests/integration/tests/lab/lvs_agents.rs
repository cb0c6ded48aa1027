//! A cluster whose real servers run the router-agent: agents and interceptors are killed, named and
//! no longer named under load, copiers are killed for good; nothing leaks, and no session is lost
//! but those of a killed copier.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_integration::{HTTP, binary, can_run, number};
use millrace_lab::cluster::{Cluster, ClusterOptions};
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::records::RecordedStreams;
use millrace_lab::{Host, Process, wait_for};
use rustix::process::Signal;
use serde_json::Value;

const COPIER_ADMIN: u16 = 36_530;
const INTERCEPTOR_ADMIN: u16 = 36_531;
const AGENT_ADMIN: u16 = 36_532;
/// A host that is not there.
const NOBODY: &str = "198.18.2.250";

type Running = std::thread::JoinHandle<millrace_lab::Result<Summary>>;

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn recorder(host: &Host) -> Recorder {
    let config = RecorderConfig {
        http: vec![HTTP],
        resp: Vec::new(),
        greeting: Vec::new(),
        out: host.file("records.json"),
        manners: Manners::default(),
    };
    Recorder::start(host, &config).unwrap()
}

fn start(host: &Host, program: &str, arguments: &[&str], admin: u16) -> Process {
    let mut names = (1..).map(|start| host.file(&format!("{program}-{start}.log")));
    let log = names.find(|file| !file.exists()).unwrap();
    let process = host.spawn(binary(program), arguments, &[], &log).unwrap();
    ready(host, &process, admin);
    process
}

fn ready(host: &Host, process: &Process, admin: u16) {
    wait_for("readiness", Duration::from_secs(15), || {
        host.get(local(admin), "/readyz")
            .is_ok_and(|(status, _)| status == 200)
    })
    .unwrap_or_else(|error| panic!("{}: {error}\n{}", host.name(), process.log()));
}

struct Real {
    host: Host,
    address: String,
    recorder: Recorder,
    agent: Process,
    interceptor: Process,
}

struct Scene {
    cluster: Cluster,
    real: Vec<Real>,
    live: Recorder,
    grace: &'static str,
    /// What the copier's configuration names besides the real servers.
    config: PathBuf,
}

impl Scene {
    fn new(grace: &'static str) -> Self {
        let mut cluster = Cluster::new(ClusterOptions::new(&[HTTP])).unwrap();
        let live = recorder(&cluster.live[0].host);
        let real = cluster
            .real_servers
            .iter()
            .map(|place| Real {
                host: place.host.clone(),
                address: place.address.v4.to_string(),
                recorder: recorder(&place.host),
                agent: agent(&cluster, &place.host, grace),
                interceptor: interceptor(&place.host),
            })
            .collect();
        let config = cluster.live[0].host.file("copier.toml");
        cluster.director.start().unwrap();
        Self {
            cluster,
            real,
            live,
            grace,
            config,
        }
    }

    fn name(&self, more: &[&str]) {
        let mut names: Vec<&str> = self.real.iter().map(|real| &real.address[..]).collect();
        names.extend(more);
        let text = format!("interceptors = {names:?}\nrouter-agent = {names:?}\n");
        std::fs::write(&self.config, text).unwrap();
    }

    fn copier(&self) -> Process {
        self.name(&[]);
        let live = &self.cluster.live[0];
        let services = format!(
            "{}:{HTTP}-{}:{HTTP}",
            live.address.v4,
            self.cluster.vip().v4
        );
        let (config, report) = (self.config.display().to_string(), self.report());
        let report = report.display().to_string();
        start(
            &live.host,
            "millrace-copier",
            &[
                "-x",
                &services,
                "--config",
                &config,
                "--insecure",
                "--report",
                &report,
            ],
            COPIER_ADMIN,
        )
    }

    fn report(&self) -> PathBuf {
        self.cluster.live[0].host.file("report.json")
    }

    fn status(&self) -> Value {
        let host = &self.cluster.live[0].host;
        host.get_json(local(COPIER_ADMIN), "/status").unwrap()
    }

    fn load(&self, kind: Kind) -> Running {
        let client = self.cluster.client().unwrap();
        let from: Vec<_> = client.addresses.iter().map(|pair| pair.v4.into()).collect();
        let to = SocketAddr::new(self.cluster.live[0].address.v4.into(), HTTP);
        let load = Load::new(kind, to).from(&from).concurrency(8);
        client.host.start(move || load.run())
    }

    fn lasting(&self, seconds: u64) -> [Running; 2] {
        let path = || "/bytes/500".to_owned();
        [
            self.load(Kind::KeepAlive {
                lasting: Duration::from_secs(seconds),
                pause: Duration::from_millis(10),
                path: path(),
            }),
            self.load(Kind::OneRequest {
                count: 50 * seconds,
                rate: Some(50.0),
                path: path(),
            }),
        ]
    }

    /// What is delivered now.
    fn delivered(&self) -> u64 {
        // A report is up to 250 ms old.
        std::thread::sleep(Duration::from_millis(500));
        number(&self.status(), "/report/bytes/delivered")
    }

    /// Waits until more is delivered than was until now.
    fn until_delivered(&self, what: &str) {
        let before = self.delivered();
        wait_for(what, Duration::from_secs(40), || self.delivered() > before)
            .unwrap_or_else(|error| panic!("{error}: {before}\n{:#}", self.status()));
    }

    /// Waits until no rule of ours is left on any real server.
    fn until_nothing_is_diverted(&self) {
        wait_for("the leases to end", Duration::from_secs(40), || {
            self.real.iter().all(|real| {
                let rules = real.host.check("ip", &["rule", "show"]).unwrap();
                !rules.contains("36524")
            })
        })
        .unwrap();
    }
}

fn agent(cluster: &Cluster, host: &Host, grace: &str) -> Process {
    let pass = [cluster.director.place(), &cluster.tester].map(|it| it.address.v4.to_string());
    let state = host.file("state").display().to_string();
    start(
        host,
        "millrace-router-agent",
        &[
            "--insecure",
            "-b",
            "::",
            "-x",
            &pass.join(","),
            "--manage-sysctl",
            "--grace",
            grace,
            "--state-dir",
            &state,
        ],
        AGENT_ADMIN,
    )
}

fn interceptor(host: &Host) -> Process {
    start(
        host,
        "millrace-interceptor",
        &["--insecure", "-b", "::"],
        INTERCEPTOR_ADMIN,
    )
}

fn join(loads: impl IntoIterator<Item = Running>) {
    for load in loads {
        assert_eq!(load.join().unwrap().unwrap().errors, 0);
    }
}

#[test]
fn agents_and_interceptors_come_and_go_under_load() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new("8");
    let mut copier = scene.copier();
    let loads = scene.lasting(22);
    std::thread::sleep(Duration::from_secs(4));
    for index in 0..scene.real.len() {
        let host = scene.real[index].host.clone();
        scene.real[index].agent.kill().unwrap();
        scene.real[index].agent = agent(&scene.cluster, &host, scene.grace);
        scene.real[index].interceptor.kill().unwrap();
        scene.real[index].interceptor = interceptor(&host);
    }
    scene.until_delivered("copying to go on");
    // A real server that is named too early holds up new sessions, not those that are open, also where it
    // is named while an agent is away.
    scene.real[0].agent.kill().unwrap();
    scene.name(&[NOBODY]);
    copier.signal(Signal::HUP).unwrap();
    wait_for("the newcomer", Duration::from_secs(10), || {
        let status = scene.status();
        status["router_agents"].to_string().contains(NOBODY)
    })
    .unwrap();
    let delivered = scene.delivered();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(scene.delivered(), delivered, "an agent that held is away");
    scene.real[0].agent = agent(&scene.cluster, &scene.real[0].host, scene.grace);
    scene.until_delivered("open sessions to go on");
    scene.name(&[]);
    copier.signal(Signal::HUP).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    ready(&scene.cluster.live[0].host, &copier, COPIER_ADMIN);
    join(loads);
    assert!(copier.terminate(Duration::from_secs(60)).unwrap().success());
    let report: Value =
        serde_json::from_str(&std::fs::read_to_string(scene.report()).unwrap()).unwrap();
    assert_eq!(report["fidelity"], 1.0, "{report:#}\n{}", copier.log());
    scene.until_nothing_is_diverted();
    assert_eq!(scene.cluster.leaks.seen().unwrap(), []);
    let mut targets = RecordedStreams::default();
    for real in scene.real {
        targets.extend(&real.recorder.stop().unwrap().without_empty());
    }
    let difference = scene.live.stop().unwrap().without_empty().compare(&targets);
    assert!(difference.is_none(), "{difference}");
}

#[test]
fn a_copier_killed_for_good_leaves_nothing_behind_and_nothing_leaks() {
    if !can_run() {
        return;
    }
    let scene = Scene::new("2");
    let mut copier = scene.copier();
    let loads = scene.lasting(5);
    std::thread::sleep(Duration::from_secs(3));
    copier.kill().unwrap();
    join(loads);
    scene.until_nothing_is_diverted();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(scene.cluster.leaks.seen().unwrap(), []);
}

#[test]
fn a_copier_that_stood_still_for_longer_than_its_leases_sends_nothing_before_it_has_them_again() {
    if !can_run() {
        return;
    }
    let scene = Scene::new("2");
    let mut copier = scene.copier();
    let loads = scene.lasting(20);
    std::thread::sleep(Duration::from_secs(3));
    copier.signal(Signal::STOP).unwrap();
    scene.until_nothing_is_diverted();
    copier.signal(Signal::CONT).unwrap();
    let more = scene.lasting(5);
    scene.until_delivered("copying to go on");
    join(loads.into_iter().chain(more));
    copier.kill().unwrap();
    scene.until_nothing_is_diverted();
    assert_eq!(scene.cluster.leaks.seen().unwrap(), []);
}
