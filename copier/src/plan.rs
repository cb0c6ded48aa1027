//! From options to a plan: everything that can be wrong is found here, before a socket is opened.

mod intensity;
mod need;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_capture::{
    ANY, CaptureError, Census, Device, Expression, Filter, FilterSpec, MacAddress, NextHopConfig,
    RingConfig, SenderConfig, ServiceFilter, Source, StaticHop,
};
use millrace_engine::{Caps, Config, Recorded, Service, SourcePool};
use millrace_fleet::address::{DefaultPort, HostPort, Mac, Mapping};
use millrace_fleet::exit::ExitError;
use millrace_fleet::incarnation::random_u64;
use millrace_fleet::tls::Role;
use millrace_fleet::transport::Security;
use millrace_proto::v1::Need;
use millrace_proto::{ClaimSet, ClientRange};
use millrace_wire::{Tunnel, Tunnels};

use crate::addresses;
use crate::control::PilotConfig;
use crate::guard;
use crate::local::LocalPlan;
use crate::offline::feed::FeedConfig;
use crate::offline::inputs::{Inputs, classify};
use crate::offline::options::DEFAULT_MAX_OPEN;
use crate::options::{Options, Output};
use crate::pressure;
use crate::route_info::FlowTarget;

/// Bytes kept of packets of the live server: headers, with some room.
const SERVER_SNAP_LENGTH: u32 = millrace_capture::filter::HEADERS_ONLY;

/// Longer than any recording.
const ENDLESS: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Port of router-agents that are named without one.
const ROUTER_AGENT_PORT: DefaultPort = DefaultPort(36_526);

/// What a copier will do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What the engine is told.
    pub engine: Config,
    /// The ring to open, on all devices.
    pub ring: Option<RingConfig>,
    /// Tunnels that are looked into there.
    pub tunnels: Tunnels,
    /// When the copier is under pressure.
    pub pressure: pressure::Limits,
    /// The recording that is replayed instead.
    pub feed: Option<FeedConfig>,
    /// This host catches the answers itself.
    pub local: Option<LocalPlan>,
    /// The share of a recording that must be delivered.
    pub min_fidelity: f64,
    /// How packets are sent.
    pub sender: SenderConfig,
    /// Sending at the link layer, from this device.
    pub outlet: OutletPlan,
    /// Interceptors.
    pub interceptors: Vec<HostPort>,
    /// Router-agents that must hold [`Plan::diverted`] before anything is sent.
    pub router_agents: Vec<HostPort>,
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
    /// The time between two summaries in the log.
    pub summary: Option<Duration>,
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
        options.tcpcopy.check()?;
        let interceptors = options.interceptors().map_err(|error| usage(&error))?;
        match inputs {
            Inputs::Devices(_) => options.offline.refuse()?,
            Inputs::Files(_) => {
                options.capture.refuse()?;
                options.limits.refuse()?;
            }
        }
        let local = match options.offline.local {
            true => Some(LocalPlan::new(options)?),
            false => None,
        };
        let security = match local {
            // There is nobody to talk to.
            Some(_) => Security::Insecure,
            None => Security::from_options(&options.common, Role::Copier)?,
        };
        let engine = engine_config(options, &inputs, local.as_ref())?;
        check_families(options, &engine)?;
        let router_agents = router_agents(options)?;
        let diverted = need::need(&engine.services, &engine.sources, options.nat);
        if !router_agents.is_empty() {
            diverted.as_ref().map_err(Clone::clone)?;
        }
        let (ring, feed) = match inputs {
            Inputs::Devices(names) => (Some(ring(options, &devices(options, names)?)?), None),
            Inputs::Files(sources) => (None, Some(feed(options, sources)?)),
        };
        let outlet = outlet(options, local.is_some())?;
        let claim = options
            .client_pool
            .as_ref()
            .map(|_| claim(&engine))
            .transpose()?;
        Ok(Self {
            ring,
            tunnels: options.capture.tunnels.on_devices(),
            pressure: pressure::Limits {
                memory: engine.memory_limit,
                cpu_percent: options.limits.max_cpu.map(f64::from),
            },
            feed,
            min_fidelity: options.offline.min_fidelity.unwrap_or(1.0),
            sender: SenderConfig {
                max_packet: usize::from(options.sending.mtu),
                ..SenderConfig::default()
            },
            outlet,
            interceptors,
            diverted,
            router_agents,
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
            pilot: intensity::pilot(&options.intensity, &engine)?,
            grace: Duration::from_secs(options.limits.grace),
            report: options.report.clone(),
            services: options.services.as_slice().to_vec(),
            summary: (options.summary > 0).then(|| Duration::from_secs(options.summary)),
            engine,
        })
    }
}

