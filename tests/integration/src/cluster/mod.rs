//! A cluster with the daemons and recording servers on it.
//!
//! Every test makes a [`ClusterScene`], lets clients talk to the live servers, and compares what these recorded with
//! what all real servers recorded together. Responses at clients, router and director are counted over the whole
//! scene, health checks run beside it; both are part of what it amounted to.

mod agent;
mod copiers;
mod outcome;
mod real;
mod so_far;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use millrace_lab::cluster::{
    Checked, Cluster, ClusterOptions, Forwarding, HealthChecks, Scheduler,
};
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::recorder::{Manners, Recorder};
use millrace_lab::{Host, wait_for};
use rustix::process::Signal;
use serde_json::Value;

use crate::consul::{Consul, Use};
use crate::{Family, HTTP, PORTS, number, recorder};
pub use agent::Mode;
use copiers::Copier;
pub use outcome::{ClusterOutcome, assert_ended_by_target, assert_faithful};
pub use real::Real;

/// Client pools for two copiers: disjoint, of both families.
pub const POOLS: [&str; 2] = [
    "198.18.9.10-198.18.9.49,2001:db8:9::10-2001:db8:9::2f",
    "198.18.9.50-198.18.9.89,2001:db8:9::30-2001:db8:9::4f",
];

/// A cluster with recording servers, and daemons as they are started.
pub struct ClusterScene {
    /// Checks of each real server by the director, and of the service by the tester.
    checks: Vec<HealthChecks>,
    /// What checks that have ended saw.
    checked: Vec<Checked>,
    /// What runs at the real servers.
    pub real: Vec<Real>,
    /// The interceptor at the assistant, in mode link.
    assistant: Option<real::Interceptor>,
    copiers: Vec<Copier>,
    live_recorders: Vec<Recorder>,
    mode: Mode,
    /// Where the daemons find each other, if not by lists.
    pub consul: Option<Consul>,
    /// The hosts. Declared last: what runs on them ends before they go.
    pub cluster: Cluster,
}

/// A load in the background.
pub type Running = std::thread::JoinHandle<millrace_lab::Result<Summary>>;

impl ClusterScene {
    /// The usual size: two live servers, three real servers.
    pub fn options() -> ClusterOptions {
        ClusterOptions::new(&PORTS)
    }

    /// A cluster with recording servers, a router-agent at each real server, and an interceptor wherever responses are
    /// diverted to; no copier yet.
    pub fn new(options: ClusterOptions, mode: Mode) -> Self {
        Self::with(Cluster::new(options).unwrap(), mode, None)
    }

    /// The same, whose daemons find each other in Consul, with a server at the assistant. None where there is no Consul.
    pub fn in_consul(options: ClusterOptions, mode: Mode) -> Option<Self> {
        let cluster = Cluster::new(options).unwrap();
        let consul = Consul::start(&[&cluster.assistant])?;
        Some(Self::with(cluster, mode, Some(consul)))
    }

    /// The same with three servers of Consul: at the assistant, the tester and the first real server, where their gossip
    /// about a lost one meets no count of leaks.
    pub fn in_three_consuls(options: ClusterOptions, mode: Mode) -> Option<Self> {
        let cluster = Cluster::new(options).unwrap();
        let real = &cluster.real_servers[0];
        let consul = Consul::start(&[&cluster.assistant, &cluster.tester, real])?;
        Some(Self::with(cluster, mode, Some(consul)))
    }

    /// Gives the cluster in Consul a command, at the tester; what it prints.
    pub fn ctl(&self, words: &[&str]) -> String {
        let consul = self.consul.as_ref().unwrap();
        consul.ctl(&self.cluster.tester.host, words)
    }

    fn with(mut cluster: Cluster, mode: Mode, consul: Option<Consul>) -> Self {
        let live_recorders = cluster
            .live
            .iter()
            .map(|live| recorder(&live.host, Manners::default()))
            .collect();
        let real: Vec<Real> = (0..cluster.real_servers.len())
            .map(|index| Real::start(&cluster, index, mode, consul.as_ref()))
            .collect();
        cluster.director.start().unwrap();
        let mut scene = Self {
            checks: Vec::new(),
            checked: Vec::new(),
            real,
            assistant: None,
            copiers: Vec::new(),
            live_recorders,
            mode,
            consul,
            cluster,
        };
        if mode == Mode::Link {
            let host = &scene.cluster.assistant.host;
            scene.assistant = Some(real::Interceptor::start(host, mode, &Use::default()));
        }
        scene
    }

