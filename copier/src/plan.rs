//! From options to a plan: everything that can be wrong is found here, before a socket is opened.

mod capture;
mod engine;
mod id;
mod intensity;
mod need;
mod outlet;
mod pods;
mod protocols;

use std::path::PathBuf;
use std::time::Duration;

use millrace_capture::{CaptureError, Census, Filter, RingConfig, SenderConfig, Source};
use millrace_channel::tls::Role;
use millrace_channel::transport::Security;
use millrace_daemon::exit::ExitError;
use millrace_engine::{Config, SourcePool};
use millrace_fleet::consul::Client;
use millrace_fleet::peers::Cluster;
use millrace_fleet::peers::PeerList;
use millrace_notation::address::{DefaultPort, Mapping};
use millrace_pilot::PilotConfig;
use millrace_proto::v1::Need;
use millrace_proto::{ClaimSet, ClientRange};
use millrace_recordings::feed::FeedConfig;
use millrace_recordings::inputs::{Inputs, classify};
use millrace_replay::local::{LocalPlan, Wanted};
use millrace_replay::outlet::OutletConfig;
use millrace_replay::pressure;
use millrace_routes::copier::FlowTarget;
use millrace_wire::Tunnels;

pub(crate) use self::capture::captured;
use self::capture::{devices, ring};
use self::engine::engine_config;
use self::id::default_id;
pub use self::pods::{PodDevices, PodPlan};
pub use self::protocols::Protocols;
use crate::options::{DEFAULT_MAX_OPEN, Options, ShareOption};
use crate::otlp::{Collector, TracePlan};

/// Port of router-agents that are named without one.
const ROUTER_AGENT_PORT: DefaultPort = DefaultPort(36_526);

/// What a copier will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the engine is told.
    pub engine: Config,
    /// The services that protocol modules replay.
    pub protocols: Protocols,
    /// Where the sessions come from.
    pub input: InputPlan,
    /// Tunnels that are looked into on devices.
    pub tunnels: Tunnels,
    /// When the copier is under pressure.
    pub pressure: pressure::Limits,
    /// This host catches the answers itself.
    pub local: Option<LocalPlan>,
    /// The share of a recording that must be delivered.
    pub min_fidelity: f64,
    /// How packets are sent, and what they leave through.
    pub outlet: OutletConfig,
    /// Interceptors.
    pub interceptors: PeerList,
    /// Router-agents that must hold [`Plan::diverted`] before anything is sent.
    pub router_agents: PeerList,
    /// Consul, where peers are to be found, or a share is to be had there.
    pub consul: Option<Client>,
    /// The cluster that this copier takes part in.
    pub cluster: Option<Cluster>,
    /// Where the last known peers are kept.
    pub state_dir: PathBuf,
    /// What router-agents are asked for, also those that are named later; or why they cannot be.
    pub diverted: Result<Need, ExitError>,
    /// Links to each interceptor.
    pub connections: u32,
    /// How the links are protected.
    pub security: Security,
    /// Name of this copier.
    pub id: String,
    /// What is claimed in place of announcing flows.
    pub claim: Option<ClaimSet>,
    /// By what interceptors are to know a flow.
    pub known_by: FlowTarget,
    /// Whether targets are held back until a probe has come back.
    pub probe: bool,
    /// How much is copied, and when.
    pub pilot: PilotConfig,
    /// Time for open sessions to finish.
    pub grace: Duration,
    /// Where the report goes.
    pub report: Option<PathBuf>,
    /// What is copied, as the operator wrote it.
    pub services: Vec<Mapping>,
    /// Services that are in pods.
    pub pods: Option<PodPlan>,
    /// The time between two summaries in the log.
    pub summary: Option<Duration>,
    /// Where traces of sampled sessions go.
    pub traces: Option<TracePlan>,
}

/// Where the sessions come from. `R`: how far the ring is.
#[derive(Debug, Clone)]
pub enum InputPlan<R = RingConfig> {
    /// The ring to open, on all devices.
    Rings(R),
    /// The recording that is replayed instead.
    Recording(FeedConfig),
}

