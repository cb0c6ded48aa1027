//! Mistakes that people make: within three seconds of the first session the copier names the right cause and what to do.
//!
//! - `services`: the live service, and whose sessions are copied; `target`: where they go.
//! - `ways`: what lies between; `arp`: real servers that answer in place of their director.
//! - `daemons`: who is there, and with which rights; `certificates`: clocks and certificates; `disks`: full ones.

mod arp;
mod certificates;
mod daemons;
mod disks;
mod services;
mod target;
mod ways;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use millrace_certificates::Certificates;
use millrace_integration::{HTTP, binary};
use millrace_lab::load::{Kind, Load};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::{Host, Process, Stage, StageOptions, wait_for};
use serde_json::Value;

pub(crate) use self::certificates::clock_of;

/// The copier's admin port.
const ADMIN: u16 = 36_530;
const PATIENCE: Duration = Duration::from_secs(30);
/// From the first session to the cause; what is more than three seconds is room for a busy machine.
const NAMED_WITHIN: Duration = Duration::from_secs(20);

/// Hosts with a live service and a test service; a target that answers clients by way of the router.
pub(crate) struct World {
    stage: Stage,
    daemons: Vec<Process>,
    /// Whose certificates the daemons have; in plain text without.
    certificates: Option<Certificates>,
    _services: Vec<Recorder>,
}

impl World {
    pub(crate) fn new() -> Self {
        let stage = Stage::new(StageOptions::default()).unwrap();
        let services = [&stage.live[0].host, &stage.target.host].map(|host| {
            let config = RecorderConfig {
                http: vec![HTTP],
                resp: Vec::new(),
                greeting: Vec::new(),
                out: host.file("records.json"),
                manners: Manners::default(),
            };
            Recorder::start(host, &config).unwrap()
        });
        let commands = [
            "route del 198.18.1.0/24",
            "route add default via 198.18.2.1",
        ];
        let commands = commands.map(str::to_owned);
        stage.target.host.ip(&commands).unwrap();
        Self {
            stage,
            daemons: Vec::new(),
            certificates: None,
            _services: services.into(),
        }
    }

    pub(crate) fn live(&self) -> &Host {
        &self.stage.live[0].host
    }

    pub(crate) fn target(&self) -> &Host {
        &self.stage.target.host
    }

    fn assistant(&self) -> &Host {
        &self.stage.assistant.host
    }

    fn start(&mut self, host: &Host, program: &str, arguments: &[&str], admin: u16) {
        self.start_after(":", &[], (host, program), arguments, admin);
    }

    /// Starts a program on a host after `commands`, which see files of their own, with these variables.
    fn start_after(
        &mut self,
        commands: &str,
        environment: &[(&str, &str)],
        (host, program): (&Host, &str),
        arguments: &[&str],
        admin: u16,
    ) {
        let log = host.file(&format!("{program}-{}.log", self.daemons.len()));
        let script = format!("{commands} && exec {} \"$@\"", binary(program).display());
        let security = self.security(program);
        let security: Vec<&str> = security.iter().map(String::as_str).collect();
        let shell = ["--mount", "sh", "-c", &script, "sh"];
        let all = [&shell[..], &security, arguments].concat();
        let mut process = host.spawn("unshare", &all, environment, &log).unwrap();
        wait_for("a daemon", PATIENCE, || {
            let at = SocketAddr::from(([127, 0, 0, 1], admin));
            !process.is_running() || host.get(at, "/healthz").is_ok()
        })
        .unwrap();
        assert!(process.is_running(), "{}", process.log());
        self.daemons.push(process);
    }

    /// How a daemon speaks with the others.
    fn security(&self, program: &str) -> Vec<String> {
        let Some(certificates) = &self.certificates else {
            return vec!["--insecure".to_owned()];
        };
        let role = program.trim_start_matches("millrace-");
        let files = certificates.files(role);
        let named = [
            ("--ca", certificates.ca()),
            ("--cert", files.cert),
            ("--key", files.key),
        ];
        let words = named.map(|(option, file)| format!("{option}={}", file.display()));
        words.into()
    }

    /// Router-agent and interceptor on the target.
    pub(crate) fn guarded_target(&mut self) {
        let target = self.target().clone();
        let state = target.file("state").display().to_string();
        let agent = ["-b", "::", "--state-dir", &state];
        self.start(&target, "millrace-router-agent", &agent, 36_532);
        self.start(&target, "millrace-interceptor", &["-b", "::"], 36_531);
    }

    /// Certificates for all daemons, which they use from now on.
    fn certified(&mut self) -> &Certificates {
        let made = Certificates::open(self.target().file("pki"), "example.test").unwrap();
        for role in ["copier", "interceptor", "router-agent"] {
            made.renew(role, 30).unwrap();
        }
        self.certificates.insert(made)
    }

    /// The assistant's interceptor.
    fn assisted_target(&mut self) {
        let assistant = self.assistant().clone();
        let arguments = ["-b", "::", "-i", "eth0"];
        self.start(&assistant, "millrace-interceptor", &arguments, 36_531);
    }

