//! Recording on the live host, and replaying from there.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use millrace_lab::load::{Kind, Load};
use millrace_lab::records::RecordedStreams;
use millrace_lab::{Process, wait_for};
use serde_json::Value;

use crate::{Family, HTTP, PORTS, Scene, binary};

/// A few requests on connections that stay open for a while, of both families.
pub fn a_few_requests(scene: &Scene) {
    for family in Family::BOTH {
        let kind = Kind::KeepAlive {
            // The first connection of a new lab takes a second.
            lasting: Duration::from_millis(2200),
            pause: Duration::from_millis(20),
            path: "/bytes/200".to_owned(),
        };
        let load = Load::new(kind, scene.live_service(0, family, HTTP))
            .from(&scene.client_addresses(family))
            .concurrency(8);
        scene.load(load);
    }
}

/// A recording that is under way on the live host.
pub struct Recording {
    /// Where it goes to.
    pub file: PathBuf,
    process: Process,
}

/// What `millrace-copier inspect` foretells of a replay, and the replay's report says, as paths within both.
const FORETOLD: [&str; 12] = [
    "/sessions/captured",
    "/sessions/midway",
    "/sessions/resumed",
    "/sessions/cut",
    "/sessions/unpicked",
    "/sessions/unopened",
    "/sessions/refused",
    "/replicas/completed",
    "/replicas/aborted",
    "/bytes/captured",
    "/bytes/missing",
    "/bytes/delivered",
];

/// What `found` (by `inspect --json`) foretells of these services, all together, and came otherwise by this report.
pub fn surprises<'a>(found: impl IntoIterator<Item = &'a Value>, report: &Value) -> Vec<String> {
    let services: Vec<&Value> = found.into_iter().collect();
    let foretold = |path| -> u64 { services.iter().map(|it| total(&it["replay"], path)).sum() };
    FORETOLD
        .iter()
        .map(|path| (path, foretold(path), total(report, path)))
        .filter(|(_, foretold, came)| foretold != came)
        .map(|(path, foretold, came)| format!("{path}: {foretold} foretold, {came} came"))
        .collect()
}

/// A number, or the sum of those by reason.
pub fn total(of: &Value, path: &str) -> u64 {
    match of.pointer(path) {
        Some(Value::Object(reasons)) => reasons.values().filter_map(Value::as_u64).sum(),
        other => other.and_then(Value::as_u64).unwrap_or(0),
    }
}

/// How a replay went.
pub struct Replay {
    /// How the copier ended.
    pub status: ExitStatus,
    /// Its report.
    pub report: Value,
    /// What it wrote.
    pub log: String,
    /// What the target received.
    pub target: RecordedStreams,
}

impl Recording {
    /// Begins a recording by `millrace-copier record` with more arguments.
    pub fn by_copier(scene: &Scene, name: &str, more: &[&str]) -> Self {
        let host = &scene.stage.live().unwrap().host;
        let file = host.file(name);
        let ports: Vec<String> = PORTS.iter().map(ToString::to_string).collect();
        let (ports, path) = (ports.join(","), file.display().to_string());
        let mut arguments = vec!["record", "-x", &ports, "-w", &path];
        arguments.extend(more);
        let log = host.file(&format!("{name}.log"));
        let process = host
            .spawn(binary("millrace-copier"), &arguments, &[], &log)
            .unwrap();
        wait_for("the recording to begin", Duration::from_secs(10), || {
            process.log().contains("recording ")
        })
        .unwrap();
        Self { file, process }
    }

    /// Begins a recording by tcpdump on a device, of what its expression says.
    pub fn by_tcpdump(scene: &Scene, name: &str, device: &str, expression: &str) -> Self {
        let host = &scene.stage.live().unwrap().host;
        let file = host.file(name);
        let path = file.display().to_string();
        // As root it would drop its privileges, and with them its access to the lab's directory.
        let arguments = [
            "-i", device, "-w", &path, "-B", "65536", "-Z", "root", expression,
        ];
        let log = host.file(&format!("{name}.log"));
        let process = host.spawn("tcpdump", &arguments, &[], &log).unwrap();
        wait_for("tcpdump to begin", Duration::from_secs(10), || {
            process.log().contains("listening on")
        })
        .unwrap();
        Self { file, process }
    }

    /// Ends it; gives the file and what the recorder said.
    pub fn end(mut self) -> (PathBuf, String) {
        // The last packets are on their way through the kernel; tcpdump takes them once a second.
        std::thread::sleep(Duration::from_millis(1500));
        let status = self.process.terminate(Duration::from_secs(20)).unwrap();
        assert!(status.success(), "{status}: {}", self.process.log());
        (self.file, self.process.log())
    }
}

impl Scene {
    /// What `millrace-copier inspect --json` finds in a file on the live host, and foretells of a replay with these options.
    pub fn inspect(&self, file: &Path, more: &[&str]) -> Value {
        let host = &self.stage.live().unwrap().host;
        let program = binary("millrace-copier");
        let file = file.display().to_string();
        let found = host.check(
            program.display().to_string(),
            &[&["inspect", "--json", &file, "--"], more].concat(),
        );
        serde_json::from_str(&found.unwrap()).unwrap()
    }

    /// Replays files from the live host, with more arguments, and waits until that ends by itself.
    pub fn replay(&mut self, files: &[&Path], more: &[&str], limit: Duration) -> Replay {
        let names: Vec<String> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let names = names.join(",");
        let mut arguments = vec!["-i", &names];
        arguments.extend(more);
        drop(std::fs::remove_file(self.report_file(0)));
        self.start_copier_only(0, &arguments);
        let mut copier = self.copiers.pop().unwrap();
        let status = copier.wait(limit);
        let log = copier.log();
        let status = status.unwrap_or_else(|error| panic!("{error}: {log}"));
        let report = std::fs::read_to_string(self.report_file(0)).unwrap_or_default();
        let report = serde_json::from_str(&report).unwrap_or_else(|error| panic!("{error}: {log}"));
        Replay {
            status,
            report,
            log,
            target: self.take_target(),
        }
    }
}

impl Replay {
    /// Everything that `live` received was delivered `times` times, and nothing else.
    pub fn assert_exact(&self, live: &RecordedStreams, times: usize) {
        assert!(self.status.success(), "{}: {}", self.status, self.log);
        assert_eq!(self.report["fidelity"], 1.0, "{:#}", self.report);
        assert_eq!(
            self.report["recording"]["delivered"], 1.0,
            "{:#}",
            self.report
        );
        let mut wanted = RecordedStreams::default();
        for _ in 0..times {
            wanted.extend(live);
        }
        let difference = wanted.compare(&self.target);
        assert!(
            difference.is_none(),
            "recorded and replayed differ: {difference}\n{:#}\n{}",
            self.report,
            self.log
        );
        assert!(!live.is_empty(), "nothing was recorded at all");
    }
}
