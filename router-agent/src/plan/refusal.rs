//! Plans that would hurt this host are refused before anything is touched.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::host::{GROUP, HostConfig, Mode};
use crate::kernel::model::{
    Link, RouteKind, Rule, Snapshot, Socket, TABLE_DEFAULT, TABLE_LOCAL, TABLE_MAIN,
};
use crate::need::{Need, Selector, Selectors};
use crate::plan::{connections, ours};
use millrace_notation::address::Cidr;

/// Shortest prefix of a pool without services: shorter ones are everything, or nearly.
const SHORTEST_V4: u8 = 8;
/// As [`SHORTEST_V4`].
const SHORTEST_V6: u8 = 16;
/// `FR_ACT_NOP` of linux/fib_rules.h.
const ACTION_NOP: u8 = 3;

/// What would be hurt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// The need makes no sense, or is too large.
    Malformed,
    /// Another mode is asked for than the host has.
    Mode,
    /// The operator of this host does not allow it.
    NotAllowed,
    /// The pool is all addresses, or nearly.
    Everything,
    /// An address that is not that of one host: loopback, multicast, unspecified, link-local.
    SpecialAddress,
    /// A port of this host that must stay reachable: the agent's, an interceptor's, ssh.
    OwnPort,
    /// The service is not on this host.
    NotLocal,
    /// A member of the pass-list: a director, a tester.
    PassList,
    /// An address of this host in the pool.
    OwnAddress,
    /// A default gateway in the pool.
    Gateway,
    /// The holder itself in the pool.
    Holder,
    /// A connection to ssh, or from an ssh client, in the pool.
    Ssh,
    /// A connection of something else in the pool, or one to a service that is no copy.
    Connection,
    /// A route to the pool that somebody else has made.
    Route,
    /// A policy rule that would win before ours.
    RuleBefore,
    /// A policy rule of somebody else with our preference.
    Preference,
    /// Our table is used by somebody else.
    Table,
    /// The sink's name is taken.
    Device,
    /// The assistant cannot be one.
    Assistant,
}

/// A plan that is refused, and why, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// What would be hurt.
    pub danger: Danger,
    /// What is hit, and what to do.
    pub reason: String,
}

pub(super) fn refuse<T>(danger: Danger, reason: String) -> Result<T, Refusal> {
    Err(Refusal { danger, reason })
}

/// What a plan is judged by.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The state of routing.
    pub snapshot: &'a Snapshot,
    /// TCP sockets.
    pub sockets: &'a [Socket],
    /// What is diverted already, or was when this host's agent last ran: connections of it are copies.
    pub copied: &'a Selectors,
    /// Where the holder comes from.
    pub holder: Option<IpAddr>,
}

/// Judges a need; its selectors if it hurts nobody.
///
/// # Errors
/// The first danger that was found.
pub fn judge(
    host: &HostConfig,
    need: &Need,
    around: &Circumstances<'_>,
) -> Result<Selectors, Refusal> {
    if let Some(mode) = need.mode.filter(|mode| *mode != host.mode) {
        return refuse(
            Danger::Mode,
            format!(
                "{mode} is asked for, but this host diverts by {}: start the agent with --mode \
                 {mode}, or ask for {}",
                host.mode, host.mode
            ),
        );
    }
    let selectors = need.selectors().map_err(|error| Refusal {
        danger: Danger::Malformed,
        reason: error.0,
    })?;
    allowed(host, need)?;
    services(host, need, around)?;
    pool(host, need, around)?;
    connections::of_services(host, need, &selectors, around)?;
    if need.services.is_empty() {
        connections::of_pool(host, need, around)?;
        other_routes(host, need, around)?;
    }
    if host.mode != Mode::Nfqueue {
        rules(host, &selectors, around.snapshot)?;
        table(host, around.snapshot)?;
    }
    devices(host, around.snapshot)?;
    assistant(host, need, &selectors, around.snapshot)?;
    Ok(selectors)
}

