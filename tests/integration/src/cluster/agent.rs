//! The router-agent of a real server, which keeps its responses from the real clients.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_lab::cluster::Cluster;
use millrace_lab::{Host, Place, Process};
use rustix::process::Signal;
use serde_json::Value;

use crate::consul::Use;
use crate::{binary, new_log, ready_at};

/// Where responses are diverted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A sink device of the real server itself.
    Sink,
    /// The assistant, which has the only interceptor.
    Link,
    /// A firewall queue of the real server itself.
    Nfqueue,
}

/// Seconds that a lease outlives its holder: longer than any pause of a test but the last.
const GRACE: &str = "8";

/// How a real server diverts, and the agent that does it, while it runs.
pub(super) struct Agent {
    host: Host,
    options: Vec<String>,
    consul: Use,
    process: Option<Process>,
}

impl Agent {
    /// An agent that does not run yet.
    pub(super) fn new(cluster: &Cluster, place: &Place, mode: Mode, consul: Use) -> Self {
        let both = |addresses: millrace_lab::Addresses| {
            let [v4, v6] = addresses.both();
            format!("{v4},{v6}")
        };
        let passed = [cluster.director.place().address, cluster.tester.address].map(both);
        let mut options = vec![
            "--pass-list".to_owned(),
            passed.join(","),
            "--grace".to_owned(),
            GRACE.to_owned(),
            "--state-dir".to_owned(),
            place.host.file("agent").display().to_string(),
        ];
        options.extend(match mode {
            Mode::Sink => vec!["--mode=sink".to_owned()],
            Mode::Link => vec![
                "--mode=assistant".to_owned(),
                format!("--assistant={}", both(cluster.assistant.address)),
            ],
            Mode::Nfqueue => vec!["--mode=nfqueue".to_owned()],
        });
        Self {
            host: place.host.clone(),
            options,
            consul,
            process: None,
        }
    }

    /// Starts it and waits until it is ready.
    pub(super) fn start(&mut self) {
        let admin = admin_address().to_string();
        let mut arguments = vec!["--insecure", "-b", "::", "--admin", &admin];
        arguments.extend(self.options.iter().map(String::as_str));
        arguments.extend(self.consul.arguments.iter().map(String::as_str));
        let log = new_log(&self.host, "router-agent");
        let environment = self.consul.environment();
        let process = self.host.spawn(program(), &arguments, &environment, &log);
        let mut process = process.unwrap();
        ready_at(&self.host, &mut process, admin_address());
        self.process = Some(process);
    }

    /// Ends it by SIGKILL.
    pub(super) fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    /// Sends it a signal.
    pub(super) fn signal(&mut self, signal: Signal) {
        self.process.as_mut().unwrap().signal(signal).unwrap();
    }

    /// Ends it by SIGTERM.
    pub(super) fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        let status = process.terminate(Duration::from_secs(10)).unwrap();
        assert!(status.success(), "{status}: {}", process.log());
    }

    /// Diverts a list of services by hand, without a daemon: nobody holds them.
    pub(super) fn apply(&self, services: &str) {
        let mut arguments = vec!["apply", "--services", services];
        arguments.extend(self.options.iter().map(String::as_str));
        self.host.check(program(), &arguments).unwrap();
    }

    /// Its state, while it runs.
    pub(super) fn status(&self) -> Option<Value> {
        self.process.as_ref()?;
        Some(self.host.get_json(admin_address(), "/status").unwrap())
    }
}

fn program() -> PathBuf {
    binary("millrace-router-agent")
}

/// Beside the interceptor's on the same host.
fn admin_address() -> SocketAddr {
    ([127, 0, 0, 1], 36_532).into()
}
