//! The live host.

use millrace_capture::{Device, check_privilege};
use millrace_daemon::check::{Verdict, host};
use millrace_notation::address::{Live, Mapping};
use millrace_replay::conntrack::Table;
use millrace_replay::outlet;

use super::Subject;
use crate::sockets::{Listeners, ports, where_to_look};

/// Ports of services that begin with TLS (the service name registry of RFC 6335).
const TLS_PORTS: [u16; 9] = [443, 465, 636, 853, 990, 993, 995, 5061, 8443];

pub(super) fn privileges(_: &Subject) -> Verdict {
    match check_privilege() {
        Ok(()) => Verdict::ok("a packet socket can be opened"),
        Err(error) => Verdict::error(&error),
    }
}

pub(super) fn memory(subject: &Subject) -> Verdict {
    match subject.options.capture.memory(&subject.options.limits) {
        Ok((limit, _)) => host::memory(limit, "the copier (-m)"),
        Err(error) => Verdict::error(&error),
    }
}

pub(super) fn report(subject: &Subject) -> Verdict {
    match &subject.plan.report {
        Some(path) => host::file(path, "--report"),
        None => Verdict::ok("no file is asked for: the report goes to stdout"),
    }
}

pub(super) fn devices(subject: &Subject) -> Verdict {
    let Some(ring) = subject.plan.ring() else {
        return Verdict::ok("a recording is replayed");
    };
    let is_captured = |device: &Device| ring.devices.contains(&device.name);
    let down = Device::list().into_iter().filter(is_captured);
    let down: Vec<String> = (down.filter(|device| !device.up))
        .map(|device| device.name)
        .collect();
    match down.first() {
        Some(first) => Verdict::warning(
            format!("{} is down", down.join(", ")),
            format!("ip link set {first} up"),
        ),
        None if ring.devices.is_empty() => {
            Verdict::ok("those that lead to pods are found as these come")
        }
        None => Verdict::ok(format!("{} up", ring.names())),
    }
}

pub(super) fn listener(subject: &Subject) -> Verdict {
    let services = &subject.plan.services;
    let here = subject.is_live().then(Listeners::read).flatten();
    let Some(here) = here else {
        return Verdict::ok("this host is not where the live service must listen");
    };
    // What a proxy on this host speaks to comes by on loopback.
    let ring = subject.plan.ring().into_iter();
    let on_loopback = ring.flat_map(|it| &it.devices).any(|it| it == "lo");
    // Services of other hosts come from a mirror.
    let own = |it: &&Mapping| match it.live {
        Live::Host => true,
        Live::At(ip) => here.has(ip),
        Live::Pods(_) => false,
    };
    let silent = services.iter().filter(own).find_map(|it| {
        let proxied = on_loopback && here.is_on_loopback(it.live_port);
        let obstacle = here.of(it.live.ip(), it.live_port);
        Some((it, obstacle.filter(|_| !proxied)?))
    });
    match silent {
        Some((service, found)) => {
            Verdict::warning(found, where_to_look(std::slice::from_ref(service)))
        }
        None => Verdict::ok(format!("{} of this host or another", ports(services))),
    }
}

pub(super) fn tls(subject: &Subject) -> Verdict {
    let services = &subject.plan.services;
    let mut live = services.iter().map(|it| it.live_port);
    match live.find(|port| TLS_PORTS.contains(port)) {
        Some(port) => Verdict::warning(
            format!(
                "port {port} is one of TLS: no target can read a copy, whose keys would be agreed upon anew"
            ),
            "copy where the traffic is plain, behind the proxy that ends TLS",
        ),
        None => Verdict::ok(format!("{}: no port of TLS", ports(services))),
    }
}

pub(super) fn conntrack(subject: &Subject) -> Verdict {
    if let Err(error) = outlet::refuse_tracked(&subject.plan.outlet) {
        return Verdict::error(&error);
    }
    match Table::of_this_host() {
        Some(table) if table.is_nearly_full() => Verdict::warning(
            format!(
                "the table of tracked connections is {}% full",
                table.fullness()
            ),
            "sysctl -w net.netfilter.nf_conntrack_max=N, larger than now",
        ),
        Some(table) => Verdict::ok(format!(
            "copies are not tracked; the table is {}% full",
            table.fullness()
        )),
        None => Verdict::ok("this host tracks no connections"),
    }
}
