//! What runs at a real server: the recording application, the router-agent and the interceptor.

use std::net::SocketAddr;
use std::path::PathBuf;

use millrace_lab::cluster::{Cluster, Forwarding};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::records::RecordedStreams;
use millrace_lab::{DEVICE, Host, Place, Process};
use rustix::process::Signal;
use serde_json::Value;

use super::agent::{Agent, Mode};
use crate::consul::{Consul, Use};
use crate::{GREETING, HTTP, HTTP_TOO, RESP, admin, binary, new_log, ready};

/// One real server.
pub struct Real {
    host: Host,
    application: Option<Recorder>,
    /// The records of every start of the application.
    files: Vec<PathBuf>,
    pub(super) agent: Agent,
    interceptor: Option<Interceptor>,
    consul: Use,
    mode: Mode,
    /// Whether the copiers are told of its interceptor.
    pub is_named: bool,
}

impl Real {
    /// Starts everything, whether the agent is to run or diverts by hand: behind address translation a copier does
    /// not know what to ask an agent for, unless it has a client pool.
    pub(super) fn start(
        cluster: &Cluster,
        index: usize,
        mode: Mode,
        consul: Option<&Consul>,
    ) -> Self {
        let place = &cluster.real_servers[index];
        let used = |role| {
            let registered = consul.map(|it| it.registered(role, &place.host));
            registered.unwrap_or_default()
        };
        let mut real = Self {
            host: place.host.clone(),
            application: None,
            files: Vec::new(),
            agent: Agent::new(cluster, place, mode, used("router-agent")),
            interceptor: None,
            consul: used("interceptor"),
            mode,
            is_named: true,
        };
        real.start_application();
        match cluster.forwarding() {
            Forwarding::DirectRouting => real.agent.start(),
            Forwarding::AddressTranslation => real.agent.apply(&services(cluster, place)),
        }
        match mode {
            Mode::Sink | Mode::Nfqueue => real.start_interceptor(),
            Mode::Link => {}
        }
        real
    }

    /// Starts the application, which is not running.
    pub fn start_application(&mut self) {
        let file = self
            .host
            .file(&format!("records-{}.json", self.files.len()));
        let config = RecorderConfig {
            http: vec![HTTP, HTTP_TOO],
            resp: vec![RESP],
            greeting: vec![GREETING],
            out: file.clone(),
            manners: Manners::default(),
        };
        self.files.push(file);
        self.application = Some(Recorder::start(&self.host, &config).unwrap());
    }

    /// Ends the application by SIGKILL: what it had open is reset.
    pub fn kill_application(&mut self) {
        self.application.take().unwrap().process().kill().unwrap();
    }

    /// Starts the router-agent, which is not running.
    pub fn start_agent(&mut self) {
        self.agent.start();
    }

    /// Ends the router-agent by SIGKILL.
    pub fn kill_agent(&mut self) {
        self.agent.kill();
    }

    /// Sends the router-agent a signal.
    pub fn signal_agent(&mut self, signal: Signal) {
        self.agent.signal(signal);
    }

    /// Ends the router-agent by SIGTERM.
    pub fn stop_agent(&mut self) {
        self.agent.stop();
    }

    /// How many connections with something in them the application has recorded so far, those that ended.
    pub fn recorded(&self) -> usize {
        let application = self.application.as_ref().unwrap();
        application.records().unwrap().without_empty().len()
    }

    /// Starts the interceptor, which is not running.
    pub fn start_interceptor(&mut self) {
        self.interceptor = Some(Interceptor::start(&self.host, self.mode, &self.consul));
    }

    /// Ends the interceptor by SIGKILL.
    pub fn kill_interceptor(&mut self) {
        self.interceptor.take().unwrap().0.kill().unwrap();
    }

    /// Ends the interceptor by SIGTERM.
    pub fn stop_interceptor(&mut self) {
        let mut interceptor = self.interceptor.take().unwrap();
        let status = interceptor
            .0
            .terminate(std::time::Duration::from_secs(10))
            .unwrap();
        assert!(status.success(), "{status}: {}", interceptor.0.log());
    }

    /// Where it runs.
    pub(super) const fn host(&self) -> &Host {
        &self.host
    }

    /// The state of its interceptor.
    pub fn interceptor_status(&self) -> Value {
        self.host.get_json(admin(), "/status").unwrap()
    }

    /// Ends all that runs; what the application recorded, in all of its lives.
    pub(super) fn finish(mut self) -> RecordedStreams {
        if let Some(application) = self.application.take() {
            application.stop().unwrap();
        }
        self.all_recorded()
    }

    /// The connections with something in them that ended so far, in all lives of the application.
    pub(super) fn all_recorded(&self) -> RecordedStreams {
        let mut all = RecordedStreams::default();
        for file in &self.files {
            all.extend(&RecordedStreams::load(file).unwrap());
        }
        all.without_empty()
    }
}

/// The service as this real server has it: where its responses come from.
fn services(cluster: &Cluster, place: &Place) -> String {
    let mut services = Vec::new();
    for ip in cluster.response_source(place).both() {
        services.extend(
            cluster
                .ports()
                .iter()
                .map(|port| SocketAddr::new(ip, *port).to_string()),
        );
    }
    services.join(",")
}

/// A running interceptor.
pub(super) struct Interceptor(Process);

impl Interceptor {
    pub(super) fn start(host: &Host, mode: Mode, consul: &Use) -> Self {
        let admin = admin().to_string();
        let mut arguments = vec!["--insecure", "-b", "::", "--admin", &admin];
        arguments.extend(match mode {
            Mode::Sink => &["--mode", "sink"][..],
            Mode::Link => &["--mode", "link", "-i", DEVICE],
            Mode::Nfqueue => &["--mode", "nfqueue"],
        });
        arguments.extend(consul.arguments.iter().map(String::as_str));
        let log = new_log(host, "interceptor");
        let program = binary("millrace-interceptor");
        let environment = consul.environment();
        let mut process = host.spawn(program, &arguments, &environment, &log).unwrap();
        ready(host, &mut process);
        Self(process)
    }
}