    /// The usual cluster, checked and copied: the first copier announces its flows, the second claims a pool.
    pub fn copied(mode: Mode) -> Self {
        let mut scene = Self::new(Self::options(), mode);
        scene.start_checks();
        scene.start_tester();
        scene.start_copier(0, &[]);
        scene.start_copier(1, &["-c", POOLS[1]]);
        scene
    }

    /// Starts the director's health checks: of each real server's own addresses, once a second.
    pub fn start_checks(&mut self) {
        let own = self.cluster.real_servers.iter().map(|real| real.address);
        let servers = own.flat_map(|pair| pair.both());
        let director = self.cluster.director.place().host.clone();
        self.check_from(&director, servers.collect());
    }

    /// Starts a tester's checks: of the virtual addresses, whichever real server it is that answers. Behind address
    /// translation nobody would translate the answers back.
    pub fn start_tester(&mut self) {
        match self.cluster.forwarding() {
            Forwarding::DirectRouting => {
                let tester = self.cluster.tester.host.clone();
                self.check_from(&tester, self.cluster.vip().both().to_vec());
            }
            Forwarding::AddressTranslation => {}
        }
    }

    /// Lets the director pick real servers in another way. Not while a tester connects: IPVS has no scheduler for a
    /// moment and refuses what is new. Copied connections would try again.
    pub fn set_scheduler(&mut self, scheduler: Scheduler) {
        self.stop_checks();
        self.cluster.director.set_scheduler(scheduler).unwrap();
        self.start_tester();
    }

    /// Ends the checks that run; what they saw counts.
    pub fn stop_checks(&mut self) {
        for checks in std::mem::take(&mut self.checks) {
            self.checked.extend(checks.stop().unwrap());
        }
    }

    fn check_from(&mut self, host: &Host, servers: Vec<IpAddr>) {
        let servers: Vec<_> = servers.into_iter().map(|ip| (ip, HTTP).into()).collect();
        self.checks.push(HealthChecks::start(host, &servers));
    }

    /// The interceptors' addresses, as `-s` names them.
    fn interceptors(&self) -> Vec<String> {
        match self.mode {
            Mode::Sink | Mode::Nfqueue => {
                let real = self.cluster.real_servers.iter();
                let shown = real.zip(&self.real).filter(|(_, real)| real.is_named);
                shown
                    .map(|(place, _)| place.address.v4.to_string())
                    .collect()
            }
            Mode::Link => vec![self.cluster.assistant.address.v4.to_string()],
        }
    }

    /// Starts a copier on live server number `live` with more arguments, and waits until it is ready.
    pub fn start_copier(&mut self, live: usize, more: &[&str]) {
        let mut copier = self.begin_copier(live, more);
        copier.wait_ready(&self.cluster);
        self.copiers.push(copier);
    }

    /// Bytes of payload that the interceptors have returned, up to 250 ms ago.
    pub fn returned_payload(&self) -> u64 {
        let hosts: Vec<_> = match self.mode {
            Mode::Link => vec![&self.cluster.assistant.host],
            Mode::Sink | Mode::Nfqueue => self.real.iter().map(Real::host).collect(),
        };
        let returned = hosts.into_iter().map(|host| {
            let status = host.get_json(crate::admin(), "/status").unwrap();
            number(&status, "/report/returned_payload")
        });
        returned.sum()
    }

    /// Starts copiers on these live servers at once, and waits until all are ready.
    pub fn start_copiers(&mut self, lives: impl Iterator<Item = usize>, more: &[&str]) {
        let begun: Vec<Copier> = lives.map(|live| self.begin_copier(live, more)).collect();
        for mut copier in begun {
            copier.wait_ready(&self.cluster);
            self.copiers.push(copier);
        }
    }

    /// Whether the copier on live server number `live` has not ended by itself.
    pub fn is_running(&mut self, live: usize) -> bool {
        let copier = self.copiers.iter_mut().find(|copier| copier.live == live);
        copier.unwrap().is_running()
    }

    /// Starts a copier on live server number `live`, and waits until it answers, ready or not.
    pub fn start_copier_only(&mut self, live: usize) {
        let copier = self.begin_copier(live, &[]);
        copier.wait_healthy(&self.cluster);
        self.copiers.push(copier);
    }

    /// Starts a copier on live server number `live` that ends by itself: its exit code, and its log.
    pub fn refused_copier(&self, live: usize, more: &[&str]) -> (Option<i32>, String) {
        self.begin_copier(live, more).ended()
    }

