//! Where is captured, and how.

use std::net::IpAddr;

use millrace_capture::{ANY, Device, Expression, Filter, FilterSpec, RingConfig, ServiceFilter};
use millrace_daemon::exit::ExitError;
use millrace_notation::address::{Live, Mapping};
use millrace_wire::Tunnel;

use super::engine::local_addresses;
use super::pods::PodDevices;
use crate::addresses;
use crate::options::Options;

/// Bytes kept of packets of the live server: headers, with some room.
const SERVER_SNAP_LENGTH: u32 = millrace_capture::filter::HEADERS_ONLY;

pub(super) fn devices(options: &Options, mut names: Vec<String>) -> Result<Vec<Device>, ExitError> {
    names.sort();
    names.dedup();
    if !names.is_empty() {
        return Device::named(&names).map_err(|error| ExitError::start(error.to_string()));
    }
    // The ways to pods are found while the copier runs.
    let services = options.services.iter();
    let of_hosts = services.filter(|mapping| mapping.live.pods().is_none());
    let mut live: Vec<Option<IpAddr>> = of_hosts.map(|mapping| mapping.live.ip()).collect();
    if live.is_empty() {
        return Ok(Vec::new());
    }
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

/// What is captured of these services, of which those in pods have the addresses that `followed` says by their place.
pub(crate) fn captured(services: &[Mapping], followed: &[Vec<IpAddr>]) -> Vec<ServiceFilter> {
    let of = |(place, mapping): (usize, &Mapping)| {
        let addresses = match &mapping.live {
            Live::Host => vec![None],
            Live::At(ip) => vec![Some(*ip)],
            Live::Pods(_) => {
                let now = followed.get(place).into_iter().flatten();
                now.map(|ip| Some(*ip)).collect()
            }
        };
        let port = mapping.live_port;
        let filter = move |address| ServiceFilter { address, port };
        addresses.into_iter().map(filter)
    };
    services.iter().enumerate().flat_map(of).collect()
}

/// How captured packets get here. `hears_live` says of which live ports packets to clients are wanted whole.
pub(super) fn ring(
    options: &Options,
    devices: &[Device],
    hears_live: impl Fn(u16) -> bool,
) -> Result<RingConfig, ExitError> {
    let exclude: Vec<_> = options
        .services
        .iter()
        .map(|mapping| mapping.target)
        .collect();
    let services = captured(options.services.as_slice(), &[]);
    let filter = match &options.capture.filter {
        Some(text) if text.trim().is_empty() => {
            return Err(ExitError::usage(
                "-F: the expression is empty; leave -F out to capture what -x names",
            ));
        }
        Some(text) => Filter::Expression(Expression {
            text: text.clone(),
            exclude,
            snap_len: u32::MAX,
        }),
        None => Filter::Services(FilterSpec {
            whole_services: services
                .iter()
                .filter(|service| hears_live(service.port))
                .copied()
                .collect(),
            services,
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
    let of_others = services.any(|one| one.live.ip().is_some_and(|ip| !local.contains(&ip)));
    let in_pods = options.services.iter().any(|one| one.live.pods().is_some());
    let changing = in_pods && PodDevices::of(options) != PodDevices::Named;
    let names = devices.iter().map(|device| device.name.clone());
    let named = &options.capture.devices;
    let mut below_ip = [Tunnel::Mpls, Tunnel::Pppoe].into_iter();
    let named_below_ip = below_ip.find(|kind| options.capture.tunnels.names(*kind));
    if let Some(kind) = named_below_ip.filter(|_| devices.len() > 1 || changing) {
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
        promiscuous: (of_others || in_pods) && !named.is_empty() && *named != [ANY],
        changing,
        ..RingConfig::new(String::new(), filter)
    })
}
