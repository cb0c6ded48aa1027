//! Reading devices, addresses, rules and routes (`rtnetlink(7)`). A message that makes no sense is
//! left out.

use std::io;
use std::net::IpAddr;

use super::model::{Address, Link, Route, RouteKind, Rule};
use super::numbers::{
    AF_INET, AF_INET6, AF_UNSPEC, FRA_DST, FRA_IIFNAME, FRA_IP_PROTO, FRA_PRIORITY, FRA_PROTOCOL,
    FRA_SPORT_MASK, FRA_SPORT_RANGE, FRA_SRC, FRA_SUPPRESS_IFGROUP, FRA_SUPPRESS_PREFIXLEN,
    FRA_TABLE, IFA_ADDRESS, IFA_LOCAL, IFADDRMSG, IFF_LOOPBACK, IFF_NOARP, IFF_UP, IFINFOMSG,
    IFLA_GROUP, IFLA_IFALIAS, IFLA_IFNAME, IFLA_INFO_KIND, IFLA_LINKINFO, IFLA_MTU, RT_SCOPE_LINK,
    RTA_DST, RTA_GATEWAY, RTA_OIF, RTA_PRIORITY, RTA_TABLE, RTA_VIA, RTM_GETADDR, RTM_GETLINK,
    RTM_GETROUTE, RTM_GETRULE, RTMSG, RTN_BLACKHOLE, RTN_LOCAL, RTN_UNICAST,
};
use millrace_netlink::Netlink;
use millrace_netlink::message::{
    Attributes, address as ip, attributes, text, u8_at, u16_at, u32_at,
};
use millrace_notation::address::Cidr;

/// `RTM_F_CLONED`: an entry of a cache, no route.
const CLONED: u32 = 0x200;

pub(super) fn links(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    netlink.dump(RTM_GETLINK, &[0; IFINFOMSG], &Attributes::new(), link)
}

pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    netlink.dump(RTM_GETADDR, &[0; IFADDRMSG], &Attributes::new(), address)
}

/// Rules of both families, IPv4 first, each in order of preference.
pub(super) fn rules(netlink: &mut Netlink) -> io::Result<Vec<Rule>> {
    let mut all = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut fixed = [0; RTMSG];
        fixed[0] = family;
        let mut rules = match netlink.dump(RTM_GETRULE, &fixed, &Attributes::new(), rule) {
            Ok(rules) => rules,
            // A kernel without IPv6 has no rules of it.
            Err(_) if family == AF_INET6 => Vec::new(),
            Err(error) => return Err(error),
        };
        rules.sort_by_key(|rule| rule.priority);
        all.extend(rules);
    }
    Ok(all)
}

/// Routes of all tables and both families.
pub(super) fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    let mut fixed = [0; RTMSG];
    fixed[0] = AF_UNSPEC;
    netlink.dump(RTM_GETROUTE, &fixed, &Attributes::new(), route)
}