/// What the operator of this host has named, and nothing else.
fn allowed(host: &HostConfig, need: &Need) -> Result<(), Refusal> {
    let Some(allow) = &host.allow else {
        return Ok(());
    };
    let refused = |what: String| {
        refuse(
            Danger::NotAllowed,
            format!("{what} may not be diverted on this host, which allows {allow} (--allow)"),
        )
    };
    let mut services = need.services.iter();
    if let Some(service) = services.find(|service| !allow.service(**service, &need.pool)) {
        return refused(format!("service {service}"));
    }
    let mut pool = need.pool.iter().filter(|_| need.services.is_empty());
    match pool.find(|to| !allow.to(to)) {
        Some(to) => refused(format!("pool {to}")),
        None => Ok(()),
    }
}

fn services(host: &HostConfig, need: &Need, around: &Circumstances<'_>) -> Result<(), Refusal> {
    for service in &need.services {
        let ip = service.ip();
        if let Some(kind) = special(&Cidr::host(ip)) {
            return refuse(
                Danger::SpecialAddress,
                format!("service {service}: {ip} is a {kind} address, not one that clients reach"),
            );
        }
        if let Some(what) = host.own_port(*service) {
            return refuse(
                Danger::OwnPort,
                format!(
                    "service {service}: port {} is that of {what} on this host, whose answers must \
                     reach their peers (see --keep-ports)",
                    service.port()
                ),
            );
        }
        if host.passes(ip) {
            return refuse(
                Danger::PassList,
                format!(
                    "service {service}: {ip} is in the pass-list, which names directors and \
                     testers; take it out of -x, or name the tested service's own address"
                ),
            );
        }
    }
    // Several targets may be held by different hosts: what this one lacks is a warning, as long as
    // it has some of them.
    let here = |service: &&SocketAddr| around.snapshot.is_local(service.ip());
    match need.services.first() {
        Some(first) if !need.services.iter().any(|service| here(&service)) => refuse(
            Danger::NotLocal,
            format!(
                "service {first}: this host does not have that address, so it sends no responses \
                 from it: add it (`ip address add {} dev lo`), or name the address that the service \
                 has here",
                prefixed(first.ip())
            ),
        ),
        Some(_) | None => Ok(()),
    }
}

/// Services that this host does not have.
pub fn elsewhere(need: &Need, snapshot: &Snapshot) -> Vec<String> {
    let missing = need
        .services
        .iter()
        .filter(|service| !snapshot.is_local(service.ip()));
    missing
        .map(|service| {
            format!(
                "this host does not have the address of {service}: if it is a real server of that \
                 service, add it (`ip address add {} dev lo`)",
                prefixed(service.ip())
            )
        })
        .collect()
}

fn prefixed(ip: IpAddr) -> String {
    format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })
}

fn pool(host: &HostConfig, need: &Need, around: &Circumstances<'_>) -> Result<(), Refusal> {
    for to in &need.pool {
        let shortest = if to.is_ipv4() {
            SHORTEST_V4
        } else {
            SHORTEST_V6
        };
        if need.services.is_empty() && to.length() < shortest {
            return refuse(
                Danger::Everything,
                format!(
                    "pool {to}: this would divert (nearly) all that this host sends; the shortest \
                     prefix without services is /{shortest}: name the services, or a smaller pool"
                ),
            );
        }
        if let Some(kind) = special(to) {
            return refuse(
                Danger::SpecialAddress,
                format!("pool {to}: it holds {kind} addresses, which no client has"),
            );
        }
        if let Some(passed) = host.pass_list.iter().find(|passed| passed.overlaps(to)) {
            return refuse(
                Danger::PassList,
                format!(
                    "pool {to}: it holds {passed} of the pass-list (directors, testers), whose \
                     responses are not diverted: give the replicas other addresses"
                ),
            );
        }
        let gateways = around.snapshot.default_gateways(host.table);
        if let Some(gateway) = gateways.iter().find(|ip| to.contains(**ip)) {
            return refuse(
                Danger::Gateway,
                format!("pool {to}: it holds {gateway}, a default gateway of this host"),
            );
        }
        let own = around.snapshot.addresses.iter();
        if let Some(own) = own.map(|it| it.ip).find(|ip| to.contains(*ip)) {
            return refuse(
                Danger::OwnAddress,
                format!("pool {to}: it holds {own}, an address of this host"),
            );
        }
        let holder = around.holder.filter(|ip| to.contains(*ip));
        if let Some(holder) = holder.filter(|_| need.services.is_empty()) {
            return refuse(
                Danger::Holder,
                format!(
                    "pool {to}: it holds {holder}, from which this very request comes: its answer \
                     and all control would be diverted"
                ),
            );
        }
    }
    Ok(())
}

