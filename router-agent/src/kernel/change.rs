//! Making one change in the kernel.

use std::io;

use super::model::{Route, RouteKind, Rule};
use super::numbers::{
    ACTION_TO_TABLE, ADDR_GEN_NONE, AF_INET, AF_INET6, AF_UNSPEC, FRA_DST, FRA_IIFNAME,
    FRA_IP_PROTO, FRA_PRIORITY, FRA_PROTOCOL, FRA_SPORT_RANGE, FRA_SRC, FRA_TABLE, IFF_NOARP,
    IFF_UP, IFINFOMSG, IFLA_AF_SPEC, IFLA_GROUP, IFLA_IFALIAS, IFLA_IFNAME,
    IFLA_INET6_ADDR_GEN_MODE, IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU,
    RT_SCOPE_UNIVERSE, RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PRIORITY, RTA_TABLE, RTM_DELLINK,
    RTM_DELROUTE, RTM_DELRULE, RTM_NEWLINK, RTM_NEWROUTE, RTM_NEWRULE, RTM_SETLINK, RTMSG,
    RTN_BLACKHOLE, RTN_LOCAL, RTN_UNICAST, RTNH_F_ONLINK, VETH_INFO_PEER,
};
use millrace_netlink::Netlink;
use millrace_netlink::message::{Attributes, CREATE, EXCLUSIVE, octets};

/// Text by which people know our devices (`ip link` shows it).
pub const ALIAS: &str = "millrace: sink of copied responses";

fn family(ipv4: bool) -> u8 {
    if ipv4 { AF_INET } else { AF_INET6 }
}

/// `struct ifinfomsg`.
fn ifinfomsg(index: u32, flags: u32) -> Vec<u8> {
    let mut fixed = vec![AF_UNSPEC, 0, 0, 0];
    fixed.extend(index.to_ne_bytes());
    fixed.extend(flags.to_ne_bytes());
    // Which flags are meant.
    fixed.extend(flags.to_ne_bytes());
    fixed
}

/// Makes the sink, down: a dummy device, or where the kernel has none a veth pair. The group, by
/// which it is known to be ours, is set by the same operation.
pub(super) fn make_sink(
    netlink: &mut Netlink,
    name: &str,
    peer: &str,
    group: u32,
    mtu: u32,
) -> io::Result<()> {
    let named = |name: &str| {
        Attributes::new()
            .with_text(IFLA_IFNAME, name)
            .with_u32(IFLA_GROUP, group)
            .with_u32(IFLA_MTU, mtu)
    };
    let fixed = ifinfomsg(0, IFF_NOARP);
    let dummy = Attributes::new().with_text(IFLA_INFO_KIND, "dummy");
    let dummy = named(name).with_nested(IFLA_LINKINFO, &dummy);
    match netlink.change(RTM_NEWLINK, CREATE | EXCLUSIVE, &fixed, &dummy) {
        Err(error)
            if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::OPNOTSUPP) => {}
        made => return made,
    }
    // VETH_INFO_PEER holds a `struct ifinfomsg` and the attributes of the other end.
    let mut other = vec![0; IFINFOMSG];
    other.extend(named(peer).bytes());
    let data = Attributes::new().with(VETH_INFO_PEER, &other);
    let veth = Attributes::new()
        .with_text(IFLA_INFO_KIND, "veth")
        .with_nested(IFLA_INFO_DATA, &data);
    let veth = named(name).with_nested(IFLA_LINKINFO, &veth);
    netlink.change(RTM_NEWLINK, CREATE | EXCLUSIVE, &fixed, &veth)
}

/// Has a device make no address of IPv6 by itself, and names it for people.
pub(super) fn prepare(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mode = Attributes::new().with(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_NONE]);
    let inet6 = Attributes::new().with_nested(AF_INET6.into(), &mode);
    let alias = Attributes::new().with(IFLA_IFALIAS, ALIAS.as_bytes());
    let both = alias.clone().with_nested(IFLA_AF_SPEC, &inet6);
    match netlink.change(RTM_SETLINK, 0, &ifinfomsg(index, 0), &both) {
        // A kernel without IPv6 has nothing to turn off.
        Err(error)
            if matches!(
                rustix::io::Errno::from_io_error(&error),
                Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::OPNOTSUPP)
            ) =>
        {
            netlink.change(RTM_SETLINK, 0, &ifinfomsg(index, 0), &alias)
        }
        done => done,
    }
}

