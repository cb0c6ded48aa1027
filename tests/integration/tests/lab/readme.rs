//! The README's set-ups, command by command, on the hosts that it names.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_integration::{HTTP, binary, can_run};
use millrace_lab::load::{Kind, Load};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::{Host, Process, Stage, StageOptions, wait_for};

const README: &str = include_str!("../../../../README.md");
/// The live port there.
const LIVE_PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(30);
const SESSIONS: u64 = 200;

/// The commands of a section, each with its host: blocks of `sh HOST`.
fn commands(section: &str) -> Vec<(String, String)> {
    let (_, text) = README.split_once(section).unwrap();
    let text = text.split("\n## ").next().unwrap();
    // A subsection is a set-up of its own.
    let text = text.split("\n### ").next().unwrap();
    let blocks = text.split("```sh ").skip(1);
    let commands = blocks.flat_map(|block| {
        let (host, lines) = block.split_once('\n').unwrap();
        let (lines, _) = lines.split_once("```").unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        lines
            .into_iter()
            .map(|line| (host.to_owned(), line.to_owned()))
            .collect::<Vec<_>>()
    });
    commands.collect()
}

fn recorder(host: &Host, port: u16) -> Recorder {
    let config = RecorderConfig {
        http: vec![port],
        resp: Vec::new(),
        greeting: Vec::new(),
        out: host.file("records.json"),
        manners: Manners::default(),
    };
    Recorder::start(host, &config).unwrap()
}

/// A daemon that the README starts.
struct Daemon {
    program: String,
    process: Process,
}

/// Runs a command as it stands there; gives the daemon, if it is one.
fn run(host: &Host, name: &str, line: &str) -> Option<Daemon> {
    let directory = host.file("readme");
    std::fs::create_dir_all(&directory).unwrap();
    let state = directory.join("state");
    let programs = binary("millrace-copier").parent().unwrap().to_owned();
    let script = format!(
        "cd '{}'; export PATH='{}':\"$PATH\":/usr/sbin:/sbin MILLRACE_ROUTER_AGENT_STATE_DIR='{}'\n",
        directory.display(),
        programs.display(),
        state.display()
    );
    let program = line.split_whitespace().next().unwrap();
    let command = [" check ", " status"].iter().any(|it| line.contains(it));
    if program.starts_with("millrace-") && !command {
        let log = host.file(&format!("{name}-{program}.log"));
        let script = format!("{script}exec {line}\n");
        let mut process = host.spawn("sh", &["-e", "-c", &script], &[], &log).unwrap();
        let port = match program {
            "millrace-copier" => 36_530,
            "millrace-interceptor" => 36_531,
            _ => 36_532,
        };
        let admin = SocketAddr::from(([127, 0, 0, 1], port));
        // The copier waits for its first client before it can be ready.
        let page = match program {
            "millrace-copier" => "/healthz",
            _ => "/readyz",
        };
        wait_for("a daemon", PATIENCE, || {
            !process.is_running() || host.get(admin, page).is_ok_and(|(status, _)| status == 200)
        })
        .unwrap_or_else(|error| panic!("{line}: {error}: {}", process.log()));
        assert!(process.is_running(), "{line}: {}", process.log());
        return Some(Daemon {
            program: program.to_owned(),
            process,
        });
    }
    let script = format!("{script}{line}\n");
    let said = || {
        let output = host.run("sh", &["-e", "-c", &script]).unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), said + &error)
    };
    let (mut well, mut last) = said();
    if line.contains(" status") {
        // What is shown is a moment old.
        let working = [
            "copying 100% of",
            "diverting responses of 198.18.2.20:8080",
            "returning responses to",
        ];
        let works = wait_for("a daemon to work", PATIENCE, || {
            (well, last) = said();
            working.iter().any(|word| last.starts_with(word))
        });
        assert!(works.is_ok(), "{line}:\n{last}");
    }
    assert!(well, "{line}: {last}");
    if line.contains(" check ") {
        assert!(
            !last.contains("warning ") && !last.contains("failure "),
            "{line}:\n{last}"
        );
    }
    None
}

/// Follows a section, gives the copier some clients once it runs, and compares what arrived.
fn follow(section: &str) {
    let stage = Stage::new(StageOptions::default()).unwrap();
    let (live, target) = (&stage.live[0], &stage.target);
    // A target as it is before anybody follows the README: it answers clients by way of the router.
    target
        .host
        .ip(&[
            "route del 198.18.1.0/24".to_owned(),
            "route add default via 198.18.2.1".to_owned(),
        ])
        .unwrap();
    let services = [
        recorder(&live.host, LIVE_PORT),
        recorder(&target.host, HTTP),
    ];
    let mut daemons: Vec<Daemon> = Vec::new();
    for (name, line) in commands(section) {
        let host = match name.as_str() {
            "live" => &live.host,
            "target" => &target.host,
            "assistant" => &stage.assistant.host,
            other => panic!("no such host: {other}"),
        };
        let Some(daemon) = run(host, &name, &line) else {
            continue;
        };
        let is_copier = daemon.program == "millrace-copier";
        daemons.push(daemon);
        if is_copier {
            let client = stage.client().unwrap();
            let to = SocketAddr::new(live.address.v4.into(), LIVE_PORT);
            let from: Vec<_> = client.addresses.iter().map(|it| it.v4.into()).collect();
            let kind = Kind::OneRequest {
                count: SESSIONS,
                rate: Some(200.0),
                path: "/bytes/500".to_owned(),
            };
            let load = Load::new(kind, to).from(&from);
            let summary = client.host.enter_async(move || load.run()).unwrap();
            assert_eq!(summary.errors, 0, "{:?}", summary.examples);
        }
    }
    assert!(daemons.len() >= 2, "the section has its daemons");
    // The copier first: the others serve it until its last session has ended.
    for daemon in daemons.iter_mut().rev() {
        daemon.process.terminate(PATIENCE).unwrap();
    }
    let copier = daemons.iter().find(|it| it.program == "millrace-copier");
    let log = copier.unwrap().process.log();
    let report = std::fs::read_to_string(live.host.file("readme").join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["fidelity"], 1.0, "{report:#}\n{log}");
    // What the target's kernel has received, its application must have read.
    std::thread::sleep(Duration::from_millis(500));
    let [live, target] = services.map(|it| it.stop().unwrap().without_empty());
    let difference = live.compare(&target);
    assert!(difference.is_none(), "{difference}\n{log}");
    assert_eq!(live.requests(), SESSIONS);
}

#[test]
fn two_hosts_are_set_up_as_the_readme_says() {
    if can_run() {
        follow("## Copy a live service\n");
    }
}

#[test]
fn an_assistant_is_set_up_as_the_readme_says() {
    if can_run() {
        follow("### With an assistant\n");
    }
}