impl<R> InputPlan<R> {
    /// Takes the ring, where there is one, a step further.
    ///
    /// # Errors
    /// Those of the step.
    pub fn with_rings<T, E>(self, step: impl FnOnce(R) -> Result<T, E>) -> Result<InputPlan<T>, E> {
        Ok(match self {
            Self::Rings(ring) => InputPlan::Rings(step(ring)?),
            Self::Recording(feed) => InputPlan::Recording(feed),
        })
    }
}

impl Plan {
    /// Makes a plan of the options.
    ///
    /// # Errors
    /// Exit code 64 for what the operator must write differently, 1 for what this host lacks.
    pub fn new(options: &Options) -> Result<Self, ExitError> {
        Self::with_inputs(options, classify(&options.capture.devices)?)
    }

    /// A plan of a replay of these files, whatever `-i` says.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn of_recording(options: &Options, sources: Vec<Source>) -> Result<Self, ExitError> {
        Self::with_inputs(options, Inputs::Files(sources))
    }

    fn with_inputs(options: &Options, inputs: Inputs) -> Result<Self, ExitError> {
        let usage = |error: &dyn std::fmt::Display| ExitError::usage(error.to_string());
        let interceptors = options.interceptors().map_err(|error| usage(&error))?;
        pods::refuse(options, matches!(inputs, Inputs::Files(_)))?;
        match inputs {
            Inputs::Devices(_) => options.offline.refuse()?,
            Inputs::Files(_) => {
                options.capture.refuse()?;
                options.limits.refuse()?;
            }
        }
        let mut local = match options.offline.local {
            true => Some(LocalPlan::new(wanted(options))?),
            false => None,
        };
        let security = match local {
            // There is nobody to talk to.
            Some(_) => Security::Insecure,
            None => Security::from_options(&options.common, Role::Copier)?,
        };
        let engine = engine_config(options, &inputs, local.as_ref())?;
        check_families(options, &engine)?;
        let protocols = Protocols::new(&options.protocol, &engine.services)?;
        if let Some(local) = &mut local {
            local.payload_ports = protocols.target_ports(&engine.services);
        }
        let router_agents = router_agents(options)?;
        let diverted = need::need(&engine.services, &engine.sources, options.nat);
        if !router_agents.is_empty() {
            diverted.as_ref().map_err(Clone::clone)?;
        }
        let input = match inputs {
            Inputs::Devices(names) => {
                let devices = devices(options, names)?;
                let hears_live = |port| protocols.hears_live(&engine.services, port);
                InputPlan::Rings(ring(options, &devices, hears_live)?)
            }
            Inputs::Files(sources) => InputPlan::Recording(feed(options, sources)?),
        };
        let outlet = OutletConfig {
            way: outlet::way(options, local.is_some())?,
            sender: SenderConfig {
                max_packet: usize::from(options.sending.mtu),
                ..SenderConfig::default()
            },
            targets: engine.services.iter().map(|it| it.target.ip).collect(),
        };
        let found = [&interceptors, &router_agents];
        let searched = found.iter().any(|list| !list.clusters.is_empty());
        let cluster = cluster(options)?;
        let consul = (searched || cluster.is_some())
            .then(|| options.consul.client())
            .transpose()?;
        let claim = options
            .client_pool
            .as_ref()
            .map(|_| claim(&engine))
            .transpose()?;
        Ok(Self {
            protocols,
            input,
            tunnels: options.capture.tunnels.on_devices(),
            pressure: pressure::Limits {
                memory: engine.memory_limit,
                cpu_percent: options.limits.max_cpu.map(f64::from),
            },
            min_fidelity: options.offline.min_fidelity.unwrap_or(1.0),
            outlet,
            interceptors,
            diverted,
            router_agents,
            consul,
            cluster,
            state_dir: options.state_dir.clone(),
            connections: options.connections,
            id: options
                .id
                .clone()
                .unwrap_or_else(|| default_id(&engine, &security)),
            security,
            claim,
            known_by: if options.nat {
                FlowTarget::Any
            } else {
                FlowTarget::Exact
            },
            probe: probes(options),
            local,
            pilot: intensity::pilot(&options.intensity, &engine, options.follow_plan)?,
            grace: Duration::from_secs(options.limits.grace),
            report: options.report.clone(),
            services: options.services.as_slice().to_vec(),
            pods: pods::pods(options),
            summary: (options.summary > 0).then(|| Duration::from_secs(options.summary)),
            traces: traces(options)?,
            engine,
        })
    }
}

