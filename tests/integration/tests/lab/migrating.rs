//! Every example of docs/migrating-from-tcpcopy.md, run in the lab as it stands there.
//!
//! A block of commands is run from top to bottom, each on the host that the comment above it names.
//! Whatever copies is given some client traffic, and what arrives is counted at the target.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use millrace_integration::{Family, HTTP, Scene, binary, can_run, number};
use millrace_lab::load::{Kind, Load};
use millrace_lab::{Host, Process, StageOptions, wait_for};
use serde_json::Value;

const DOC: &str = include_str!("../../../../docs/migrating-from-tcpcopy.md");
const SESSIONS: u64 = 60;
const PATIENCE: Duration = Duration::from_secs(30);
/// Where a copier listens that says nothing else.
const ADMIN: &str = "127.0.0.1:36530";
const MORE_ADMIN: u16 = 36_540;
/// Files that the examples write, and nothing else does.
const FILES: [&str; 3] = [
    "/tmp/millrace-example.log",
    "/tmp/millrace-example.pid",
    "/tmp/millrace-example.pcapng",
];

/// A command of an example, and where it is run.
struct Step {
    host: String,
    words: Vec<String>,
}

/// The words of a line, as a shell would split it; single quotes are all that the examples need.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (number, part) in line.split('\'').enumerate() {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// The examples: blocks of `sh`, with the host of each command.
fn examples() -> Vec<Vec<Step>> {
    let mut examples = Vec::new();
    for block in DOC.split("```sh\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let mut host = String::new();
        let mut steps = Vec::new();
        for line in block.lines() {
            match line.strip_prefix("# ") {
                Some(name) => host = name.to_owned(),
                None => steps.push(Step {
                    host: host.clone(),
                    words: words(line),
                }),
            }
        }
        examples.push(steps);
    }
    examples
}

/// What runs of an example.
struct Running {
    scene: Scene,
    interceptor: Option<Process>,
    copiers: Vec<(Process, SocketAddr)>,
    /// A copier that went to the background, by its pid file.
    daemon: Option<String>,
    loaded: bool,
}

impl Running {
    fn host(&self, name: &str) -> Host {
        let stage = &self.scene.stage;
        let place = match name {
            "live server" => &stage.live[0],
            "target" => &stage.target,
            "assistant" => &stage.assistant,
            other => panic!("no such host: {other}"),
        };
        place.host.clone()
    }

    fn step(&mut self, number: usize, step: &Step) {
        let host = self.host(&step.host);
        let all: Vec<&str> = step.words.iter().map(String::as_str).collect();
        let (program, arguments) = (all[0], &all[1..]);
        let log = host.file(&format!("step-{number}.log"));
        let spawn = || host.spawn(binary(program), arguments, &[], &log).unwrap();
        let run = || {
            let output = host.run(binary(program), arguments).unwrap();
            assert!(output.status.success(), "{all:?}: {output:?}");
        };
        match (program, arguments[0]) {
            ("ip", _) => {
                host.ip(&[arguments.join(" ")]).unwrap();
            }
            ("millrace-interceptor", _) => {
                let process = spawn();
                ready(&host, "127.0.0.1:36531".parse().unwrap());
                self.interceptor = Some(process);
            }
            ("millrace-copier", "check-config" | "ctl" | "inspect") => run(),
            ("millrace-copier", "record") => {
                let mut recorder = spawn();
                wait_for("the recorder", PATIENCE, || recorder.log().contains("eth0")).unwrap();
                self.load();
                std::thread::sleep(Duration::from_millis(500));
                assert!(
                    recorder.terminate(PATIENCE).unwrap().success(),
                    "{}",
                    recorder.log()
                );
            }
            ("millrace-copier", _) if all.contains(&FILES[2]) => run(),
            ("millrace-copier", _) if all.contains(&"-d") => {
                run();
                ready(&host, ADMIN.parse().unwrap());
                let at = all.iter().position(|word| *word == "-P").unwrap();
                self.daemon = Some(all[at + 1].to_owned());
            }
            ("millrace-copier", _) => {
                let mut process = spawn();
                let admin = all.iter().position(|word| *word == "--admin");
                let named = admin.map(|at| all[at + 1].parse().unwrap());
                // Further ones find a port of their own.
                let admin: SocketAddr = named.unwrap_or(match self.copiers.len() {
                    0 => ADMIN.parse().unwrap(),
                    others => ([127, 0, 0, 1], MORE_ADMIN + others as u16 - 1).into(),
                });
                std::thread::sleep(Duration::from_millis(200));
                assert!(process.is_running(), "{all:?}: {}", process.log());
                ready(&host, admin);
                self.copiers.push((process, admin));
            }
            (other, _) => panic!("{other} in an example"),
        }
    }

