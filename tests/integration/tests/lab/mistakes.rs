//! Mistakes that people make: within three seconds of the first session the copier names the right cause and what to do.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use millrace_integration::{HTTP, binary, can_run};
use millrace_lab::load::{Kind, Load};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::{Host, Process, Stage, StageOptions, wait_for};
use serde_json::Value;

/// The copier's admin port.
const ADMIN: u16 = 36_530;
const PATIENCE: Duration = Duration::from_secs(30);
/// From the first session to the cause; what is more than three seconds is room for a busy machine.
const NAMED_WITHIN: Duration = Duration::from_secs(20);

/// Hosts with a live service and a test service; a target that answers clients by way of the router.
struct World {
    stage: Stage,
    daemons: Vec<Process>,
    _services: Vec<Recorder>,
}

impl World {
    fn new() -> Self {
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
            _services: services.into(),
        }
    }

    fn live(&self) -> &Host {
        &self.stage.live[0].host
    }

    fn target(&self) -> &Host {
        &self.stage.target.host
    }

    fn assistant(&self) -> &Host {
        &self.stage.assistant.host
    }

    fn start(&mut self, host: &Host, program: &str, arguments: &[&str], admin: u16) {
        let log = host.file(&format!("{program}-{}.log", self.daemons.len()));
        let all = [&["--insecure"][..], arguments].concat();
        let mut process = host.spawn(binary(program), &all, &[], &log).unwrap();
        wait_for("a daemon", PATIENCE, || {
            let at = SocketAddr::from(([127, 0, 0, 1], admin));
            !process.is_running() || host.get(at, "/healthz").is_ok()
        })
        .unwrap();
        assert!(process.is_running(), "{}", process.log());
        self.daemons.push(process);
    }

    /// Router-agent and interceptor on the target.
    fn guarded_target(&mut self) {
        let target = self.target().clone();
        let state = target.file("state").display().to_string();
        let agent = ["-b", "::", "--state-dir", &state];
        self.start(&target, "millrace-router-agent", &agent, 36_532);
        self.start(&target, "millrace-interceptor", &["-b", "::"], 36_531);
    }

    /// The assistant's interceptor.
    fn assisted_target(&mut self) {
        let assistant = self.assistant().clone();
        let arguments = ["-b", "::", "-i", "eth0"];
        self.start(&assistant, "millrace-interceptor", &arguments, 36_531);
    }

    fn copier(&mut self, service: &str, more: &[&str]) {
        let live = self.live().clone();
        let service = ["-x", service, "--grace", "0"];
        let all = [&service[..], more].concat();
        self.start(&live, "millrace-copier", &all, ADMIN);
    }

    /// A few requests, as clients make them now and then.
    fn clients(&self) {
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
        let to = SocketAddr::new(self.stage.live[0].address.v4.into(), HTTP);
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
        let began = Instant::now();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        loop {
            clients();
            let headline = self.headline();
            let said = format!(
                "{} next: {}",
                text(&headline["sentence"]),
                text(&headline["next"])
            );
            let took = began.elapsed();
            if words.iter().all(|word| said.contains(word)) {
                eprintln!("named after {took:.1?}: {said}");
                let also = headline["also"].as_array().unwrap().iter();
                let also: Vec<String> = also.map(|it| text(&it["text"])).collect();
                let strange = also
                    .iter()
                    .find(|it| !beside.iter().any(|word| it.contains(word)));
                assert!(strange.is_none(), "{also:?}");
                return;
            }
            assert!(
                took < NAMED_WITHIN,
                "{words:?}: {said}\n{}",
                self.daemons.last().unwrap().log()
            );
        }
    }
}

const USUAL: &str = "8080-198.18.2.20:8080";
const GUARDED: [&str; 4] = ["-s", "198.18.2.20", "--router-agent", "198.18.2.20"];
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

#[test]
fn a_wrong_address_or_port_of_the_target() {
    if !can_run() {
        return;
    }
    guarded(":", "8080-198.18.2.99:8080", &GUARDED).names(
        &[
            "198.18.2.99",
            "this host does not have that address",
            "ip address add 198.18.2.99/32 dev lo",
        ],
        &[],
    );
    assisted(TO_ASSISTANT, "8080-198.18.2.99:8080").names(&["198.18.2.99", "ip neigh"], &[]);
    let closed = [
        "refused",
        "nothing listens on 198.18.2.20:8099",
        "ss -ltn 'sport = :8099'",
    ];
    guarded(":", "8080-198.18.2.20:8099", &GUARDED).names(&closed, &[]);
    assisted(TO_ASSISTANT, "8080-198.18.2.20:8099").names(&closed, &[]);
}

#[test]
fn a_route_that_was_forgotten_or_leads_to_another_host() {
    if !can_run() {
        return;
    }
    let words = [
        "not diverted: 198.18.2.20:8080 takes connections of this host",
        "`ip route get CLIENT from 198.18.2.20 ipproto tcp sport 8080` must lead to 198.18.2.30",
    ];
    assisted(":", USUAL).names(&words, &[]);
    assisted("ip route add 198.18.1.0/24 via 198.18.2.1", USUAL).names(&words, &[]);
}

#[test]
fn an_assistant_that_forwards() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world
        .assistant()
        .sysctl("net/ipv4/ip_forward", "1")
        .unwrap();
    world.assisted_target();
    world.copier(USUAL, &ASSISTED);
    world.names(&["this host forwards packets", "sysctl -w"], &[]);
}

