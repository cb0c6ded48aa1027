//! What the whole-system tests share: a stage with the daemons and recording servers on it.
//!
//! Every test makes a [`Scene`], lets clients talk to the live server, and compares what live and
//! target recorded. Nothing is mocked: the daemons are the built programs, started with the
//! options that their documentation names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a library for tests: whatever fails here fails a test"
)]

pub mod cluster;
pub mod consul;
pub mod counter;
pub mod kubernetes;
pub mod replay;
pub mod target_host;
pub mod traffic;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use millrace_certificates::Certificates;
use millrace_lab::fault::Fault;
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::records::RecordedStreams;
use millrace_lab::{Host, Place, Process, Stage, StageOptions, wait_for};
use serde_json::Value;

/// Ports of the recording servers.
pub const HTTP: u16 = 8080;
/// A second HTTP service.
pub const HTTP_TOO: u16 = 8081;
/// Redis commands.
pub const RESP: u16 = 6380;
/// Speaks first.
pub const GREETING: u16 = 2525;
/// All of them.
pub const PORTS: [u16; 4] = [HTTP, HTTP_TOO, RESP, GREETING];

/// Where interceptors listen for copiers.
pub const INTERCEPTOR_PORT: u16 = 36_524;
const ADMIN: u16 = 9100;
const PATIENCE: Duration = Duration::from_secs(20);

/// A log file for the next start of a program on a host.
pub(crate) fn new_log(host: &Host, program: &str) -> PathBuf {
    let mut names = (1..).map(|start| host.file(&format!("{program}-{start}.log")));
    names.find(|file| !file.exists()).unwrap()
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both of them.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The one of two addresses that is of this family.
    pub fn of(self, addresses: millrace_lab::Addresses) -> IpAddr {
        match self {
            Self::V4 => addresses.v4.into(),
            Self::V6 => addresses.v6.into(),
        }
    }
}

/// Says whether a lab can be made here. Without one the test is skipped loudly, or fails in CI.
pub fn can_run() -> bool {
    let Some(why) = millrace_lab::missing() else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "a lab is needed: {why}");
    eprintln!("SKIPPED: {why}");
    false
}

/// A stage with recording servers, and daemons as they are started.
pub struct Scene {
    /// The hosts.
    pub stage: Stage,
    /// The recording servers at the live hosts.
    pub live_recorders: Vec<Recorder>,
    /// The recording server at the target.
    pub target_recorder: Option<Recorder>,
    /// The interceptor, while it runs.
    pub interceptor: Option<Process>,
    /// The copiers that run, by their live host.
    pub copiers: Vec<Process>,
    /// Whose certificates the daemons show; none is `--insecure`.
    pub certificates: Option<Certificates>,
    /// More arguments of the interceptor.
    pub interceptor_arguments: Vec<String>,
    /// The interceptor runs on the target, and not on the assistant.
    pub interceptor_on_target: bool,
    interceptors_started: u32,
}

impl Scene {
    /// A stage with recording servers, and no daemon yet.
    pub fn new(options: StageOptions) -> Self {
        Self::with_target(options, Manners::default())
    }

    /// As [`Scene::new`], with a target that behaves differently.
    pub fn with_target(options: StageOptions, manners: Manners) -> Self {
        let stage = Stage::new(options).unwrap();
        let live_recorders = stage
            .live
            .iter()
            .map(|live| recorder(&live.host, Manners::default()))
            .collect();
        let target_recorder = Some(recorder(&stage.target.host, manners));
        Self {
            stage,
            live_recorders,
            target_recorder,
            interceptor: None,
            copiers: Vec::new(),
            certificates: None,
            interceptor_arguments: Vec::new(),
            interceptor_on_target: false,
            interceptors_started: 0,
        }
    }

    /// The usual scene: one live server, interceptor and copier ready.
    pub fn usual() -> Self {
        let mut scene = Self::new(StageOptions::default());
        scene.start_interceptor();
        scene.start_copier(0, &[]);
        scene
    }

