//! Every command of docs/lvs-dr.md, run in its order on the hosts that it names.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_integration::{HTTP, binary, can_run};
use millrace_lab::cluster::{Cluster, ClusterOptions};
use millrace_lab::load::{Kind, Load};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::records::RecordedStreams;
use millrace_lab::{Host, wait_for};

const DOCUMENT: &str = include_str!("../../../../docs/lvs-dr.md");

/// A block of commands, and where it runs.
struct Block {
    whereto: String,
    commands: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        if let Some(whereto) = line.strip_prefix("```sh ") {
            let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push(Block {
                whereto: whereto.to_owned(),
                commands: body.join("\n"),
            });
        }
    }
    blocks
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

/// A directory of its own for each host: they share one file system.
fn directory(cluster: &Cluster, host: &Host) -> PathBuf {
    let directory = cluster.lab.directory().join(format!("doc-{}", host.name()));
    std::fs::create_dir_all(&directory).unwrap();
    let certs = directory.join("certs");
    if !certs.exists() {
        std::os::unix::fs::symlink(cluster.lab.directory().join("certs"), certs).unwrap();
    }
    directory
}

fn run(cluster: &Cluster, host: &Host, commands: &str) -> String {
    let programs = binary("millrace-copier").parent().unwrap().to_owned();
    let script = format!(
        "cd '{}'; export PATH='{}':\"$PATH\":/usr/sbin:/sbin MILLRACE_ROUTER_AGENT_STATE_DIR=\"$PWD/state\"\n{commands}\n",
        directory(cluster, host).display(),
        programs.display()
    );
    let output = host.run("sh", &["-e", "-c", &script]).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "on {}: {}\n{commands}\n{}{}",
        host.name(),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn eventually_ready(cluster: &Cluster, host: &Host, admin: u16) {
    let admin: SocketAddr = ([127, 0, 0, 1], admin).into();
    wait_for("readiness", Duration::from_secs(20), || {
        host.get(admin, "/readyz")
            .is_ok_and(|(status, _)| status == 200)
    })
    .unwrap_or_else(|error| {
        let log = |name: &str| {
            std::fs::read_to_string(directory(cluster, host).join(name)).unwrap_or_default()
        };
        panic!("{}: {error}\n{}", host.name(), log("copier.log"));
    });
}

fn load(cluster: &Cluster) {
    let client = cluster.client().unwrap();
    let service = SocketAddr::new(cluster.live[0].address.v4.into(), HTTP);
    let from: Vec<_> = client.addresses.iter().map(|pair| pair.v4.into()).collect();
    let kind = Kind::OneRequest {
        count: 200,
        rate: Some(100.0),
        path: "/bytes/500".to_owned(),
    };
    let load = Load::new(kind, service).from(&from).concurrency(4);
    let summary = client.host.enter_async(move || load.run()).unwrap();
    assert_eq!(summary.errors, 0);
}

#[test]
fn an_operator_sets_it_up_from_nothing_with_the_page() {
    if !can_run() {
        return;
    }
    let mut cluster = Cluster::new(ClusterOptions::new(&[HTTP])).unwrap();
    let live = cluster.live[0].host.clone();
    let live_recorder = recorder(&live);
    let recorders: Vec<_> = cluster
        .real_servers
        .iter()
        .map(|place| recorder(&place.host))
        .collect();
    cluster.director.start().unwrap();
    let all = blocks();
    assert!(all.len() > 8, "the page has its commands");

    let mut started = false;
    for block in &all {
        let starts = block.commands.contains("millrace-copier --config");
        match block.whereto.as_str() {
            "any" => {
                let here = cluster.lab.directory().display();
                run(&cluster, &live, &format!("cd '{here}'\n{}", block.commands));
            }
            "rs" => {
                for place in &cluster.real_servers {
                    // The copier has just gone: what it ended is on its way out.
                    run(&cluster, &place.host, &block.commands);
                }
            }
            "live" => {
                let said = run(&cluster, &live, &block.commands);
                if block.commands.contains("-r '.interceptors[].address'") {
                    assert_eq!(said.lines().count(), 2, "{said}");
                }
                if block.commands.contains("jq '{fidelity,") {
                    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
                    let log =
                        std::fs::read_to_string(directory(&cluster, &live).join("copier.log"));
                    assert_eq!(report["fidelity"], 1.0, "{said}\n{}", log.unwrap());
                }
            }
            other => panic!("no such host: {other}"),
        }
        if starts {
            eventually_ready(&cluster, &live, 36_530);
            load(&cluster);
            std::thread::sleep(Duration::from_secs(3));
            started = true;
        }
    }
    assert!(started);
    let recorded = |recorder: Recorder| recorder.stop().unwrap().without_empty();
    let mut targets: Option<RecordedStreams> = None;
    for recorder in recorders {
        let more = recorded(recorder);
        assert!(!more.is_empty(), "every real server had its share");
        match &mut targets {
            Some(all) => all.extend(&more),
            None => targets = Some(more),
        }
    }
    let difference = recorded(live_recorder).compare(&targets.unwrap());
    assert!(difference.is_none(), "{difference}");
    for place in &cluster.real_servers {
        let rules = run(&cluster, &place.host, "ip rule show; ip link show");
        assert!(
            !rules.contains("36524") && !rules.contains("millrace0"),
            "{rules}"
        );
    }
}