fn link(body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)?;
    let mut link = Link {
        index: u32_at(body, 4)?,
        up: flags & IFF_UP != 0,
        no_arp: flags & IFF_NOARP != 0,
        loopback: flags & IFF_LOOPBACK != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body, IFINFOMSG) {
        match kind {
            IFLA_IFNAME => link.name = text(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_GROUP => link.group = u32_at(value, 0)?,
            IFLA_MTU => link.mtu = u32_at(value, 0)?,
            IFLA_LINKINFO => {
                let found = attributes(value, 0).find(|(inner, _)| *inner == IFLA_INFO_KIND);
                link.kind = found.map(|(_, name)| text(name)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn address(body: &[u8]) -> Option<Address> {
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(body, IFADDRMSG) {
        match kind {
            // On a point-to-point device IFA_ADDRESS is the other end.
            IFA_LOCAL => local = ip(value),
            IFA_ADDRESS => other = ip(value),
            _ => {}
        }
    }
    Some(Address {
        ip: local.or(other)?,
        prefix: u8_at(body, 1)?,
        link: u32_at(body, 4)?,
    })
}

fn rule(body: &[u8]) -> Option<Rule> {
    let ipv4 = u8_at(body, 0)? == AF_INET;
    let (to_length, from_length) = (u8_at(body, 1)?, u8_at(body, 2)?);
    let mut rule = Rule {
        ipv4,
        priority: 0,
        from: None,
        to: None,
        iif: None,
        ip_protocol: None,
        source_port: None,
        table: u8_at(body, 4)?.into(),
        action: u8_at(body, 7)?,
        protocol: 0,
        // A type of service selects too.
        narrowed: u8_at(body, 3)? != 0,
    };
    for (kind, value) in attributes(body, RTMSG) {
        match kind {
            FRA_DST => rule.to = Some(Cidr::truncated(ip(value)?, to_length)),
            FRA_SRC => rule.from = Some(Cidr::truncated(ip(value)?, from_length)),
            FRA_IIFNAME => rule.iif = Some(text(value)),
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_TABLE => rule.table = u32_at(value, 0)?,
            FRA_PROTOCOL => rule.protocol = u8_at(value, 0)?,
            FRA_IP_PROTO => rule.ip_protocol = Some(u8_at(value, 0)?),
            FRA_SPORT_RANGE => {
                rule.source_port = Some((u16_at(value, 0)?, u16_at(value, 2)?));
            }
            FRA_SPORT_MASK if u16_at(value, 0) == Some(u16::MAX) => {}
            // Always there, and no selectors.
            FRA_SUPPRESS_PREFIXLEN | FRA_SUPPRESS_IFGROUP => {}
            _ => rule.narrowed = true,
        }
    }
    Some(rule)
}

fn route(body: &[u8]) -> Option<Route> {
    if u32_at(body, 8)? & CLONED != 0 {
        return None;
    }
    let unspecified: IpAddr = match u8_at(body, 0)? {
        AF_INET => [0; 4].into(),
        AF_INET6 => [0; 16].into(),
        _ => return None,
    };
    let length = u8_at(body, 1)?;
    let mut route = Route {
        to: Cidr::truncated(unspecified, length),
        table: u8_at(body, 4)?.into(),
        protocol: u8_at(body, 5)?,
        kind: match u8_at(body, 7)? {
            RTN_UNICAST => RouteKind::Unicast,
            RTN_LOCAL => RouteKind::Local,
            RTN_BLACKHOLE => RouteKind::Blackhole,
            other => RouteKind::Other(other),
        },
        metric: 0,
        link: None,
        gateway: None,
        connected: u8_at(body, 6)? == RT_SCOPE_LINK,
    };
    for (kind, value) in attributes(body, RTMSG) {
        match kind {
            RTA_DST => route.to = Cidr::truncated(ip(value)?, length),
            RTA_TABLE => route.table = u32_at(value, 0)?,
            RTA_PRIORITY => route.metric = u32_at(value, 0)?,
            RTA_OIF => route.link = u32_at(value, 0),
            RTA_GATEWAY => route.gateway = ip(value),
            // `struct rtvia`: the family, then the address.
            RTA_VIA => route.gateway = ip(value.get(2..)?),
            _ => {}
        }
    }
    // IPv6 knows no scopes: what has a device and no gateway is connected.
    if !route.to.is_ipv4() {
        route.connected = route.kind == RouteKind::Unicast && route.gateway.is_none();
    }
    Some(route)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_hosts_own_state_is_read() {
        let mut netlink = Netlink::route().unwrap();
        let links = links(&mut netlink).unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert!(lo.loopback);
        let rules = rules(&mut netlink).unwrap();
        let local = rules.iter().find(|rule| rule.priority == 0).unwrap();
        assert_eq!((local.table, local.action, local.narrowed), (255, 1, false));
        assert!(routes(&mut netlink).is_ok());
        assert!(addresses(&mut netlink).is_ok());
    }

    proptest! {
        #[test]
        fn any_message_is_read_or_left_out(body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (link(&body), address(&body), rule(&body), route(&body));
        }
    }
}