    /// How a daemon with the certificate `path` (`ROLE[/NAME]`) is to talk to others.
    pub fn protection(&self, path: &str) -> Vec<String> {
        let Some(certificates) = &self.certificates else {
            return vec!["--insecure".to_owned()];
        };
        let files = certificates.files(path);
        [
            ("--ca", certificates.ca()),
            ("--cert", files.cert),
            ("--key", files.key),
        ]
        .into_iter()
        .flat_map(|(option, file)| [option.to_owned(), file.display().to_string()])
        .collect()
    }

    /// Starts the interceptor and waits until it is ready.
    pub fn start_interceptor(&mut self) {
        self.interceptors_started += 1;
        let place = self.interceptor_place();
        let log = place
            .host
            .file(&format!("interceptor-{}.log", self.interceptors_started));
        let admin = admin().to_string();
        let protection = self.protection("interceptor");
        let mut arguments = vec!["-b", "::", "-i", "eth0", "--admin", &admin];
        let more = protection.iter().chain(&self.interceptor_arguments);
        arguments.extend(more.map(String::as_str));
        let mut process = place
            .host
            .spawn(binary("millrace-interceptor"), &arguments, &[], &log)
            .unwrap();
        ready(&place.host, &mut process);
        self.interceptor = Some(process);
    }

    const fn interceptor_place(&self) -> &Place {
        match self.interceptor_on_target {
            true => &self.stage.target,
            false => &self.stage.assistant,
        }
    }

    /// Starts a copier on live server number `live` with more arguments, and waits until it captures, not until it is
    /// ready: its admin port answers once its ring is open.
    pub fn start_copier_only(&mut self, live: usize, more: &[&str]) {
        self.spawn_copier(live, live, more);
        let host = &self.stage.live.get(live).unwrap().host;
        let copier = self.copiers.last_mut().unwrap();
        wait_for("a copier to capture", Duration::from_secs(30), || {
            !copier.is_running() || host.get(admin(), "/healthz").is_ok()
        })
        .unwrap();
    }

    /// Starts a copier on the first live server that copies the services of another one, and waits until it is ready.
    pub fn start_copier_of(&mut self, other: usize, more: &[&str]) {
        self.spawn_copier(0, other, more);
        let host = self.stage.live().unwrap().host.clone();
        ready(&host, self.copiers.last_mut().unwrap());
    }

    fn spawn_copier(&mut self, live: usize, of: usize, more: &[&str]) {
        let place = self.stage.live.get(live).unwrap();
        let services = self.services(of);
        let interceptor = format!("{}:{INTERCEPTOR_PORT}", self.interceptor_place().address.v4);
        let report = self.report_file(live).display().to_string();
        let admin = admin().to_string();
        let mut arguments = vec![
            "-x",
            &services,
            "-s",
            &interceptor,
            "--admin",
            &admin,
            "--report",
            &report,
        ];
        let protection = self.protection("copier");
        arguments.extend(protection.iter().map(String::as_str));
        arguments.extend(more);
        let log = place.host.file("copier.log");
        let process = place
            .host
            .spawn(binary("millrace-copier"), &arguments, &[], &log)
            .unwrap();
        self.copiers.push(process);
    }

    /// Starts a copier and waits until it is ready.
    pub fn start_copier(&mut self, live: usize, more: &[&str]) {
        self.start_copier_only(live, more);
        let host = self.stage.live.get(live).unwrap().host.clone();
        ready(&host, self.copiers.last_mut().unwrap());
    }

    /// What `-x` says: every service of both families, to the same port of the target.
    fn services(&self, live: usize) -> String {
        let live = self.stage.live.get(live).unwrap().address;
        let target = self.stage.target.address;
        let mut services = Vec::new();
        for port in PORTS {
            for family in Family::BOTH {
                let from = SocketAddr::new(family.of(live), port);
                services.push(format!(
                    "{from}-{}",
                    SocketAddr::new(family.of(target), port)
                ));
            }
        }
        services.join(",")
    }

    fn report_file(&self, live: usize) -> PathBuf {
        self.stage.live.get(live).unwrap().host.file("report.json")
    }