    /// Sends the copier on live server number `live` a signal.
    pub fn signal_copier(&mut self, live: usize, signal: Signal) {
        let copier = self.copiers.iter_mut().find(|copier| copier.live == live);
        copier.unwrap().signal(signal);
    }

    /// The copier on live server number `live` ends by itself: its exit code, and its log.
    pub fn ended_copier(&mut self, live: usize) -> (Option<i32>, String) {
        let index = self.copiers.iter().position(|copier| copier.live == live);
        self.copiers.remove(index.unwrap()).ended()
    }

    /// Consul's token of the copier on live server number `live`.
    pub fn copier_token(&self, live: usize) -> String {
        let host = &self.cluster.live[live].host;
        self.consul.as_ref().unwrap().token("copier", host)
    }

    fn begin_copier(&self, live: usize, more: &[&str]) -> Copier {
        let agents = self.cluster.real_servers.iter().zip(&self.real);
        let agents = agents
            .filter(|(_, real)| real.agent.status().is_some())
            .map(|(place, _)| place.address.v4.to_string());
        let agents: Vec<String> = agents.collect();
        let host = &self.cluster.live[live].host;
        let consul = self.consul.as_ref().map(|it| it.searched(host));
        Copier::start(
            &self.cluster,
            live,
            &self.interceptors(),
            &agents,
            &consul.unwrap_or_default(),
            more,
        )
    }

    /// Ends the interceptor at the assistant by SIGKILL, and starts it again after a pause.
    pub fn kill_assistant(&mut self, pause: Duration) {
        drop(self.assistant.take().unwrap());
        std::thread::sleep(pause);
        let host = &self.cluster.assistant.host;
        self.assistant = Some(real::Interceptor::start(host, self.mode, &Use::default()));
    }

    /// Ends the copier on live server number `live` by SIGKILL.
    pub fn kill_copier(&mut self, live: usize) {
        let index = self.copiers.iter().position(|copier| copier.live == live);
        self.copiers.remove(index.unwrap()).kill();
    }

    /// Ends the copier on live server number `live` by SIGKILL, and starts it again after a pause: its earlier life's
    /// connections are still open at the real servers. What it meets in its middle it leaves alone (`-O`), so that its
    /// second life has whole sessions only. It is the last of the copiers then.
    pub fn kill_copier_for(&mut self, live: usize, pause: Duration, more: &[&str]) {
        self.kill_copier(live);
        std::thread::sleep(pause);
        let more: Vec<&str> = ["-O"].iter().chain(more).copied().collect();
        self.start_copier(live, &more);
    }

    /// Lets every copier read again which interceptors there are.
    pub fn name_interceptors(&mut self) {
        let interceptors = self.interceptors();
        for copier in &mut self.copiers {
            copier.reread(&interceptors);
        }
    }

    /// The state of the copier on live server number `live`.
    pub fn status(&self, live: usize) -> Value {
        let copier = self.copiers.iter().find(|copier| copier.live == live);
        copier.unwrap().status(&self.cluster)
    }

    /// What the copier on live server number `live` has logged.
    pub fn copier_log(&self, live: usize) -> String {
        let copier = self.copiers.iter().find(|copier| copier.live == live);
        copier.unwrap().log()
    }

    /// Runs a load from the first client host; no client may see an error.
    pub fn load(&self, load: Load) {
        join(vec![self.load_in_background(load)]);
    }

    /// Starts a load from the first client host, from all of its addresses.
    pub fn load_in_background(&self, load: Load) -> Running {
        let client = self.cluster.client().unwrap();
        let from: Vec<_> = client
            .addresses
            .iter()
            .flat_map(|pair| pair.both())
            .collect();
        let load = load.from(&from);
        client.host.start(move || load.run())
    }

    /// Mixed load on live server number `live` in the background, over both families: new sessions all the time,
    /// uploads, and sessions that stay. No two streams of a scene are the same.
    pub fn mixed_load(&self, live: usize, lasting: Duration) -> Vec<Running> {
        self.load_at(live, lasting, 50)
    }

    /// [`Self::mixed_load`] on both live servers.
    pub fn loads(&self, lasting: Duration) -> Vec<Running> {
        (0..2)
            .flat_map(|live| self.mixed_load(live, lasting))
            .collect()
    }

    /// As [`Self::mixed_load`], a fifth of it: for an emulated machine.
    pub fn light_load(&self, live: usize, lasting: Duration) -> Vec<Running> {
        self.load_at(live, lasting, 10)
    }