/// Sets a device up, without ARP.
pub(super) fn set_up(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let flags = ifinfomsg(index, IFF_UP | IFF_NOARP);
    netlink.change(RTM_SETLINK, 0, &flags, &Attributes::new())
}

/// Removes a device; a veth pair goes as a whole.
pub(super) fn delete_link(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    netlink.change(RTM_DELLINK, 0, &ifinfomsg(index, 0), &Attributes::new())
}

pub(super) fn add_route(netlink: &mut Netlink, route: &Route) -> io::Result<()> {
    let (fixed, attributes) = route_message(route);
    netlink.change(RTM_NEWROUTE, CREATE | EXCLUSIVE, &fixed, &attributes)
}

pub(super) fn delete_route(netlink: &mut Netlink, route: &Route) -> io::Result<()> {
    let (fixed, attributes) = route_message(route);
    netlink.change(RTM_DELROUTE, 0, &fixed, &attributes)
}

fn route_message(route: &Route) -> (Vec<u8>, Attributes) {
    let kind = match route.kind {
        RouteKind::Unicast => RTN_UNICAST,
        RouteKind::Local => RTN_LOCAL,
        RouteKind::Blackhole => RTN_BLACKHOLE,
        RouteKind::Other(kind) => kind,
    };
    let length = route.to.length();
    // Tables above 255 are named by their attribute alone.
    let table = u8::try_from(route.table).unwrap_or(0);
    let mut fixed = vec![
        family(route.to.is_ipv4()),
        length,
        0,
        0,
        table,
        route.protocol,
        RT_SCOPE_UNIVERSE,
        kind,
    ];
    let flags = if route.gateway.is_some() {
        RTNH_F_ONLINK
    } else {
        0
    };
    fixed.extend(flags.to_ne_bytes());
    let mut attributes = Attributes::new()
        .with_u32(RTA_TABLE, route.table)
        .with_u32(RTA_PRIORITY, route.metric);
    if length > 0 {
        attributes = attributes.with(RTA_DST, &octets(route.to.first()));
    }
    if let Some(gateway) = route.gateway {
        attributes = attributes.with(RTA_GATEWAY, &octets(gateway));
    }
    // A blackhole of IPv6 shows the loopback device, which it must not be given.
    if let (RouteKind::Unicast, Some(link)) = (route.kind, route.link) {
        attributes = attributes.with_u32(RTA_OIF, link);
    }
    (fixed, attributes)
}

pub(super) fn add_rule(netlink: &mut Netlink, rule: &Rule) -> io::Result<()> {
    let (fixed, attributes) = rule_message(rule);
    // Not exclusive: to the kernel a rule "exists" as soon as there is a narrower one, since what the
    // new one leaves open fits anything (rule_exists in net/core/fib_rules.c).
    netlink.change(RTM_NEWRULE, CREATE, &fixed, &attributes)
}

pub(super) fn delete_rule(netlink: &mut Netlink, rule: &Rule) -> io::Result<()> {
    let (fixed, attributes) = rule_message(rule);
    netlink.change(RTM_DELRULE, 0, &fixed, &attributes)
}

fn rule_message(rule: &Rule) -> (Vec<u8>, Attributes) {
    let length = |cidr: Option<millrace_notation::address::Cidr>| cidr.map_or(0, |it| it.length());
    let table = u8::try_from(rule.table).unwrap_or(0);
    let mut fixed = vec![
        family(rule.ipv4),
        length(rule.to),
        length(rule.from),
        0,
        table,
        0,
        0,
        ACTION_TO_TABLE,
    ];
    fixed.resize(RTMSG, 0);
    let mut attributes = Attributes::new()
        .with_u32(FRA_PRIORITY, rule.priority)
        .with_u32(FRA_TABLE, rule.table)
        .with(FRA_PROTOCOL, &[rule.protocol]);
    if let Some(to) = rule.to {
        attributes = attributes.with(FRA_DST, &octets(to.first()));
    }
    if let Some(from) = rule.from {
        attributes = attributes.with(FRA_SRC, &octets(from.first()));
    }
    if let Some(iif) = &rule.iif {
        attributes = attributes.with_text(FRA_IIFNAME, iif);
    }
    if let Some(protocol) = rule.ip_protocol {
        attributes = attributes.with(FRA_IP_PROTO, &[protocol]);
    }
    if let Some((first, last)) = rule.source_port {
        let mut range = first.to_ne_bytes().to_vec();
        range.extend(last.to_ne_bytes());
        attributes = attributes.with(FRA_SPORT_RANGE, &range);
    }
    (fixed, attributes)
}