    /// The address of a service of live server number `live`.
    pub fn live_service(&self, live: usize, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(family.of(self.stage.live.get(live).unwrap().address), port)
    }

    /// Client addresses of a family.
    pub fn client_addresses(&self, family: Family) -> Vec<IpAddr> {
        self.stage
            .client()
            .unwrap()
            .addresses
            .iter()
            .map(|a| family.of(*a))
            .collect()
    }

    /// A copier on the first live host, of this service (as `-x` names it), with the scene's interceptor and this admin
    /// port. It may not be up yet.
    pub fn copier_of(&self, service: &str, admin: &str, more: &[&str]) -> Process {
        let live = &self.stage.live[0].host;
        let interceptor = format!("{}:{INTERCEPTOR_PORT}", self.stage.assistant.address.v4);
        let usual = ["-x", service, "-s", &interceptor, "--insecure"];
        let usual = [&usual[..], &["--grace", "0", "--admin", admin]].concat();
        let log = live.file("copier-alone.log");
        let program = binary("millrace-copier");
        live.spawn(program, &[&usual[..], more].concat(), &[], &log)
            .unwrap()
    }

    /// So many requests of clients at the first live host, 100 in a second.
    pub fn requests(&self, count: u64) {
        let kind = Kind::OneRequest {
            count,
            rate: Some(100.0),
            path: "/bytes/300".to_owned(),
        };
        let to = self.live_service(0, Family::V4, HTTP);
        self.load(Load::new(kind, to).from(&self.client_addresses(Family::V4)));
    }

    /// Runs a load from the first client host; no client may see an error.
    pub fn load(&self, load: Load) -> Summary {
        let summary = self
            .stage
            .client()
            .unwrap()
            .host
            .enter_async(move || load.run())
            .unwrap();
        assert_eq!(
            summary.errors, 0,
            "live clients saw errors: {:?}",
            summary.examples
        );
        summary
    }

    /// The state of the copier on live server number `live`.
    pub fn status(&self, live: usize) -> Value {
        let host = &self.stage.live.get(live).unwrap().host;
        host.get_json(admin(), "/status").unwrap()
    }

    /// The state of the interceptor.
    pub fn interceptor_status(&self) -> Value {
        self.stage
            .assistant
            .host
            .get_json(admin(), "/status")
            .unwrap()
    }

    /// Waits until the copiers hold no replica that still has something to do.
    pub fn settle(&self, limit: Duration) {
        // A report is up to 250 ms old: one from before the load says that nothing is open.
        std::thread::sleep(Duration::from_millis(300));
        for live in 0..self.copiers.len() {
            // In vain is an answer too: the comparison will show it.
            drop(wait_for("all replicas to end", limit, || {
                number(&self.status(live), "/report/replicas/open") == 0
            }));
        }
    }

    /// Ends the copiers with SIGTERM; gives their reports.
    pub fn drain(&mut self) -> Vec<Value> {
        let mut reports = Vec::new();
        for (live, mut copier) in std::mem::take(&mut self.copiers).into_iter().enumerate() {
            let status = copier.terminate(Duration::from_secs(60)).unwrap();
            assert!(status.success(), "copier: {status}\n{}", copier.log());
            let text = std::fs::read_to_string(self.report_file(live)).unwrap();
            reports.push(serde_json::from_str(&text).unwrap());
        }
        reports
    }

    /// Takes what the target has recorded, and has it record anew.
    pub fn take_target(&mut self) -> RecordedStreams {
        // What the target's kernel has received, its application must have read.
        std::thread::sleep(Duration::from_millis(500));
        let before = self.target_recorder.take().unwrap();
        let streams = before.stop().unwrap().without_empty();
        self.target_recorder = Some(recorder(&self.stage.target.host, Manners::default()));
        streams
    }

    /// Takes what the live servers have recorded so far.
    pub fn take_live(&mut self) -> RecordedStreams {
        let mut all = RecordedStreams::default();
        for recorder in std::mem::take(&mut self.live_recorders) {
            all.extend(&recorder.stop().unwrap().without_empty());
        }
        all
    }

