//! A target host with the world in front of it, for tests of what the router-agent does to it.
//!
//! ```text
//!   outside ─────────── switch ─────────── target          (assistant on the same switch)
//!   198.18.2.1  gateway              198.18.2.20 eth0
//!   198.18.2.40 tester               198.18.5.1  lo (VIP)
//!   198.18.1.x  real clients
//! ```
//! Whatever the target sends to a real client, of whatever protocol, arrives at `outside` and is counted
//! there, by a rule of its firewall: that is a leak.

use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use millrace_channel::hold::{self, HoldConfig, HoldEvent};
use millrace_channel::transport::Security;
use millrace_daemon::incarnation::Incarnation;
use millrace_lab::{Host, Lab, Link, Process, wait_for};
use millrace_notation::address::HostPort;
use millrace_proto::v1::{Need, Prefix, ServiceAddress};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::Value;

use crate::Family;

/// The tested service's port.
pub const PORT: u16 = 8080;
/// Where the agent listens.
pub const AGENT_PORT: u16 = 36_526;
/// Where the agent's admin port is.
pub const AGENT_ADMIN: u16 = 36_532;

/// The VIP of a family.
pub fn vip(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 5, 1].into(),
        Family::V6 => "2001:db8:5::1".parse().unwrap(),
    }
}

/// The tested service.
pub fn service(family: Family) -> SocketAddr {
    SocketAddr::new(vip(family), PORT)
}

/// A tester, or what checks health: it is in the pass-list.
pub fn tester(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 2, 40].into(),
        Family::V6 => "2001:db8:2::40".parse().unwrap(),
    }
}

/// A real client.
pub fn client(family: Family) -> IpAddr {
    match family {
        Family::V4 => [198, 18, 1, 10].into(),
        Family::V6 => "2001:db8:1::10".parse().unwrap(),
    }
}

/// The pass-list, as an option.
pub const PASS_LIST: &str = "198.18.2.1,198.18.2.40,2001:db8:2::1,2001:db8:2::40";
/// Both services, as an option.
pub const SERVICES: &str = "198.18.5.1:8080,[2001:db8:5::1]:8080";

/// Into the sink, as options of the agent.
pub const SINK: &[&str] = &["--mode", "sink"];
/// To the assistant, as options of the agent.
pub const ASSISTANT: &[&str] = &[
    "--mode",
    "assistant",
    "--assistant",
    "198.18.2.30,2001:db8:2::30",
];
/// To a firewall queue, as options of the agent.
pub const NFQUEUE: &[&str] = &["--mode", "nfqueue"];
/// Every mode.
pub const MODES: [(&str, &[&str]); 3] = [
    ("sink", SINK),
    ("assistant", ASSISTANT),
    ("nfqueue", NFQUEUE),
];