#[test]
fn a_target_that_drops_copies() {
    if !can_run() {
        return;
    }
    let strict = "ip link add other type veth peer other2; ip link set other up; ip link set other2 up; \
                  ip route add 198.18.2.1 dev eth0; ip route replace default dev other; \
                  sysctl -qw net.ipv4.conf.eth0.rp_filter=1";
    guarded(strict, USUAL, &GUARDED).names(
        &[
            "reverse-path filter dropped it",
            "sysctl -w net/ipv4/conf/eth0/rp_filter=2",
        ],
        &["rp_filter"],
    );
    guarded(DROP, USUAL, &GUARDED)
        .names(&["a firewall there dropped it", "`nft list ruleset`"], &[]);
    assisted(&format!("{TO_ASSISTANT}; {DROP}"), USUAL).names(
        &[
            "198.18.2.20:8080 does not answer this host either",
            "`nft list ruleset`",
        ],
        &[],
    );
}

#[test]
fn interceptors_that_are_not_there() {
    if !can_run() {
        return;
    }
    let wrong_port = ["-s", "198.18.2.20:36599", "--router-agent", "198.18.2.20"];
    guarded(":", USUAL, &wrong_port).names(
        &[
            "198.18.2.20:36599 refuses the connection",
            "name another one with -s",
        ],
        &[],
    );
    let mut world = World::new();
    world.copier(USUAL, &GUARDED);
    world.names(
        &[
            "198.18.2.20:36524 refuses the connection",
            "start millrace-interceptor",
        ],
        &[],
    );
    // Nothing has to be started again.
    world.guarded_target();
    world.names(&["copying 100% of"], &[]);
}

#[test]
fn a_live_service_that_is_elsewhere() {
    if !can_run() {
        return;
    }
    guarded(":", "8081-198.18.2.20:8080", &GUARDED).names(
        &[
            "nothing on this host listens on port 8081, but on 8080",
            "tcpdump -ni any tcp port 8081",
        ],
        &[],
    );
    guarded(":", "198.18.2.77:8080-198.18.2.20:8080", &GUARDED).names(
        &[
            "198.18.2.77 is no address of this host, which has 198.18.2.10",
            "check -x and -i",
        ],
        &[],
    );
}

#[test]
fn clients_of_another_family_than_the_target() {
    if !can_run() {
        return;
    }
    guarded(":", "8080-[2001:db8:2::20]:8080", &GUARDED).names(
        &[
            "no packet of a client",
            "only clients of IPv6 are copied",
            "(-c)",
        ],
        &[],
    );
}

#[test]
fn two_copiers_with_one_name() {
    if !can_run() {
        return;
    }
    let named = ["--id", "live"];
    let mut world = guarded(":", USUAL, &[&GUARDED[..], &named].concat());
    world.names(&["copying 100% of"], &[]);
    let other = world.target().clone();
    let service = [
        "-x",
        "9090-198.18.2.30:8080",
        "-s",
        "198.18.2.20",
        "-i",
        "eth0",
    ];
    let arguments = [&service[..], &named].concat();
    world.start(&other, "millrace-copier", &arguments, ADMIN);
    world.names(&["took over", "another copier", "--id"], &[]);
}

#[test]
fn a_target_that_is_the_live_service() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let arguments = [
        "-x",
        "8080-198.18.2.10:8080",
        "-s",
        "198.18.2.30",
        "--insecure",
    ];
    let output = world
        .live()
        .run(binary("millrace-copier"), &arguments)
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("the target is itself the live service"),
        "{said}"
    );
}

#[test]
fn clients_in_the_targets_own_network() {
    if !can_run() {
        return;
    }
    // The target answers them at once, past the assistant.
    let world = assisted(TO_ASSISTANT, USUAL);
    let router = &world.stage.router;
    let near = [router.address.v4.into()];
    let words = ["not diverted", "its own network", "--router-agent", "(-c)"];
    world.names_to(&|| world.requests(&router.host, &near), &words, &[]);
}

#[test]
fn a_service_that_is_used_on_loopback_alone() {
    if !can_run() {
        return;
    }
    let world = guarded(":", USUAL, &GUARDED);
    let live = world.live().clone();
    let words = ["refused as `loopback`", "(-H)"];
    world.names_to(
        &|| {
            live.check("curl", &["-s", "http://127.0.0.1:8080/bytes/300"])
                .unwrap();
        },
        &words,
        &[],
    );
}

#[test]
fn a_copier_without_privileges() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let program = binary("millrace-copier").display().to_string();
    let line = format!("{program} -x {USUAL} -s 198.18.2.20 --insecure --control none");
    let output = world
        .live()
        .run("su", &["nobody", "-s", "/bin/sh", "-c", &line])
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_NET_RAW"), "{said}");
}

#[test]
fn a_way_that_swallows_long_packets_costs_no_byte() {
    if !can_run() {
        return;
    }
    // The MTU of a router on the way is 1400, and it says nothing.
    let swallow = "nft add table ip way; nft 'add chain ip way in { type filter hook prerouting priority -300; }'; \
                   nft add rule ip way in tcp dport 8080 ip length gt 1400 counter drop";
    let world = guarded(swallow, USUAL, &GUARDED);
    world.names(&["copying 100% of"], &[]);
    let client = world.stage.client().unwrap();
    let from: Vec<IpAddr> = client.addresses.iter().map(|it| it.v4.into()).collect();
    world.load(
        &client.host,
        &from,
        Kind::Upload {
            size: 20_000,
            count: 20,
        },
    );
    wait_for("every byte", PATIENCE, || {
        let report = &world.status()["report"];
        report["bytes"]["wanted"].as_u64() > Some(400_000) && report["fidelity"] == 1.0
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", world.status()));
    let counter = world
        .target()
        .check("nft", &["list", "table", "ip", "way"])
        .unwrap();
    assert!(!counter.contains("packets 0 "), "{counter}");
}