impl Plan {
    /// A census of the connections that begin, where the filter is that of the services.
    pub fn census(&self) -> Option<Result<Census, CaptureError>> {
        let ring = self.ring.as_ref()?;
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
pub fn router_agents(options: &Options) -> Result<Vec<HostPort>, ExitError> {
    let Some(list) = &options.router_agents else {
        return Ok(Vec::new());
    };
    ROUTER_AGENT_PORT
        .parse_list(list)
        .map_err(|error| ExitError::usage(format!("--router-agent: {error}")))
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

fn engine_config(
    options: &Options,
    inputs: &Inputs,
    on_this_host: Option<&LocalPlan>,
) -> Result<Config, ExitError> {
    let services: Vec<Service> = options
        .services
        .iter()
        .map(|mapping| Service {
            live_ip: mapping.live_ip,
            live_port: mapping.live_port,
            target: mapping.target.into(),
        })
        .collect();
    let offline = &options.offline;
    let (local, recorded) = match inputs {
        Inputs::Devices(_) => (local_addresses(), None),
        // What is in a file went to the live server, whatever address it has.
        Inputs::Files(_) => (
            Vec::new(),
            Some(Recorded {
                speed: offline.factor(),
                longest_pause: offline.pause(),
            }),
        ),
    };
    if recorded.is_none() {
        for mapping in &options.services {
            check_target(mapping, options, &local)?;
        }
    }
    let sources = match &options.client_pool {
        _ if on_this_host.is_some() => SourcePool::Ranges(
            on_this_host
                .map(|plan| plan.sources.clone())
                .unwrap_or_default(),
        ),
        None => SourcePool::Clients,
        Some(pool) => SourcePool::Ranges(
            pool.ranges()
                .iter()
                .map(|range| (range.first(), range.last()))
                .collect(),
        ),
    };
    let (memory, buffer) = options.capture.memory(&options.limits)?;
    // A recording needs no capture buffer.
    let memory_limit = memory - if recorded.is_some() { 0 } else { buffer };
    Ok(Config {
        services,
        segments: segments(options),
        local_addresses: local,
        sources,
        nat: options.nat,
        loopback_clients: options.loopback_clients.clone(),
        share: on_this_host
            .and_then(|plan| plan.share)
            .or(options.intensity.share.map(|share| share.0)),
        port_rest: Duration::from_secs(options.intensity.port_rest),
        intensity: intensity::constant(&options.intensity)?,
        factor: intensity::factor(&options.intensity),
        intensity_key: intensity::key(&options.intensity),
        spread: Duration::from_millis(options.intensity.spread),
        caps: Caps {
            // A recording waits where live sessions are refused: see its feed.
            new_sessions: options
                .limits
                .max_new_sessions
                .filter(|_| recorded.is_none()),
            open_sessions: options.limits.max_open.filter(|_| recorded.is_none()),
            bandwidth: options.limits.max_bandwidth,
        },
        // Without probes nobody would open a target again, and a pool's addresses are nobody's.
        stop_on_silence: probes(options) && options.client_pool.is_none(),
        gate: !options.no_wait,
        only_from_syn: options.only_from_syn,
        keep_pauses: options.keep_pauses,
        max_packet: options.sending.mtu,
        offered_mss: options.sending.mss,
        memory_limit,
        answer_timeout: Duration::from_secs(options.limits.answer_timeout),
        overdue_after: guard::overdue_after(options.intensity.guard_window),
        idle_timeout: idle_timeout(options.limits.idle_timeout, recorded),
        copy_targets: options.limits.copy_targets,
        late: Duration::from_secs(options.limits.late),
        gap_grace: match recorded {
            // Its directions may come from two recorders.
            Some(_) => Duration::from_secs(1),
            // All packets come through one ring, in their order.
            None => Duration::from_millis(300),
        },
        recorded,
        seed: random_u64(),
    })
}

/// Sessions of a recording are silent by its clock, which runs faster than the replay's by the speed.
fn idle_timeout(seconds: u64, recorded: Option<Recorded>) -> Duration {
    let speed = recorded.map_or(1.0, |recorded| recorded.speed.max(1.0));
    // Without a speed there is no silence at all.
    Duration::try_from_secs_f64(seconds as f64 * speed).map_or(ENDLESS, |time| time.min(ENDLESS))
}

/// A target that is a live service of this host would be copied again, and again.
fn check_target(mapping: &Mapping, options: &Options, local: &[IpAddr]) -> Result<(), ExitError> {
    let target = mapping.target;
    let here = target.ip().is_loopback() || local.contains(&target.ip());
    let is_live = |other: &Mapping| {
        other.live_port == target.port()
            && match other.live_ip {
                Some(ip) => ip == target.ip(),
                None => here,
            }
    };
    match options.services.iter().find(|other| is_live(other)) {
        Some(other) => Err(ExitError::usage(format!(
            "-x {mapping}: the target is itself the live service of {other}: name the host and port \
             that are to receive the copy"
        ))),
        None => Ok(()),
    }
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
            .live_ip
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

/// The networks that targets are in: those of this host's devices, and where it is in none of them, what is usual.
fn segments(options: &Options) -> Vec<(IpAddr, u8)> {
    let mut segments: Vec<(IpAddr, u8)> = Vec::new();
    for device in Device::list().into_iter().filter(|device| !device.loopback) {
        segments.extend(device.addresses.into_iter().zip(device.prefixes));
    }
    let usual = options.services.iter().map(|mapping| {
        let target = mapping.target.ip();
        (target, if target.is_ipv4() { 24 } else { 64 })
    });
    segments.extend(usual);
    segments
}

fn local_addresses() -> Vec<IpAddr> {
    addresses::of_this_host().into_iter().collect()
}

fn devices(options: &Options, mut names: Vec<String>) -> Result<Vec<Device>, ExitError> {
    names.sort();
    names.dedup();
    if !names.is_empty() {
        return Device::named(&names).map_err(|error| ExitError::start(error.to_string()));
    }
    let services = options.services.iter();
    let mut live: Vec<Option<IpAddr>> = services.map(|mapping| mapping.live_ip).collect();
    let here = addresses::of_this_host();
    let named = live.iter().flatten().filter(|ip| !ip.is_unspecified());
    let absent = named.filter(|ip| !here.contains(ip));
    let absent: Vec<String> = absent.map(IpAddr::to_string).collect();
    if !absent.is_empty() {
        tracing::warn!(
            "no device carries the live address {} of -x: capturing on all devices, so that it is copied once it \
             comes; check it with `ip address`, or name the devices with -i",
            absent.join(", ")
        );
        live = vec![None];
    }
    let devices = Device::carrying(&live);
    if devices.is_empty() {
        return Err(ExitError::start(
            "no device of this host is up and has an address: name devices with -i",
        ));
    }
    Ok(devices)
}

fn ring(options: &Options, devices: &[Device]) -> Result<RingConfig, ExitError> {
    let exclude: Vec<_> = options
        .services
        .iter()
        .map(|mapping| mapping.target)
        .collect();
    let filter = match &options.capture.filter {
        Some(text) if text.trim().is_empty() => {
            return Err(ExitError::usage(
                "-F: the expression is empty; leave -F out to capture what -x names",
            ));
        }
        Some(text) => Filter::Expression(Expression {
            text: text.clone(),
            exclude,
        }),
        None => Filter::Services(FilterSpec {
            services: options
                .services
                .iter()
                .map(|mapping| ServiceFilter {
                    address: mapping.live_ip,
                    port: mapping.live_port,
                })
                .collect(),
            local_addresses: local_addresses(),
            exclude,
            client_snap_len: options.capture.snap_length(),
            server_snap_len: SERVER_SNAP_LENGTH,
            tunnels: options.capture.tunnels.on_devices(),
        }),
    };
    filter
        .compile(
            millrace_wire::LinkType::Ethernet,
            options.capture.snap_length(),
        )
        .map_err(|error| ExitError::usage(error.to_string()))?;
    let (_, buffer) = options.capture.memory(&options.limits)?;
    // A mirror of other hosts' traffic, on devices that are named for it.
    let local = local_addresses();
    let mut services = options.services.iter();
    let of_others = services.any(|one| one.live_ip.is_some_and(|ip| !local.contains(&ip)));
    let names = devices.iter().map(|device| device.name.clone());
    let named = &options.capture.devices;
    let mut below_ip = [Tunnel::Mpls, Tunnel::Pppoe].into_iter();
    let named_below_ip = below_ip.find(|kind| options.capture.tunnels.names(*kind));
    if let Some(kind) = named_below_ip.filter(|_| devices.len() > 1) {
        return Err(ExitError::usage(format!(
            "--tunnels {}: several devices together are captured from the IP header on, which is behind it: name one \
             device with -i",
            kind.name()
        )));
    }
    Ok(RingConfig {
        devices: names.collect(),
        // At most 1 GB, the largest -B.
        buffer_bytes: buffer as usize,
        snap_len: options.capture.snap_length(),
        // As with tcpdump, `any` leaves devices as they are.
        promiscuous: of_others && !named.is_empty() && *named != [ANY],
        ..RingConfig::new(String::new(), filter)
    })
}

/// What packets leave through.
#[derive(Clone, Debug)]
pub enum OutletPlan {
    /// At the link layer if all targets can be reached so, else the host's routing.
    Auto {
        /// Whether the host's routing may be used though it tracks connections.
        tracked: bool,
    },
    /// The host's routing.
    Routed {
        /// See [`OutletPlan::Auto`].
        tracked: bool,
    },
    /// One device.
    Link(NextHopConfig),
}

fn outlet(options: &Options, local: bool) -> Result<OutletPlan, ExitError> {
    let sending = &options.sending;
    // What stays on this host is caught by rules of its own.
    let tracked = sending.allow_conntrack || local;
    let Output::Device(device) = &sending.output else {
        let with_mac = options
            .services
            .iter()
            .find(|mapping| mapping.live_mac.is_some() || mapping.target_mac.is_some());
        return match with_mac {
            Some(mapping) => Err(ExitError::usage(format!(
                "-x {mapping}: MAC addresses are for sending at the link layer: add -o DEVICE"
            ))),
            None if local || sending.output == Output::Routed => Ok(OutletPlan::Routed { tracked }),
            None => Ok(OutletPlan::Auto { tracked }),
        };
    };
    let found = Device::find(device).map_err(|error| ExitError::start(error.to_string()))?;
    let own = found.mac;
    let mut fixed = HashMap::new();
    for mapping in &options.services {
        if let Some(destination) = mapping.target_mac {
            let source = mapping.live_mac.map(mac);
            if let Some(source) = source.filter(|source| Some(*source) != own) {
                let own = own.map_or_else(|| "none".to_owned(), |own| own.to_string());
                return Err(ExitError::usage(format!(
                    "-x {mapping}: {source} is not the MAC address of {device} ({own}): with another one switches \
                     would send what is meant for its owner here"
                )));
            }
            let hop = StaticHop {
                source,
                destination: mac(destination),
            };
            fixed.insert(mapping.target.ip(), hop);
        }
    }
    Ok(OutletPlan::Link(NextHopConfig {
        fixed,
        ..NextHopConfig::new(device.clone())
    }))
}

fn mac(mac: Mac) -> MacAddress {
    MacAddress::new(mac.octets())
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

/// The same at every start and different from every other copier's. Namespaces and containers may
/// share the host's name, so an address goes with it; copiers on one host copy different ports.
fn default_id(engine: &Config, security: &Security) -> String {
    let name = rustix::system::uname();
    // A certificate with a name allows only copier names that begin with it.
    let host = match security.identity().and_then(|it| it.name) {
        Some(name) => name.into(),
        None => name.nodename().to_string_lossy(),
    };
    let mut ports: Vec<u16> = engine
        .services
        .iter()
        .map(|service| service.live_port)
        .collect();
    ports.sort_unstable();
    ports.dedup();
    let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let named = engine.services.iter().filter_map(|service| service.live_ip);
    let others = engine.local_addresses.iter().copied();
    let is_own = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    let address = named
        .filter(is_own)
        .min()
        .or_else(|| others.filter(is_own).min());
    let address = address.map(|ip| format!("/{ip}")).unwrap_or_default();
    let share = engine
        .share
        .map(|share| format!("/share{}of{}", share.index(), share.of()));
    let id = format!("{host}{address}:{}", ports.join("+"));
    shortened(&id, &share.unwrap_or_default())
}

/// Longest name that interceptors take, in bytes.
const MAX_ID: usize = 128;

/// `id` and `share`, in as many bytes as interceptors take. What tells copiers apart is not just
/// cut off: a hash of it stands for the rest.
fn shortened(id: &str, share: &str) -> String {
    let room = MAX_ID.saturating_sub(share.len());
    if id.len() <= room {
        return format!("{id}{share}");
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let hash = format!("~{:016x}", hasher.finish());
    let mut end = room.saturating_sub(hash.len());
    while !id.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{hash}{share}", id.get(..end).unwrap_or_default())
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

    #[test]
    fn a_long_name_still_tells_copiers_and_their_shares_apart() {
        assert_eq!(shortened("live/198.18.2.10:80", ""), "live/198.18.2.10:80");
        let long = |end: &str| format!("live:{}{end}", "8080+".repeat(40));
        let (one, two) = (long("1"), long("2"));
        let names = [
            (&one, "/share0of2"),
            (&one, "/share1of2"),
            (&two, "/share0of2"),
        ];
        let names = names.map(|(id, share)| shortened(id, share));
        assert!(names.iter().all(|name| name.len() == MAX_ID));
        assert!(names[0] != names[1] && names[0] != names[2]);
        assert!(names[1].ends_with("/share1of2"));
        assert!(shortened(&"\u{fffd}".repeat(60), "").len() <= MAX_ID);
    }
}