impl Plan {
    /// The ring to open, where live traffic is copied.
    pub const fn ring(&self) -> Option<&RingConfig> {
        match &self.input {
            InputPlan::Rings(ring) => Some(ring),
            InputPlan::Recording(_) => None,
        }
    }

    /// What is replayed, where a recording is.
    pub const fn recording(&self) -> Option<&FeedConfig> {
        match &self.input {
            InputPlan::Rings(_) => None,
            InputPlan::Recording(feed) => Some(feed),
        }
    }

    /// A census of the connections that begin, where the filter is that of the services.
    pub fn census(&self) -> Option<Result<Census, CaptureError>> {
        let ring = self.ring()?;
        if !self.tunnels.kinds.is_empty() {
            // Nobody counts those inside tunnels.
            return None;
        }
        let Filter::Services(spec) = &ring.filter else {
            // Nobody knows which of them an operator's expression lets through.
            return None;
        };
        Some(Census::open(ring, &Filter::Connects(spec.clone())))
    }

    /// Whether answers would reach real clients if nothing kept them from it.
    pub fn bears_clients_addresses(&self) -> bool {
        self.local.is_none() && self.engine.sources == SourcePool::Clients
    }

    /// What the sources can hold at the same time, in words.
    pub fn capacity(&self) -> Vec<String> {
        match &self.local {
            Some(local) if local.bears_own_addresses() => local.capacity(&self.engine),
            Some(_) | None => intensity::capacity(&self.engine),
        }
    }
}

/// The router-agents that the options name.
///
/// # Errors
/// What is wrong with them, with exit code 64.
pub fn router_agents(options: &Options) -> Result<PeerList, ExitError> {
    let Some(list) = &options.router_agents else {
        return Ok(PeerList::default());
    };
    PeerList::parse(list, ROUTER_AGENT_PORT)
        .map_err(|error| ExitError::usage(format!("--router-agent: {error}")))
}

/// What a host that catches the answers itself is asked for.
fn wanted(options: &Options) -> Wanted<'_> {
    Wanted {
        targets: options.services.iter().map(|one| one.target).collect(),
        pool: options.client_pool.as_ref(),
        net: options.offline.local_net.as_ref(),
        share: options.intensity.share.and_then(ShareOption::share),
    }
}

/// Whether targets are held back until probes come back. A host that catches the answers itself needs none.
const fn probes(options: &Options) -> bool {
    !options.no_probe && !options.offline.local
}

/// What is replayed, and how.
fn feed(options: &Options, sources: Vec<Source>) -> Result<FeedConfig, ExitError> {
    if options.common.daemon && sources.contains(&Source::StandardInput) {
        return Err(ExitError::usage(
            "-i -: in the background (-d) there is no standard input; save it to a file first, or \
             leave out -d",
        ));
    }
    let offline = &options.offline;
    Ok(FeedConfig {
        sources,
        rounds: offline.repeat.unwrap_or(1),
        speed: offline.factor(),
        longest_pause: offline.pause(),
        max_open: options
            .limits
            .max_open
            .or(offline.asap.then_some(DEFAULT_MAX_OPEN)),
        max_new_sessions: options.limits.max_new_sessions,
        tunnels: options.capture.tunnels.of_recording(),
        progress: !options.common.daemon,
    })
}

