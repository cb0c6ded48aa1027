//! Capture files that others made: each is inspected and replayed at a server that only reads, and
//! what became of its sessions adds up.
//!
//! `make captures` fetches the files and runs this; MILLRACE_CAPTURES names a directory with a file
//! `list` of them, as `tests/captures/fetch.sh` makes it.

use std::fmt::Write as _;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use millrace_integration::replay::{surprises, total};
use millrace_integration::{binary, can_run, number};
use millrace_lab::{Host, Lab};
use serde_json::Value;

/// Where the server listens.
const SINK: u16 = 9999;
/// Services of one capture that are replayed: those with the most traffic.
const MOST_SERVICES: usize = 20;

/// Captures in which sessions of several services tell something of each other (subflows of multipath TCP, how far
/// the directions are apart): each service is inspected alone, and here all of them are replayed together.
const ACROSS_SERVICES: [&str; 2] = [
    "tcpdump/tests/mptcp-v0.pcap",
    "ndpi/tests/pcap/quickplay.pcap",
];

#[test]
#[ignore = "needs captures: make captures"]
fn captures_of_others_are_inspected_and_replayed() {
    if !can_run() {
        return;
    }
    let directory = std::env::var("MILLRACE_CAPTURES").unwrap_or_default();
    let Ok(list) = std::fs::read_to_string(Path::new(&directory).join("list")) else {
        assert!(
            std::env::var_os("CI").is_none(),
            "no captures in '{directory}'"
        );
        eprintln!("SKIPPED: no captures in '{directory}' (MILLRACE_CAPTURES); see make captures");
        return;
    };
    let lab = Lab::new().unwrap();
    let host = lab.host("alone").unwrap();
    host.ip(&["link set lo up".to_owned()]).unwrap();
    sink(&host);

    let mut table = String::from(
        "| capture | sessions | client bytes | delivered | not replayed, and why |\n\
         |---|---|---|---|---|\n",
    );
    let (mut inspected, mut replayed) = (0, 0);
    let mut surprised = Vec::new();
    for file in list.lines() {
        let found = inspect(&host, file);
        inspected += 1;
        let (mapping, sessions, bytes) = services(&found);
        if mapping.is_empty() {
            continue;
        }
        let report = replay(&host, file, &mapping);
        replayed += 1;
        check(file, &report);
        let across = ACROSS_SERVICES.iter().any(|name| file.ends_with(name));
        if !across {
            let surprising = surprises(replayable(&found), &report);
            surprised.extend(surprising.iter().map(|it| format!("{file}: {it}")));
        }
        let name = file
            .rsplit_once("/captures/")
            .map_or(file, |(_, name)| name);
        let delivered = report["recording"]["delivered"].as_f64().unwrap();
        writeln!(
            table,
            "| {name} | {sessions} | {bytes} | {:.4} | {} |",
            delivered,
            reasons(&report)
        )
        .unwrap();
    }
    eprintln!("{table}\n{inspected} inspected, {replayed} replayed");
    std::fs::write(Path::new(&directory).join("table.md"), table).unwrap();
    assert!(surprised.is_empty(), "{}", surprised.join("\n"));
    assert!(replayed >= 20, "only {replayed} captures could be replayed");
}

/// A server that reads what it gets and says nothing, on both loopback addresses.
fn sink(host: &Host) {
    let listener = host
        .enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, SINK)))
        .unwrap()
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut buffer = [0; 65_536];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    });
}

fn inspect(host: &Host, file: &str) -> Value {
    let output = host
        .run(
            binary("millrace-copier"),
            &["inspect", "--json", file, "--", "--asap", "-W"],
        )
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{file}: {said}");
    match output.status.code() {
        Some(0) => serde_json::from_slice(&output.stdout).unwrap(),
        // What is no capture at all is said in one line.
        Some(1) if said.lines().count() == 1 => Value::Null,
        other => panic!("{file}: {other:?} {said}"),
    }
}

/// The services of a capture that are replayed.
fn replayable(found: &Value) -> impl Iterator<Item = &Value> {
    let services = found["services"].as_array().into_iter().flatten();
    services
        .filter(|service| number(service, "/client/bytes") > 0)
        .take(MOST_SERVICES)
        .filter(|service| {
            let ip: IpAddr = service["address"].as_str().unwrap().parse().unwrap();
            number(service, "/port") != 0 && !ip.is_unspecified()
        })
}

/// What `-x` says for this capture, and the sessions and bytes that it stands for.
fn services(found: &Value) -> (String, u64, u64) {
    let mut list = Vec::new();
    let (mut sessions, mut bytes) = (0, 0);
    for service in replayable(found) {
        let ip: IpAddr = service["address"].as_str().unwrap().parse().unwrap();
        let port = u16::try_from(number(service, "/port")).unwrap();
        let to = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        list.push(format!("{}-{to}:{SINK}", SocketAddr::new(ip, port)));
        sessions += number(service, "/sessions");
        bytes += number(service, "/client/bytes");
    }
    (list.join(","), sessions, bytes)
}

fn replay(host: &Host, file: &str, mapping: &str) -> Value {
    let report = host.file("report.json").display().to_string();
    let arguments = [
        "-i",
        file,
        "-x",
        mapping,
        "--local",
        "--asap",
        "-W",
        "-t",
        "5",
        "--min-fidelity",
        "0",
        "--report",
        &report,
    ];
    let output = host.run(binary("millrace-copier"), &arguments).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{file}: {} {said}", output.status);
    assert!(!said.contains("panicked"), "{file}: {said}");
    serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap()
}

/// Every session has one outcome.
fn check(file: &str, report: &Value) {
    let sum = |pointer: &str| total(report, pointer);
    // What goes on behind a gap has a copy of its own.
    let captured = number(report, "/sessions/captured") + number(report, "/sessions/resumed");
    let opened = number(report, "/replicas/opened");
    let ended = number(report, "/replicas/completed") + sum("/replicas/aborted");
    assert_eq!(
        captured,
        opened + sum("/replicas/refused"),
        "{file}: {report:#}"
    );
    assert_eq!(opened, ended, "{file}: {report:#}");
}

/// Why sessions or bytes of a capture did not arrive, as the report counts it.
fn reasons(report: &Value) -> String {
    let mut all = Vec::new();
    for (pointer, what) in [
        ("/replicas/aborted", ""),
        ("/replicas/refused", "refused: "),
    ] {
        if let Some(counts) = report.pointer(pointer).and_then(Value::as_object) {
            all.extend(
                counts
                    .iter()
                    .map(|(name, count)| format!("{count} {what}{name}")),
            );
        }
    }
    for (pointer, what) in [
        (
            "/sessions/midway",
            "begun before the capture, picked up at a later turn",
        ),
        (
            "/sessions/unpicked",
            "begun before the capture, not picked up",
        ),
        ("/sessions/unopened", "handshake not completed"),
        ("/sessions/cut", "cut by its end, delivered until there"),
    ] {
        match number(report, pointer) {
            0 => {}
            count => all.push(format!("{count} {what}")),
        }
    }
    all.join(", ")
}