    fn load(&mut self) {
        self.loaded = true;
        let kind = Kind::OneRequest {
            count: SESSIONS,
            rate: Some(60.0),
            path: "/bytes/300".to_owned(),
        };
        let to = self.scene.live_service(0, Family::V4, HTTP);
        let from = self.scene.client_addresses(Family::V4);
        self.scene.load(Load::new(kind, to).from(&from));
    }

    /// Client traffic for what copies; gives what the copiers report when all has ended.
    fn finish(mut self, example: &[Step]) {
        let live = self.host("live server");
        let mut admins: Vec<SocketAddr> = self.copiers.iter().map(|(_, admin)| *admin).collect();
        admins.extend(
            self.daemon
                .iter()
                .map(|_| ADMIN.parse::<SocketAddr>().unwrap()),
        );
        let mut opened = None;
        if !admins.is_empty() {
            self.load();
            let report = |admin: &SocketAddr| -> Value {
                live.get_json(*admin, "/status").unwrap()["report"].clone()
            };
            for admin in &admins {
                wait_for("the copies to end", PATIENCE, || {
                    let report = report(admin);
                    let seen = number(&report, "/sessions/captured")
                        + number(&report, "/sessions/unchosen");
                    seen >= SESSIONS && number(&report, "/replicas/open") == 0
                })
                .unwrap_or_else(|error| panic!("{error}: {:#}", report(admin)));
            }
            let reports: Vec<Value> = admins.iter().map(report).collect();
            for report in &reports {
                assert_eq!(report["fidelity"], 1.0, "{report:#}");
                assert_eq!(
                    report["replicas"]["aborted"],
                    serde_json::json!({}),
                    "{report:#}"
                );
            }
            opened = Some(
                reports
                    .iter()
                    .map(|r| number(r, "/replicas/opened"))
                    .sum::<u64>(),
            );
        }
        for (mut copier, _) in self.copiers {
            assert!(
                copier.terminate(PATIENCE).unwrap().success(),
                "{}",
                copier.log()
            );
        }
        if let Some(file) = &self.daemon {
            let pid = std::fs::read_to_string(file).unwrap();
            live.check("kill", &[pid.trim()]).unwrap();
            wait_for("the daemon to end", PATIENCE, || !Path::new(file).exists()).unwrap();
        }
        let outcome = self.scene.finish();
        if let Some(opened) = opened {
            assert_eq!(
                outcome.target.len() as u64,
                opened,
                "{:?}",
                example[0].words
            );
        } else if self.loaded {
            // A recording that was replayed once, and then twice.
            assert_eq!(outcome.target.len() as u64, 3 * SESSIONS);
        }
    }
}

fn ready(host: &Host, admin: SocketAddr) {
    wait_for("the daemon to be ready", PATIENCE, || {
        host.get(admin, "/readyz")
            .is_ok_and(|(status, _)| status == 200)
    })
    .unwrap();
}

fn run(example: &[Step]) {
    for file in FILES {
        drop(std::fs::remove_file(file));
    }
    let mut running = Running {
        scene: Scene::new(StageOptions::default()),
        interceptor: None,
        copiers: Vec::new(),
        daemon: None,
        loaded: false,
    };
    if !example
        .iter()
        .any(|step| step.words[0] == "millrace-interceptor")
    {
        running.scene.start_interceptor();
    }
    for (number, step) in example.iter().enumerate() {
        running.step(number, step);
    }
    running.finish(example);
    for file in FILES {
        drop(std::fs::remove_file(file));
    }
}

#[test]
fn every_example_of_the_migration_guide_runs() {
    if !can_run() {
        return;
    }
    let examples = examples();
    assert!(examples.len() >= 12, "{}", examples.len());
    for example in &examples {
        for step in example {
            println!("{}: {}", step.host, step.words.join(" "));
        }
        run(example);
    }
}

/// Every letter that TCPCopy's programs have is in the guide, and so is every line of its statistics.
#[test]
fn the_guide_names_every_option_and_statistic() {
    let letters = "xscnfrgiaITFBSoCMDmtkpHROWLulPdvh";
    for letter in letters.chars() {
        assert!(DOC.contains(&format!("`-{letter}")), "-{letter}");
    }
    for statistic in [
        "active",
        "rel reqs",
        "obs del",
        "conns",
        "resp packs",
        "retransmit",
        "syn cnt",
        "clt packs",
    ] {
        assert!(DOC.contains(statistic), "{statistic}");
    }
}