    /// Two new sessions in a second and two that stay at live server number `live` in the background, over IPv4.
    pub fn faint_load(&self, live: usize, lasting: Duration) -> Vec<Running> {
        let to = SocketAddr::new(self.cluster.live[live].address.v4.into(), HTTP);
        let path = format!("/bytes/{}", 300 + 10 * live);
        let kinds = [
            Kind::OneRequest {
                count: 2 * lasting.as_secs(),
                rate: Some(2.into()),
                path: path.clone(),
            },
            Kind::KeepAlive {
                lasting,
                pause: Duration::from_millis(300),
                path,
            },
        ];
        let loads = kinds.map(|kind| Load::new(kind, to).concurrency(2));
        loads.map(|load| self.load_in_background(load)).into()
    }

    /// `rate` is in new sessions per second, of each family.
    fn load_at(&self, live: usize, lasting: Duration, rate: u32) -> Vec<Running> {
        let per_second = u64::from(rate);
        let seconds = lasting.as_secs();
        let address = self.cluster.live[live].address;
        let loads = Family::BOTH
            .into_iter()
            .enumerate()
            .flat_map(|(n, family)| {
                let to = SocketAddr::new(family.of(address), HTTP);
                // The size tells the streams of one live server and family from those of the others.
                let mark = 300 + 10 * live + n;
                let path = format!("/bytes/{mark}");
                [
                    Kind::OneRequest {
                        count: per_second * seconds,
                        rate: Some(rate.into()),
                        path: path.clone(),
                    },
                    Kind::KeepAlive {
                        lasting,
                        pause: Duration::from_millis(500) / rate,
                        path,
                    },
                    Kind::Upload {
                        size: 100_000 + mark as u64,
                        count: seconds * per_second.div_ceil(12),
                    },
                ]
                .map(|kind| Load::new(kind, to).concurrency(4))
            });
        loads.map(|load| self.load_in_background(load)).collect()
    }

    /// Waits until the copiers hold no replica that still has something to do.
    pub fn settle(&self, limit: Duration) {
        // A report is up to 250 ms old: one from before the load says that nothing is open.
        std::thread::sleep(Duration::from_millis(300));
        for copier in &self.copiers {
            // In vain is an answer too: the comparison will show it.
            drop(wait_for("all replicas to end", limit, || {
                number(&copier.status(&self.cluster), "/report/replicas/open") == 0
            }));
        }
    }

    /// Ends everything and demands that all was delivered, exactly, and that nothing got out.
    pub fn finish_exact(self, settle: Duration) -> ClusterOutcome {
        self.settle(settle);
        let outcome = self.finish();
        outcome.assert_exact();
        outcome.assert_safe();
        outcome
    }

    /// With all copiers gone, the agents divert nothing any more, after a time. Gives what some still divert then.
    fn wait_undiverted(&self) -> Vec<String> {
        let diverted = || -> Vec<String> {
            let all = self.real.iter().filter_map(|real| real.agent.status());
            all.filter(|status| status["agent"]["diverted"] != serde_json::json!([]))
                .map(|status| status.to_string())
                .collect()
        };
        let limit = Duration::from_secs(30);
        drop(wait_for("the leases to end", limit, || {
            diverted().is_empty()
        }));
        diverted()
    }

    /// Ends everything and collects what was recorded and counted. The leaks are counted last: once the leases have
    /// ended, nothing keeps the real servers' kernels from answering whoever they still know.
    pub fn finish(mut self) -> ClusterOutcome {
        let mut reports = Vec::new();
        for copier in std::mem::take(&mut self.copiers) {
            reports.push(copier.finish());
        }
        let still_diverted = self.wait_undiverted();
        self.stop_checks();
        let checks = std::mem::take(&mut self.checked);
        let live = std::mem::take(&mut self.live_recorders)
            .into_iter()
            .map(|recorder| recorder.stop().unwrap().without_empty())
            .collect();
        // Before the applications end.
        let taken_out = self.cluster.director.taken_out();
        drop(self.assistant.take());
        let real = std::mem::take(&mut self.real)
            .into_iter()
            .map(Real::finish)
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        ClusterOutcome {
            reports,
            live,
            real,
            checks,
            taken_out,
            still_diverted,
            leaks: self.cluster.leaks.seen().unwrap(),
            leaked: self.cluster.leaks.segments().unwrap(),
        }
    }
}

/// Waits for loads to end; no client may have seen an error.
pub fn join(loads: Vec<Running>) {
    for load in loads {
        let summary = load.join().unwrap().unwrap();
        assert_eq!(
            summary.errors, 0,
            "live clients saw errors: {:?}",
            summary.examples
        );
        assert!(summary.sessions > 0, "a load without a session");
    }
}
