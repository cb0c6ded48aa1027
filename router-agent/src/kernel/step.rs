//! One change of the kernel's state, shown as the command that makes it.

use std::fmt;

use crate::kernel::ALIAS;
use crate::kernel::firewall::program;
use crate::kernel::model::{Route, RouteKind, Rule};

/// One change. Each is atomic in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Set a kernel setting.
    Sysctl {
        /// With slashes: `net/ipv4/conf/all/rp_filter`.
        key: String,
        /// The new value.
        value: String,
    },
    /// Make the sink device, down.
    MakeSink {
        /// Its name.
        name: String,
        /// The other end's name, where it has to be a veth pair.
        peer: String,
        /// The group that marks it as ours.
        group: u32,
        /// Largest packet. Bytes.
        mtu: u32,
    },
    /// Have a device of ours make no address of IPv6 by itself, and name it for people; nothing if
    /// it is the other end of a sink that has none.
    Prepare {
        /// Its name.
        name: String,
    },
    /// Set a device of ours up, without ARP; nothing if it is the other end of a sink that has none.
    SetUp {
        /// Its name.
        name: String,
    },
    /// Add a route.
    AddRoute {
        /// The route; its device is named below.
        route: Route,
        /// The device's name, for it may not exist yet.
        device: Option<String>,
    },
    /// Remove a route.
    DeleteRoute {
        /// The route.
        route: Route,
        /// The device's name.
        device: Option<String>,
    },
    /// Add a policy rule.
    AddRule(Rule),
    /// Remove a policy rule.
    DeleteRule(Rule),
    /// Remove a device of ours.
    DeleteLink {
        /// Its name.
        name: String,
    },
    /// Change our firewall chain, all lines at once.
    Firewall {
        /// IPv4, else IPv6.
        ipv4: bool,
        /// Input of iptables-restore.
        lines: String,
    },
    /// Put the floor in place, or replace it, all lines at once.
    Floor {
        /// Input of nft.
        lines: String,
    },
    /// Remove the floor.
    RemoveFloor {
        /// Input of nft.
        lines: String,
    },
}

impl Step {
    /// Whether something is not there any more after it.
    pub fn removes(&self) -> bool {
        match self {
            Step::DeleteRoute { .. }
            | Step::DeleteRule(_)
            | Step::DeleteLink { .. }
            | Step::RemoveFloor { .. } => true,
            Step::Sysctl { .. }
            | Step::MakeSink { .. }
            | Step::Prepare { .. }
            | Step::SetUp { .. }
            | Step::AddRoute { .. }
            | Step::AddRule(_)
            | Step::Firewall { .. }
            | Step::Floor { .. } => false,
        }
    }
}

fn ip(ipv4: bool) -> &'static str {
    if ipv4 { "ip" } else { "ip -6" }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Sysctl { key, value } => write!(f, "sysctl -w {key}={value}"),
            Step::MakeSink {
                name,
                peer,
                group,
                mtu,
            } => write!(
                f,
                "ip link add {name} group {group} mtu {mtu} arp off type dummy || ip link add \
                 {name} group {group} mtu {mtu} arp off type veth peer name {peer} group {group} \
                 mtu {mtu}"
            ),
            Step::Prepare { name } => {
                write!(f, "ip link set {name} addrgenmode none alias '{ALIAS}'")
            }
            Step::SetUp { name } => write!(f, "ip link set {name} arp off up"),
            Step::AddRoute { route, device } => {
                write!(f, "{} route add ", ip(route.to.is_ipv4()))?;
                show_route(f, route, device.as_deref())
            }
            Step::DeleteRoute { route, device } => {
                write!(f, "{} route del ", ip(route.to.is_ipv4()))?;
                show_route(f, route, device.as_deref())
            }
            Step::AddRule(rule) => {
                write!(f, "{} rule add ", ip(rule.ipv4))?;
                show_rule(f, rule)
            }
            Step::DeleteRule(rule) => {
                write!(f, "{} rule del ", ip(rule.ipv4))?;
                show_rule(f, rule)
            }
            Step::DeleteLink { name } => write!(f, "ip link del {name}"),
            Step::Firewall { ipv4, lines } => write!(
                f,
                "printf '%s\\n' {} | {} --noflush -w",
                quoted(lines),
                program(*ipv4, "restore")
            ),
            Step::Floor { lines } | Step::RemoveFloor { lines } => {
                write!(f, "printf '%s\\n' {} | nft -f -", quoted(lines))
            }
        }
    }
}

fn quoted(lines: &str) -> String {
    let quoted: Vec<String> = lines.lines().map(|line| format!("'{line}'")).collect();
    quoted.join(" ")
}

fn show_route(f: &mut fmt::Formatter<'_>, route: &Route, device: Option<&str>) -> fmt::Result {
    if route.kind == RouteKind::Blackhole {
        write!(f, "blackhole ")?;
    }
    if route.to.length() == 0 {
        write!(f, "default")?;
    } else {
        write!(f, "{}", route.to)?;
    }
    if let Some(gateway) = route.gateway {
        write!(f, " via {gateway}")?;
    }
    if let (RouteKind::Unicast, Some(device)) = (route.kind, device) {
        write!(f, " dev {device} onlink")?;
    }
    write!(
        f,
        " table {} proto {} metric {}",
        route.table, route.protocol, route.metric
    )
}

fn show_rule(f: &mut fmt::Formatter<'_>, rule: &Rule) -> fmt::Result {
    write!(f, "pref {}", rule.priority)?;
    if let Some(iif) = &rule.iif {
        write!(f, " iif {iif}")?;
    }
    if let Some(from) = rule.from {
        write!(f, " from {from}")?;
    }
    if let Some(to) = rule.to {
        write!(f, " to {to}")?;
    }
    if rule.ip_protocol == Some(6) {
        write!(f, " ipproto tcp")?;
    }
    if let Some((first, last)) = rule.source_port {
        write!(f, " sport {first}")?;
        if last != first {
            write!(f, "-{last}")?;
        }
    }
    write!(f, " lookup {} protocol {}", rule.table, rule.protocol)
}