/// A command of the agent with a mode's options and the pass-list.
pub fn with<'a>(command: &[&'a str], mode: &[&'a str]) -> Vec<&'a str> {
    [command, mode, &["-x", PASS_LIST]].concat()
}

/// The hosts.
pub struct TargetHost {
    /// The target.
    pub target: Host,
    /// Everybody else: gateway, tester, real clients.
    pub outside: Host,
    /// Where diverted packets may go, and end.
    pub assistant: Host,
    _links: Vec<Link>,
    _lab: Lab,
}

impl TargetHost {
    /// Makes them; leaks are counted from the beginning.
    pub fn new() -> Self {
        let lab = Lab::new().unwrap();
        let hosts = ["target", "outside", "assistant"].map(|name| lab.host(name).unwrap());
        let [target, outside, assistant] = hosts;
        let switch = lab.switch("segment").unwrap();
        let links = [
            (&target, "198.18.2.20", "2001:db8:2::20"),
            (&outside, "198.18.2.1", "2001:db8:2::1"),
            (&assistant, "198.18.2.30", "2001:db8:2::30"),
        ]
        .map(|(host, v4, v6)| {
            let addresses = [(v4.parse().unwrap(), 24), (v6.parse().unwrap(), 64)];
            switch.attach(host, "eth0", &addresses).unwrap()
        });
        for family in Family::BOTH {
            let bits = if family == Family::V4 { 32 } else { 128 };
            target.add_address("lo", vip(family), bits).unwrap();
            outside
                .add_address("eth0", tester(family), if bits == 32 { 24 } else { 64 })
                .unwrap();
            outside.add_address("lo", client(family), bits).unwrap();
        }
        target
            .ip(&[
                "route add default via 198.18.2.1".to_owned(),
                "route add ::/0 via 2001:db8:2::1".to_owned(),
            ])
            .unwrap();
        outside
            .ip(&[
                "route add 198.18.5.1 via 198.18.2.20".to_owned(),
                "route add 2001:db8:5::1/128 via 2001:db8:2::20".to_owned(),
            ])
            .unwrap();
        let all = Self {
            target,
            outside,
            assistant,
            _links: links.into(),
            _lab: lab,
        };
        for (family, program) in programs() {
            let [clients, from, to] = [
                match family {
                    Family::V4 => "198.18.1.0/24".to_owned(),
                    Family::V6 => "2001:db8:1::/64".to_owned(),
                },
                vip(family).to_string(),
                tester(family).to_string(),
            ];
            // Nothing of the target may reach a client, of whatever protocol.
            let leak = ["-i", "eth0", "-d", &clients];
            let seen = ["-p", "tcp", "-s", &from, "!", "-d", &to];
            for (host, name, rule) in [
                (&all.outside, "LEAK", &leak[..]),
                (&all.assistant, "SEEN", &seen[..]),
            ] {
                host.check(program, &["-t", "mangle", "-N", name]).unwrap();
                let rule = [&["-t", "mangle", "-A", "PREROUTING"], rule, &["-j", name]].concat();
                host.check(program, &rule).unwrap();
            }
        }
        all
    }

    /// Packets that reached a real client's network, both families.
    pub fn leaked(&self) -> u64 {
        count(&self.outside, "LEAK")
    }

    /// Packets of the service that reached the assistant.
    pub fn at_assistant(&self) -> u64 {
        count(&self.assistant, "SEEN")
    }

    /// Packets that went into the sink; 0 if there is none.
    pub fn in_sink(&self) -> u64 {
        let shown = self
            .target
            .run("ip", &["-j", "-s", "link", "show", "dev", "millrace0"]);
        let shown: Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap_or_default();
        crate::number(&shown, "/0/stats64/tx/packets")
    }

    /// Where the agent of the target keeps its state.
    pub fn state_dir(&self) -> PathBuf {
        self.target.file("state")
    }

    /// Runs the agent once; standard output, or what it said on standard error.
    pub fn agent(&self, arguments: &[&str]) -> Result<String, String> {
        let state = self.state_dir();
        let mut all = vec!["--state-dir", state.to_str().unwrap()];
        all.extend(arguments);
        let program = crate::binary("millrace-router-agent");
        let output = self.target.run(program, &all).unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    /// Starts the agent as a daemon, ready.
    pub fn start_agent(&self, arguments: &[&str]) -> Process {
        let state = self.state_dir();
        let mut all = vec![
            "--insecure",
            "-b",
            "::",
            "--state-dir",
            state.to_str().unwrap(),
        ];
        all.extend(arguments);
        let log = self.target.file(&format!("agent-{}.log", arguments.len()));
        let program = crate::binary("millrace-router-agent");
        let mut process = self.target.spawn(program, &all, &[], &log).unwrap();
        let ready = wait_for("the agent to be ready", Duration::from_secs(20), || {
            let answer = self
                .target
                .get(([127, 0, 0, 1], AGENT_ADMIN).into(), "/readyz");
            !process.is_running() || answer.is_ok_and(|(status, _)| status == 200)
        });
        assert!(process.is_running(), "the agent ended: {}", process.log());
        ready.unwrap();
        process
    }

    /// The agent's state.
    pub fn agent_status(&self) -> Value {
        let admin = ([127, 0, 0, 1], AGENT_ADMIN).into();
        self.target.get_json(admin, "/status").unwrap()
    }

    /// Waits until `what` holds of the agent's state.
    pub fn wait_status(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        wait_for(what, Duration::from_secs(20), || {
            holds(&self.agent_status())
        })
        .unwrap_or_else(|error| panic!("{error}: {:#}", self.agent_status()));
    }

    /// Everything of the target that an agent may change: rules, routes, devices, addresses, all
    /// network settings, the firewall.
    pub fn picture(&self) -> String {
        let run = |program: &str, arguments: &[&str]| {
            let output = self.target.run(program, arguments).unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let mut picture = String::new();
        for family in ["-4", "-6"] {
            picture += &run("ip", &[family, "-d", "rule"]);
            picture += &run("ip", &[family, "-d", "route", "show", "table", "all"]);
        }
        picture += &run("ip", &["-d", "link"]);
        picture += &run("ip", &["address"]);
        for program in ["iptables-save", "ip6tables-save"] {
            let rules = run(program, &[]);
            let own = |line: &&str| line.starts_with("-A") || line.contains(" - [");
            picture.extend(rules.lines().filter(own).map(|line| format!("{line}\n")));
        }
        for line in run("nft", &["list", "tables"]).lines() {
            // Of the floor only that it is there: it counts.
            picture.extend(line.contains("millrace").then(|| format!("{line}\n")));
        }
        // What changes by itself.
        let volatile = |line: &str| line.contains("nf_conntrack_count");
        let settings = run("sysctl", &["-a", "-r", "^net\\."]);
        picture.extend(
            settings
                .lines()
                .filter(|line| !volatile(line))
                .map(|line| format!("{line}\n")),
        );
        picture
    }

    /// A server of the tested service: it sends a byte to whoever connects, and goes on.
    pub fn serve(&self) -> Server {
        let stop = Arc::new(AtomicBool::new(false));
        for family in Family::BOTH {
            let listener = self
                .target
                .enter(move || TcpListener::bind(service(family)));
            let listener = listener.unwrap().unwrap();
            let stop = stop.clone();
            std::thread::spawn(move || accept(&listener, &stop));
        }
        Server(stop)
    }

    /// A connection to the service from one of the outside's addresses.
    pub fn connect(&self, from: IpAddr, patience: Duration) -> std::io::Result<TcpStream> {
        let to = SocketAddr::new(
            vip(if from.is_ipv4() {
                Family::V4
            } else {
                Family::V6
            }),
            PORT,
        );
        self.outside
            .enter(move || connect_from(from, to, patience))
            .unwrap()
    }

    /// Whether the service answers to an address.
    pub fn answers(&self, from: IpAddr) -> bool {
        let connected = self.connect(from, Duration::from_millis(700));
        connected.is_ok_and(|mut stream| {
            let _ = stream.set_read_timeout(Some(Duration::from_millis(700)));
            stream.read_exact(&mut [0]).is_ok()
        })
    }

    /// Sends SYNs to the service from real clients' addresses until it is dropped: what copied
    /// connections look like to the target.
    pub fn copied_traffic(&self) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = Family::BOTH.map(|family| {
            let (outside, stop) = (self.outside.clone(), stop.clone());
            std::thread::spawn(move || {
                let knock = || {
                    // In vain: the answer goes elsewhere.
                    let _ =
                        connect_from(client(family), service(family), Duration::from_millis(30));
                };
                while !stop.load(Ordering::Relaxed) {
                    outside.enter(knock).unwrap();
                    // One that is answered after all takes no time.
                    std::thread::sleep(Duration::from_millis(10));
                }
            })
        });
        Traffic {
            stop,
            threads: threads.into(),
        }
    }

    /// The copier is gone: nothing comes from the real clients' addresses any more.
    pub fn silence_clients(&self) {
        for (family, program) in programs() {
            let from = client(family).to_string();
            let rule = [
                "-t", "mangle", "-A", "OUTPUT", "-s", &from, "-p", "tcp", "-j", "DROP",
            ];
            self.outside.check(program, &rule).unwrap();
        }
    }

    /// Holds, from the outside.
    pub fn hold(&self, id: &str, need: Need) -> Holder {
        let to = SocketAddr::from(([198, 18, 2, 20], AGENT_PORT));
        let mut config = HoldConfig::new(HostPort::from(to), Security::Insecure, id, need);
        config.incarnation = Incarnation::start();
        let (events, seen) = channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = self.outside.start(move || async move {
            let runtime = tokio::runtime::Handle::current();
            let hold = hold::spawn(config, &runtime, move |event| drop(events.send(event)));
            let _ = stopped.await;
            drop(hold);
        });
        Holder {
            seen,
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Default for TargetHost {
    fn default() -> Self {
        Self::new()
    }
}

fn programs() -> [(Family, &'static str); 2] {
    [(Family::V4, "iptables"), (Family::V6, "ip6tables")]
}

/// Packets that came into a chain, both families.
fn count(host: &Host, chain: &str) -> u64 {
    let of_family = |program: &str| -> u64 {
        let list = ["-t", "mangle", "-nvxL", "PREROUTING"];
        let listed = host.check(program, &list).unwrap();
        let line = listed.lines().find(|line| line.contains(chain)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    programs()
        .map(|(_, program)| of_family(program))
        .iter()
        .sum()
}

fn accept(listener: &TcpListener, stop: &Arc<AtomicBool>) {
    listener.set_nonblocking(true).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let stop = stop.clone();
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed)
                && std::io::Write::write_all(&mut stream, b"x").is_ok()
            {
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }
}

/// A connection from an address of the host that it is called on.
///
/// # Errors
/// The kernel's, or that there was no answer in time.
pub fn connect_from(
    from: IpAddr,
    to: SocketAddr,
    patience: Duration,
) -> std::io::Result<TcpStream> {
    let family = if from.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let fd: OwnedFd = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&fd, &SocketAddr::new(from, 0))?;
    // connect(2) waits as long as sending may take.
    set_socket_timeout(&fd, Timeout::Send, Some(patience))?;
    connect(&fd, &to)?;
    Ok(TcpStream::from(fd))
}

/// A server that ends when it is dropped.
pub struct Server(Arc<AtomicBool>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Traffic that ends when it is dropped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A holder; its lease is given up when it is dropped.
pub struct Holder {
    seen: Receiver<HoldEvent>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<millrace_lab::Result<()>>>,
}

impl Holder {
    /// The next thing that happens to it.
    pub fn next(&self) -> HoldEvent {
        self.seen.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    /// Waits until it holds; what is to be mended.
    pub fn held(&self) -> Vec<String> {
        loop {
            match self.next() {
                HoldEvent::Held { warnings, .. } => return warnings,
                HoldEvent::Lost { .. } | HoldEvent::Troubled { .. } | HoldEvent::Mended => {}
                HoldEvent::Refused { reason, .. } => panic!("refused: {reason}"),
            }
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A need as it goes over the wire.
pub fn need(services: &[SocketAddr], pool: &[&str]) -> Need {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let pool = pool.iter().map(|text| {
        let cidr: millrace_notation::address::Cidr = text.parse().unwrap();
        Prefix {
            ip: octets(cidr.first()).into(),
            length: cidr.length().into(),
        }
    });
    Need {
        services: services
            .iter()
            .map(|service| ServiceAddress {
                ip: octets(service.ip()).into(),
                port: service.port().into(),
            })
            .collect(),
        pool: pool.collect(),
        ..Need::default()
    }
}

/// The lines in which two pictures ([`TargetHost::picture`]) differ.
pub fn difference(before: &str, after: &str) -> String {
    let missing = before
        .lines()
        .filter(|line| !after.lines().any(|it| it == *line));
    let new = after
        .lines()
        .filter(|line| !before.lines().any(|it| it == *line));
    let missing = missing.map(|line| format!("- {line}"));
    missing
        .chain(new.map(|line| format!("+ {line}")))
        .collect::<Vec<_>>()
        .join("\n")
}