/// A target must be reachable with the source addresses that its replicas will bear.
fn check_families(options: &Options, engine: &Config) -> Result<(), ExitError> {
    for mapping in &options.services {
        let target = mapping.target.ip();
        let pool = !matches!(engine.sources, SourcePool::Clients);
        if pool && engine.sources.is_empty(&target) {
            return Err(ExitError::usage(format!(
                "-x {mapping}: {} holds no address of the target's family; add {} addresses",
                match options.client_pool {
                    Some(_) => "-c",
                    None => "--local-net",
                },
                if target.is_ipv4() { "IPv4" } else { "IPv6" }
            )));
        }
        let mixed = mapping
            .live
            .ip()
            .is_some_and(|live| live.is_ipv4() != target.is_ipv4());
        if mixed && !pool {
            return Err(ExitError::usage(format!(
                "-x {mapping}: live service and target are of different address families; give \
                 the replicas addresses of the target's family with -c"
            )));
        }
    }
    Ok(())
}

fn cluster(options: &Options) -> Result<Option<Cluster>, ExitError> {
    let named = options.cluster_name()?;
    let lacks = |what: &str| {
        Err(ExitError::usage(format!(
            "{what}: name the cluster that this copier takes part in with --cluster"
        )))
    };
    match options.intensity.share {
        Some(ShareOption::Auto(_)) if named.is_none() => lacks("-f auto"),
        Some(_) | None if options.follow_plan && named.is_none() => lacks("--follow-plan"),
        Some(_) | None => Ok(named),
    }
}

/// Where traces go, and what they say.
fn traces(options: &Options) -> Result<Option<TracePlan>, ExitError> {
    let otlp = &options.otlp;
    match (&otlp.otlp_endpoint, otlp.idle()) {
        (Some(url), _) => Ok(Some(TracePlan {
            collector: Collector::new(url, otlp.otlp_ca.as_deref())?,
            clients: otlp.otlp_clients.unwrap_or_default(),
        })),
        (None, Some(option)) => Err(ExitError::usage(format!(
            "{option}: name the collector that spans go to with --otlp-endpoint, or leave {option} out"
        ))),
        (None, None) => Ok(None),
    }
}

fn claim(engine: &Config) -> Result<ClaimSet, ExitError> {
    // Of the families that targets have, what is this copier's own and nobody else's.
    let ranges = [true, false]
        .into_iter()
        .filter(|v4| engine.services.iter().any(|s| s.target.ip.is_ipv4() == *v4))
        .flat_map(|v4| engine.space(v4).blocks().collect::<Vec<_>>())
        .map(|(first, last, ports)| ClientRange::new(first, last, ports.first, ports.last))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ExitError::usage(format!("-c: {error}")))?;
    // Behind address translation the target's address is another one.
    let targets = engine
        .services
        .iter()
        .filter(|_| !engine.nat)
        .map(|service| service.target.into())
        .collect();
    Ok(ClaimSet {
        ranges,
        targets,
        // Without a share it is all that nobody else has.
        yields: engine.share.is_none(),
        without: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn what_router_agents_are_asked_for_is_known_before_one_is_named() {
        let plan = |more: &str| {
            let line = "millrace-copier -x 80-198.18.2.20:8080 -s 198.18.2.30 --insecure -i lo";
            let line = format!("{line} {more}");
            Plan::new(&Options::parse_from(line.split_whitespace()))
        };
        let need = plan("").unwrap().diverted.unwrap();
        assert_eq!(need.services.len(), 1);
        let need = plan("--nat -c 198.18.9.0/24").unwrap().diverted.unwrap();
        assert_eq!((need.services.len(), need.pool.len()), (0, 1));
        // Only an agent makes it an error.
        let error = plan("--nat").unwrap().diverted.unwrap_err();
        assert!(error.to_string().contains("--nat needs -c"), "{error}");
        assert_eq!(plan("--nat --router-agent h").unwrap_err(), error);
    }
}
