//! What the engine is to be: services, sources, bounds.

use std::net::IpAddr;
use std::time::Duration;

use millrace_capture::Device;
use millrace_daemon::exit::ExitError;
use millrace_daemon::incarnation::random_u64;
use millrace_engine::{Caps, Config, LiveAddress, Recorded, Service, SourcePool};
use millrace_notation::address::{Live, Mapping};
use millrace_pilot::guard;
use millrace_recordings::inputs::Inputs;
use millrace_replay::local::LocalPlan;

use super::{intensity, probes};
use crate::addresses;
use crate::options::{Options, ShareOption};

/// Longer than any recording.
const ENDLESS: Duration = Duration::from_secs(10 * 365 * 86_400);

pub(super) fn engine_config(
    options: &Options,
    inputs: &Inputs,
    on_this_host: Option<&LocalPlan>,
) -> Result<Config, ExitError> {
    let services: Vec<Service> = options
        .services
        .iter()
        .map(|mapping| Service {
            live: match mapping.live {
                Live::Host => LiveAddress::Host,
                Live::At(ip) => LiveAddress::At(ip),
                Live::Pods(_) => LiveAddress::Followed,
            },
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
        // They are found while the copier runs.
        followed: Vec::new(),
        local_addresses: local,
        sources,
        nat: options.nat,
        loopback_clients: options.loopback_clients.clone(),
        share: on_this_host
            .and_then(|plan| plan.share)
            .or(options.intensity.share.and_then(ShareOption::share)),
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
        sampled: options.otlp.share(),
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
pub(super) fn idle_timeout(seconds: u64, recorded: Option<Recorded>) -> Duration {
    let speed = recorded.map_or(1.0, |recorded| recorded.speed.max(1.0));
    // Without a speed there is no silence at all.
    Duration::try_from_secs_f64(seconds as f64 * speed).map_or(ENDLESS, |time| time.min(ENDLESS))
}

/// A target that is a live service of this host would be copied again, and again.
pub(super) fn check_target(
    mapping: &Mapping,
    options: &Options,
    local: &[IpAddr],
) -> Result<(), ExitError> {
    let target = mapping.target;
    let here = target.ip().is_loopback() || local.contains(&target.ip());
    let is_live = |other: &Mapping| {
        other.live_port == target.port()
            && match other.live {
                Live::At(ip) => ip == target.ip(),
                Live::Host => here,
                Live::Pods(_) => false,
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

/// The networks that targets are in: those of this host's devices, and where it is in none of them, what is usual.
pub(super) fn segments(options: &Options) -> Vec<(IpAddr, u8)> {
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

pub(super) fn local_addresses() -> Vec<IpAddr> {
    addresses::of_this_host().into_iter().collect()
}
