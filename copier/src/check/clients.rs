//! Who is connected to the live services now.

use std::net::IpAddr;

use millrace_capture::Device;
use millrace_daemon::check::Verdict;

use super::Subject;
use crate::pods::are_all_in_pods;

/// Ports that a client's copies may have, on each address: those above the well-known ones.
const PORTS: u32 = 64_512;
/// More than this part of them is scarce, in percent.
const SCARCE: u32 = 80;

/// Where all services are in pods, whose clients this host does not see.
fn unseen(subject: &Subject) -> Option<Verdict> {
    let all_in_pods = are_all_in_pods(&subject.plan.services);
    all_in_pods.then(|| Verdict::ok("clients of pods are not seen from here"))
}

pub(super) fn loopback(subject: &Subject) -> Verdict {
    if let Some(unseen) = unseen(subject) {
        return unseen;
    }
    let stand_in = !subject.options.loopback_clients.is_empty();
    if stand_in || !subject.plan.bears_clients_addresses() || !subject.is_live() {
        return Verdict::ok("copies of such clients have an address to bear");
    }
    let clients = subject.clients().connections.iter();
    let local = clients.filter(|(ip, _)| ip.is_loopback());
    match local.map(|(_, count)| *count).sum::<u32>() {
        0 => Verdict::ok(among(subject, "no client on this host's loopback address")),
        count => Verdict::warning(
            format!(
                "{count} open connections come from this host's loopback address: they are not copied"
            ),
            "name an address that stands for it (-H IP), or a client pool (-c)",
        ),
    }
}

pub(super) fn same_network(subject: &Subject) -> Verdict {
    if let Some(unseen) = unseen(subject) {
        return unseen;
    }
    let guarded = !subject.plan.router_agents.is_empty();
    if guarded || !subject.plan.bears_clients_addresses() || !subject.is_live() {
        return Verdict::ok("answers do not depend on the client's network");
    }
    let devices = Device::list();
    for target in subject.plan.engine.services.iter().map(|it| it.target.ip) {
        let Some((network, prefix)) = network_of(&devices, target) else {
            continue;
        };
        let clients = subject.clients().connections.keys();
        let near = clients.filter(|ip| is_within(**ip, network, prefix));
        let near = near.filter(|ip| !ip.is_loopback()).count();
        if near > 0 {
            return Verdict::warning(
                format!(
                    "{near} of {} clients are in the network of target {target} (/{prefix}): it answers them directly",
                    subject.clients().connections.len()
                ),
                format!("run millrace-router-agent on {target}, and name it with --router-agent"),
            );
        }
    }
    Verdict::ok(among(subject, "no client that is connected now"))
}

pub(super) fn ports(subject: &Subject) -> Verdict {
    if let Some(unseen) = unseen(subject) {
        return unseen;
    }
    let engine = &subject.plan.engine;
    let replicas =
        (engine.intensity.as_ratio().ceil() as u32).max(1) * u32::from(engine.factor.max(1));
    if !subject.plan.bears_clients_addresses() || !subject.is_live() {
        return Verdict::ok("copies do not bear clients' addresses");
    }
    let wanted = |count: u32| count.saturating_mul(replicas);
    let busiest = subject
        .clients()
        .connections
        .values()
        .copied()
        .max()
        .unwrap_or(0);
    let found = format!("{busiest} connections of one client, {replicas} copies of each");
    let found = among(subject, &found);
    match wanted(busiest) > PORTS / 100 * SCARCE {
        true => Verdict::warning(
            format!("{found}: its address has {PORTS} ports"),
            "give copies addresses of their own (-c), or make fewer (-n)",
        ),
        false => Verdict::ok(found),
    }
}

/// What was found, with a word where not all connections of this host were looked at.
fn among(subject: &Subject, found: &str) -> String {
    match subject.clients().cut {
        true => format!("{found}, among the first connections of very many"),
        false => found.to_owned(),
    }
}

/// The network of a device of this host in which an address lies: an address of it, and the length of its prefix.
fn network_of(devices: &[Device], ip: IpAddr) -> Option<(IpAddr, u8)> {
    let networks = devices.iter().flat_map(|device| {
        let addresses = device.addresses.iter().copied();
        addresses.zip(device.prefixes.iter().copied())
    });
    let mut holding = networks.filter(|(own, prefix)| is_within(ip, *own, *prefix));
    holding.next()
}

fn is_within(ip: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (bits, other, width) = match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => (
            u128::from(ip.to_bits()),
            u128::from(network.to_bits()),
            32_u32,
        ),
        (IpAddr::V6(ip), IpAddr::V6(network)) => (ip.to_bits(), network.to_bits(), 128),
        _ => return false,
    };
    let shift = width.saturating_sub(u32::from(prefix));
    bits.checked_shr(shift).unwrap_or(0) == other.checked_shr(shift).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_no_others() {
        let within = |ip: &str, network: &str, prefix| {
            is_within(ip.parse().unwrap(), network.parse().unwrap(), prefix)
        };
        assert!(within("198.18.2.77", "198.18.2.10", 24));
        assert!(!within("198.18.3.77", "198.18.2.10", 24));
        assert!(within("198.18.3.77", "10.0.0.1", 0));
        assert!(!within("198.18.2.11", "198.18.2.10", 32));
        assert!(within("2001:db8::1", "2001:db8::2", 64));
        assert!(!within("2001:db8:1::1", "198.18.2.10", 0));
    }
}