    pub(crate) fn copier(&mut self, service: &str, more: &[&str]) {
        let live = self.live().clone();
        let service = ["-x", service, "--grace", "0"];
        let all = [&service[..], more].concat();
        self.start(&live, "millrace-copier", &all, ADMIN);
    }

    /// A few requests, as clients make them now and then.
    pub(crate) fn clients(&self) {
        let client = self.stage.client().unwrap();
        let from: Vec<_> = client.addresses.iter().map(|it| it.v4.into()).collect();
        self.requests(&client.host, &from);
    }

    /// The same from this host, with these addresses.
    fn requests(&self, host: &Host, from: &[IpAddr]) {
        let kind = Kind::OneRequest {
            count: 30,
            rate: Some(100.0),
            path: "/bytes/300".to_owned(),
        };
        self.load(host, from, kind);
    }

    fn load(&self, host: &Host, from: &[IpAddr], kind: Kind) {
        let [v4, v6] = self.stage.live[0].address.both();
        let live = if from[0].is_ipv4() { v4 } else { v6 };
        let to = SocketAddr::new(live, HTTP);
        let load = Load::new(kind, to).from(from);
        let summary = host.enter_async(move || load.run()).unwrap();
        assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    }

    fn status(&self) -> Value {
        let at = SocketAddr::from(([127, 0, 0, 1], ADMIN));
        self.live().get_json(at, "/status").unwrap()
    }

    /// How the copier says that it stands: its sentence, what is next, and what it says besides.
    fn headline(&self) -> Value {
        self.status()["headline"].clone()
    }

    /// Clients come, who notice nothing, and within moments the copier names the cause with these words; it names nothing
    /// else, or only what `beside` holds.
    fn names(&self, words: &[&str], beside: &[&str]) {
        self.names_to(&|| self.clients(), words, beside);
    }

    /// The same to clients of the test's own.
    fn names_to(&self, clients: &dyn Fn(), words: &[&str], beside: &[&str]) {
        let (_, also) = self.says(clients, &|said, _| words.iter().all(|it| said.contains(it)));
        let strange = also
            .iter()
            .find(|it| !beside.iter().any(|word| it.contains(word)));
        assert!(strange.is_none(), "{also:?}");
    }

    /// Clients come, and within moments the copier says beside its sentence this alone, and goes on copying.
    fn warns(&self, clients: &dyn Fn(), words: &[&str]) {
        let holds = |text: &String| words.iter().all(|it| text.contains(it));
        let copies = |said: &str| said.starts_with("copying 100% of");
        let (_, also) = self.says(clients, &|said, also| {
            copies(said) && also.iter().any(holds)
        });
        assert!(also.iter().all(holds), "{also:?}");
    }

    /// Clients come until what the copier says is `enough`: its sentence with what is next, and what it says beside.
    fn says(
        &self,
        clients: &dyn Fn(),
        enough: &dyn Fn(&str, &[String]) -> bool,
    ) -> (String, Vec<String>) {
        let began = Instant::now();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        loop {
            clients();
            let headline = self.headline();
            let (sentence, next) = (text(&headline["sentence"]), text(&headline["next"]));
            let said = format!("{sentence} next: {next}");
            let also = headline["also"].as_array().unwrap().iter();
            let also: Vec<String> = also.map(|it| text(&it["text"])).collect();
            let took = began.elapsed();
            if enough(&said, &also) {
                eprintln!("named after {took:.1?}: {said} {also:?}");
                return (said, also);
            }
            assert!(
                took < NAMED_WITHIN,
                "{said} {also:?}\n{}",
                self.daemons.last().unwrap().log()
            );
        }
    }
}

pub(crate) const USUAL: &str = "8080-198.18.2.20:8080";
pub(crate) const GUARDED: [&str; 4] = ["-s", "198.18.2.20", "--router-agent", "198.18.2.20"];
const ASSISTED: [&str; 2] = ["-s", "198.18.2.30"];
/// Drops what comes in for the test service.
const DROP: &str = "nft add table ip fw; nft 'add chain ip fw in { type filter hook input priority 0; }'; \
                    nft add rule ip fw in tcp dport 8080 drop";

/// A world whose target has router-agent and interceptor, changed, and its copier.
fn guarded(change: &str, service: &str, more: &[&str]) -> World {
    let mut world = World::new();
    world.guarded_target();
    world.target().check("sh", &["-c", change]).unwrap();
    world.copier(service, more);
    world
}

/// A world with an assistant; the target's routes are changed by `change`.
fn assisted(change: &str, service: &str) -> World {
    let mut world = World::new();
    world.assisted_target();
    world.target().check("sh", &["-c", change]).unwrap();
    world.copier(service, &ASSISTED);
    world
}

const TO_ASSISTANT: &str = "ip route add 198.18.1.0/24 via 198.18.2.30";
