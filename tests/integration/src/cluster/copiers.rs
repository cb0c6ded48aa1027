//! The copiers of a cluster scene. Which interceptors there are stands in a configuration file, so that it can change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_lab::cluster::{Cluster, Forwarding};
use millrace_lab::{Process, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::consul::Use;
use crate::{Family, admin, binary, new_log, ready};

/// A running copier.
pub(super) struct Copier {
    pub(super) live: usize,
    process: Process,
    config: PathBuf,
    report: PathBuf,
}

impl Copier {
    pub(super) fn start(
        cluster: &Cluster,
        live: usize,
        interceptors: &[String],
        agents: &[String],
        consul: &Use,
        more: &[&str],
    ) -> Self {
        let host = &cluster.live[live].host;
        let config = host.file("copier.toml");
        match consul.arguments.is_empty() {
            true => write(&config, interceptors),
            false => std::fs::write(&config, "").unwrap(),
        }
        let report = host.file("report.json");
        let (services, admin) = (services(cluster, live), admin().to_string());
        let (config_name, report_name) =
            (config.display().to_string(), report.display().to_string());
        let mut arguments = vec![
            "-x",
            &services,
            "--config",
            &config_name,
            "--insecure",
            "--admin",
            &admin,
            "--report",
            &report_name,
        ];
        if cluster.forwarding() == Forwarding::AddressTranslation {
            arguments.push("--nat");
        }
        let agents = agents.join(",");
        if !agents.is_empty() && consul.arguments.is_empty() {
            arguments.extend(["--router-agent", &agents]);
        }
        arguments.extend(consul.arguments.iter().map(String::as_str));
        arguments.extend(more);
        let log = new_log(host, "copier");
        let process = host
            .spawn(
                binary("millrace-copier"),
                &arguments,
                &consul.environment(),
                &log,
            )
            .unwrap();
        Self {
            live,
            process,
            config,
            report,
        }
    }

    /// Waits until it is ready.
    pub(super) fn wait_ready(&mut self, cluster: &Cluster) {
        ready(&cluster.live[self.live].host, &mut self.process);
    }

    /// Waits until it answers at all.
    pub(super) fn wait_healthy(&self, cluster: &Cluster) {
        let host = &cluster.live[self.live].host;
        let answers = || {
            host.get(admin(), "/healthz")
                .is_ok_and(|(status, _)| status == 200)
        };
        let healthy = wait_for("the copier to answer", Duration::from_secs(15), answers);
        healthy.unwrap_or_else(|error| panic!("{error}: {}", self.log()));
    }

    pub(super) fn status(&self, cluster: &Cluster) -> Value {
        let host = &cluster.live[self.live].host;
        host.get_json(admin(), "/status").unwrap()
    }

    pub(super) fn log(&self) -> String {
        self.process.log()
    }

    /// Names other interceptors in its configuration, and tells it so.
    pub(super) fn reread(&mut self, interceptors: &[String]) {
        write(&self.config, interceptors);
        self.process.signal(Signal::HUP).unwrap();
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal).unwrap();
    }

    /// Waits until it ends by itself: its exit code, and its log.
    pub(super) fn ended(mut self) -> (Option<i32>, String) {
        let status = self.process.wait(Duration::from_secs(30)).unwrap();
        (status.code(), self.process.log())
    }

    pub(super) fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    pub(super) fn kill(mut self) {
        self.process.kill().unwrap();
    }

    /// Ends it with SIGTERM; gives its report.
    pub(super) fn finish(mut self) -> Value {
        let status = self.process.terminate(Duration::from_secs(60)).unwrap();
        assert!(status.success(), "copier: {status}\n{}", self.process.log());
        let text = std::fs::read_to_string(&self.report).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

fn write(config: &PathBuf, interceptors: &[String]) {
    let text = format!("interceptors = {interceptors:?}\n");
    std::fs::write(config, text).unwrap();
}

/// What `-x` says: every service of both families, to the same port of the virtual address.
fn services(cluster: &Cluster, live: usize) -> String {
    let (live, vip) = (cluster.live[live].address, cluster.vip());
    let mut services = Vec::new();
    for port in cluster.ports().iter().copied() {
        for family in Family::BOTH {
            let from = SocketAddr::new(family.of(live), port);
            let to = SocketAddr::new(family.of(vip), port);
            services.push(format!("{from}-{to}"));
        }
    }
    services.join(",")
}