/// What kind of address a prefix holds that no client can have (RFC 6890).
fn special(cidr: &Cidr) -> Option<&'static str> {
    let v4 = |a, b, length| Cidr::truncated(Ipv4Addr::new(a, b, 0, 0).into(), length);
    let v6 =
        |first, length| Cidr::truncated(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0).into(), length);
    let table = [
        (v4(127, 0, 8), "loopback"),
        (v4(224, 0, 4), "multicast"),
        (v4(0, 0, 8), "unspecified"),
        (v4(240, 0, 4), "reserved"),
        (v4(169, 254, 16), "link-local"),
        (Cidr::host(Ipv6Addr::LOCALHOST.into()), "loopback"),
        (Cidr::host(Ipv6Addr::UNSPECIFIED.into()), "unspecified"),
        (v6(0xff00, 8), "multicast"),
        (v6(0xfe80, 10), "link-local"),
    ];
    let found = table.iter().find(|(block, _)| block.overlaps(cidr));
    found.map(|(_, kind)| *kind)
}

/// A route that somebody has made to the pool is there for something.
fn other_routes(host: &HostConfig, need: &Need, around: &Circumstances<'_>) -> Result<(), Refusal> {
    let snapshot = around.snapshot;
    let others = snapshot.routes.iter().filter(|route| {
        route.to.length() > 0 && route.table != TABLE_LOCAL && !ours::route(host, route)
    });
    for route in others {
        // A gateway's route that is broader than the pool names nobody in particular.
        let hit = |to: &&Cidr| {
            let inside = to.contains(route.to.first()) && to.length() <= route.to.length();
            inside || (route.connected && to.overlaps(&route.to))
        };
        let Some(to) = need.pool.iter().find(hit) else {
            continue;
        };
        let device = route.link.and_then(|index| snapshot.link_at(index));
        let kind = if route.connected {
            "a network that this host is on"
        } else {
            "an existing route"
        };
        return refuse(
            Danger::Route,
            format!(
                "pool {to}: it overlaps {kind}, {} dev {} (table {}): hosts there would be cut \
                 off; name the services too, remove that route, or take another pool",
                route.to,
                device.map_or("?", |link| link.name.as_str()),
                route.table
            ),
        );
    }
    Ok(())
}

/// Rules of others that stand in our way.
///
/// # Errors
/// The first.
pub fn rules(host: &HostConfig, selectors: &Selectors, snapshot: &Snapshot) -> Result<(), Refusal> {
    let others = snapshot.rules.iter().filter(|rule| !ours::rule(host, rule));
    for rule in others {
        if rule.table == host.table {
            return refuse(
                Danger::Table,
                format!(
                    "the rule with preference {} of somebody else leads to our table {}: give \
                     another --table",
                    rule.priority, host.table
                ),
            );
        }
        if rule.priority == host.priority || rule.priority == host.divert_priority() {
            return refuse(
                Danger::Preference,
                format!(
                    "preference {} is taken by a rule of somebody else (ip {}rule): give another \
                     --priority",
                    rule.priority,
                    if rule.ipv4 { "" } else { "-6 " }
                ),
            );
        }
        if rule.priority > host.divert_priority() {
            continue;
        }
        if let Some(selector) = selectors.iter().find(|selector| wins(rule, selector)) {
            return refuse(
                Danger::RuleBefore,
                format!(
                    "the rule with preference {} (table {}) of somebody else comes before ours and \
                     takes {selector}: remove it (ip {}rule del pref {}), or give a --priority below \
                     {}",
                    rule.priority,
                    rule.table,
                    if rule.ipv4 { "" } else { "-6 " },
                    rule.priority,
                    rule.priority
                ),
            );
        }
    }
    Ok(())
}

