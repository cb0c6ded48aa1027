//! Network namespaces, packets and a reader of rings for the tests.
//!
//! Every namespace is made by the test that uses it and removed when that test ends, also when it
//! fails. Addresses are of 198.18.0.0/15 and 2001:db8::/32.
#![allow(dead_code)]

pub mod packet;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use millrace_capture::{Filter, Frame, ResponseFilter, Ring, RingConfig, wait};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Whether namespaces can be made. Where they cannot the test is skipped, but not in CI.
pub fn ready(tools: &[&str]) -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        Some("root".to_owned())
    } else {
        let answers = |tool: &str, flag: &str| {
            let output = Command::new(tool).arg(flag).output();
            output.is_ok_and(|output| output.status.success())
        };
        // Each knows one of them.
        let is_missing = |tool: &&&str| !["-V", "--version"].iter().any(|flag| answers(tool, flag));
        let all = [&["ip"], tools].concat();
        all.iter().find(is_missing).map(|tool| (*tool).to_owned())
    };
    let Some(missing) = missing else { return true };
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs {missing}"
    );
    eprintln!("SKIPPED: needs {missing}");
    false
}

/// Runs `ip` with arguments separated by spaces.
pub fn ip(arguments: &str) {
    run("ip", arguments);
}

pub fn run(program: &str, arguments: &str) {
    let output = Command::new(program)
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {message}");
}

/// A network namespace with loopback up.
pub struct Namespace {
    pub name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mrcap{}-{count}", std::process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        // Else a device asks nobody for a MAC address before a second or two have passed.
        for scope in ["all", "default"] {
            namespace.exec(&format!("sysctl -qw net.ipv6.conf.{scope}.accept_dad=0"));
        }
        namespace
    }

    /// Runs `ip` inside.
    pub fn ip(&self, arguments: &str) {
        ip(&format!("-n {} {arguments}", self.name));
    }

    /// Runs `ip` inside; whether it succeeded.
    pub fn try_ip(&self, arguments: &str) -> bool {
        let all = format!("-n {} {arguments}", self.name);
        let output = Command::new("ip").args(all.split_whitespace()).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// Runs a program inside.
    pub fn exec(&self, command: &str) {
        ip(&format!("netns exec {} {command}", self.name));
    }

    /// Runs a function on a thread inside.
    pub fn enter<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                let file = File::open(path).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                function()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Two namespaces with a link between them: `eth0` in each.
pub struct Pair {
    pub a: Namespace,
    pub b: Namespace,
}

impl Pair {
    pub const A4: &str = "198.18.0.1";
    pub const B4: &str = "198.18.0.2";
    pub const A6: &str = "2001:db8::1";
    pub const B6: &str = "2001:db8::2";

    pub fn new() -> Self {
        let pair = Self {
            a: Namespace::new(),
            b: Namespace::new(),
        };
        link(&pair.a, "eth0", &pair.b, "eth0");
        for (namespace, v4, v6) in [(&pair.a, Self::A4, Self::A6), (&pair.b, Self::B4, Self::B6)] {
            address(namespace, "eth0", &format!("{v4}/24"));
            address(namespace, "eth0", &format!("{v6}/64"));
        }
        pair
    }
}

/// Connects two namespaces with a veth pair that is up.
pub fn link(a: &Namespace, a_name: &str, b: &Namespace, b_name: &str) {
    a.ip(&format!(
        "link add name {a_name} type veth peer name {b_name} netns {}",
        b.name
    ));
    a.ip(&format!("link set {a_name} up"));
    b.ip(&format!("link set {b_name} up"));
}

pub fn address(namespace: &Namespace, device: &str, address: &str) {
    let nodad = if address.contains(':') { "nodad" } else { "" };
    namespace.ip(&format!("address add {address} dev {device} {nodad}"));
}

/// A frame, copied out of the ring.
#[derive(Clone, Debug)]
pub struct Seen {
    pub data: Vec<u8>,
    pub original_len: usize,
    pub timestamp: u64,
    pub outgoing: bool,
    pub checksum_settled: bool,
    pub vlan: Option<u16>,
}

impl From<&Frame<'_>> for Seen {
    fn from(frame: &Frame<'_>) -> Self {
        Self {
            data: frame.data.to_vec(),
            original_len: frame.original_len as usize,
            timestamp: frame.timestamp,
            outgoing: frame.outgoing,
            checksum_settled: frame.checksum_settled,
            vlan: frame.vlan,
        }
    }
}

/// A ring on a namespace's `eth0` that keeps all of TCP, whole.
pub fn all_tcp(namespace: &Namespace) -> Ring {
    let filter = Filter::Responses(ResponseFilter {
        snap_len: u32::MAX,
        ..ResponseFilter::default()
    });
    namespace.enter(|| Ring::open(&RingConfig::new("eth0", filter)).unwrap())
}

/// Reads a ring until nothing has come for a while, or there is no end to it.
pub fn drain(ring: &mut Ring) -> Vec<Seen> {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut seen = Vec::new();
    let mut idle = 0;
    while idle < 3 && Instant::now() < deadline {
        let taken = ring.read(usize::MAX, |frame| seen.push(Seen::from(frame)));
        idle = if taken > 0 { 0 } else { idle + 1 };
        wait(&[ring.as_fd()], Some(Duration::from_millis(40))).unwrap();
    }
    seen
}