    /// Ends everything and demands that all was delivered, exactly: fidelity 1, and the streams
    /// recorded at live and target equal as multisets.
    pub fn finish_exact(self, settle: Duration) -> Outcome {
        self.settle(settle);
        let outcome = self.finish();
        outcome.assert_exact();
        outcome
    }

    /// Ends everything and collects what was recorded.
    pub fn finish(mut self) -> Outcome {
        let reports = self.drain();
        // What the target's kernel has received, its application must have read.
        std::thread::sleep(Duration::from_millis(500));
        let live = std::mem::take(&mut self.live_recorders)
            .into_iter()
            .map(|recorder| recorder.stop().unwrap().without_empty())
            .collect();
        let target = self
            .target_recorder
            .take()
            .unwrap()
            .stop()
            .unwrap()
            .without_empty();
        Outcome {
            reports,
            live,
            target,
        }
    }

    /// Makes the way between two kinds of hosts bad.
    pub fn set_faults(&mut self, path: Path, fault: Fault, seed: u64) {
        let none = Fault::none();
        let link = match path {
            Path::CopierToTarget | Path::TargetToAssistant => &mut self.stage.target.link,
            Path::Interceptor => &mut self.stage.assistant.link,
        };
        let (to_host, from_host) = match path {
            Path::CopierToTarget => (fault, none),
            Path::TargetToAssistant => (none, fault),
            Path::Interceptor => (fault, fault),
        };
        link.set_faults(to_host, from_host, seed).unwrap();
    }
}

/// A way that packets take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Copied packets on their way to the target.
    CopierToTarget,
    /// Responses on their way to the assistant.
    TargetToAssistant,
    /// Everything to and from the assistant: responses and the streams to the copiers.
    Interceptor,
}

/// What a scene amounted to.
pub struct Outcome {
    /// The copiers' reports.
    pub reports: Vec<Value>,
    /// What the live servers recorded.
    pub live: Vec<RecordedStreams>,
    /// What the target recorded.
    pub target: RecordedStreams,
}

impl Outcome {
    /// Everything was delivered, once, and nothing else.
    pub fn assert_exact(&self) {
        for report in &self.reports {
            assert_eq!(report["fidelity"], 1.0, "{report:#}");
            assert_eq!(
                report["replicas"]["aborted"],
                serde_json::json!({}),
                "{report:#}"
            );
            assert_eq!(report["capture"]["dropped"], 0, "{report:#}");
            assert_eq!(
                report["replicas"]["completed"], report["sessions"]["captured"],
                "{report:#}"
            );
        }
        let live = self
            .live
            .iter()
            .skip(1)
            .fold(self.live[0].clone(), |mut all, more| {
                all.extend(more);
                all
            });
        let difference = live.compare(&self.target);
        assert!(
            difference.is_none(),
            "live and target differ: {difference}\n{:#}",
            self.reports[0]
        );
        assert!(!live.is_empty(), "nothing was recorded at all");
    }
}

/// A number in a JSON document; 0 when it is not there.
pub fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A built program of the workspace.
pub fn binary(name: &str) -> PathBuf {
    millrace_lab::binary(name).unwrap()
}

pub(crate) fn admin() -> SocketAddr {
    ([127, 0, 0, 1], ADMIN).into()
}

pub(crate) fn recorder(host: &Host, manners: Manners) -> Recorder {
    let config = RecorderConfig {
        http: vec![HTTP, HTTP_TOO],
        resp: vec![RESP],
        greeting: vec![GREETING],
        out: host.file("records.json"),
        manners,
    };
    Recorder::start(host, &config).unwrap()
}

pub(crate) fn ready(host: &Host, process: &mut Process) {
    ready_at(host, process, admin());
}

pub(crate) fn ready_at(host: &Host, process: &mut Process, admin: SocketAddr) {
    let outcome = wait_for("the daemon to be ready", PATIENCE, || {
        !process.is_running()
            || host
                .get(admin, "/readyz")
                .is_ok_and(|(status, _)| status == 200)
    });
    assert!(
        process.is_running(),
        "{} ended: {}",
        process.label(),
        process.log()
    );
    outcome.unwrap();
}