/// Whether a rule that comes first may take what a selector takes.
fn wins(rule: &Rule, selector: &Selector) -> bool {
    let local = rule.table == TABLE_LOCAL || rule.action == ACTION_NOP;
    let of_others = rule.iif.as_ref().is_some_and(|iif| iif != "lo");
    let other_protocol = rule.ip_protocol.is_some_and(|protocol| protocol != 6);
    // What is selected by a mark, a user or the like is not what a server sends as a rule.
    if local || of_others || other_protocol || rule.narrowed || rule.ipv4 != selector.is_ipv4() {
        return false;
    }
    let from = match (rule.from, selector.service) {
        (Some(from), Some(service)) => from.contains(service.ip()),
        (Some(_), None) | (None, _) => true,
    };
    let port = match (rule.source_port, selector.service) {
        (Some((first, last)), Some(service)) => (first..=last).contains(&service.port()),
        (Some(_), None) | (None, _) => true,
    };
    let to = match (rule.to, selector.to) {
        (Some(rule), Some(selector)) => rule.overlaps(&selector),
        (Some(_), None) | (None, _) => true,
    };
    from && port && to
}

fn table(host: &HostConfig, snapshot: &Snapshot) -> Result<(), Refusal> {
    if matches!(host.table, 0 | TABLE_DEFAULT | TABLE_MAIN | TABLE_LOCAL) {
        return refuse(
            Danger::Table,
            format!(
                "table {} is the system's own (main, local, default): give another --table",
                host.table
            ),
        );
    }
    let others = snapshot.routes.iter();
    let mut others = others.filter(|route| route.table == host.table && !ours::route(host, route));
    match others.next() {
        Some(route) => refuse(
            Danger::Table,
            format!(
                "table {} holds a route of somebody else ({}, protocol {}): give another --table, \
                 or empty it (ip route flush table {})",
                host.table, route.to, route.protocol, host.table
            ),
        ),
        None => Ok(()),
    }
}

fn devices(host: &HostConfig, snapshot: &Snapshot) -> Result<(), Refusal> {
    if host.mode != Mode::Sink {
        return Ok(());
    }
    let foreign = |link: &&Link| link.group != GROUP;
    for name in [host.sink_device.clone(), host.sink_peer()] {
        if let Some(link) = snapshot.link(&name).filter(foreign) {
            return refuse(
                Danger::Device,
                format!(
                    "there is a device {} that is not ours (its group is {}, ours have {GROUP}): \
                     give another --sink-device",
                    link.name, link.group
                ),
            );
        }
    }
    Ok(())
}

fn assistant(
    host: &HostConfig,
    need: &Need,
    selectors: &Selectors,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    if host.mode != Mode::Assistant {
        return Ok(());
    }
    for ipv4 in [true, false] {
        if !selectors.iter().any(|selector| selector.is_ipv4() == ipv4) {
            continue;
        }
        let Some(ip) = host.assistant(ipv4) else {
            return refuse(
                Danger::Assistant,
                format!(
                    "there is no assistant for {}: give --assistant an address of each family \
                     that is tested",
                    if ipv4 { "IPv4" } else { "IPv6" }
                ),
            );
        };
        let not = |why: &str| {
            refuse(
                Danger::Assistant,
                format!(
                    "the assistant {ip} {why}: name another host in the same segment with \
                     --assistant"
                ),
            )
        };
        if snapshot.is_local(ip) {
            return not("is this host itself");
        }
        if let Some(kind) = special(&Cidr::host(ip)) {
            return not(&format!("is a {kind} address"));
        }
        if host.passes(ip) {
            return not("is in the pass-list, so it is a director or a tester");
        }
        if need.pool.iter().any(|to| to.contains(ip)) {
            return not("is in the client pool");
        }
        if snapshot.default_gateways(host.table).contains(&ip) {
            return not("is a default gateway, which would forward to the real clients");
        }
        let on_link = snapshot.routes.iter().any(|route| {
            route.kind == RouteKind::Unicast && route.connected && route.to.contains(ip)
        });
        if !on_link {
            return not("is in no network that this host is on");
        }
    }
    Ok(())
}
