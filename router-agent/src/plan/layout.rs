//! What stands in the kernel when given packets are diverted.
//!
//! Every policy rule has `iif lo` and `ipproto tcp`. The first keeps it to packets that this host
//! itself sends, so that nothing that is forwarded is touched and incoming packets need not be
//! dissected. Together they keep it out of reverse path filtering (`rp_filter`): the look-up that
//! the kernel makes there has no protocol, so it finds the ways that were there before.

use crate::host::{BLACKHOLE_METRIC, HostConfig, METRIC, Mode, SINK_HOP_V4, SINK_HOP_V6};
use crate::kernel::model::{Route, RouteKind, Rule};
use crate::need::{Selector, Selectors};
use crate::plan::floor::Floor;
use millrace_notation::address::Cidr;

/// `iif lo`: packets of this host itself.
const OWN_PACKETS: &str = "lo";
/// `ipproto tcp`.
const TCP: u8 = 6;
/// `FR_ACT_TO_TBL`.
const TO_TABLE: u8 = 1;

/// On which device each family's assistant is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// Device towards the IPv4 assistant.
    pub v4: Option<String>,
    /// Device towards the IPv6 assistant.
    pub v6: Option<String>,
}

/// A route with its device's name: the device may not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedRoute {
    /// The route.
    pub route: Route,
    /// The device.
    pub device: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Whether the sink device is needed.
    pub sink: bool,
    /// Routes, the blackholes first.
    pub routes: Vec<NamedRoute>,
    /// Rules that let the pass-list through.
    pub pass_rules: Vec<Rule>,
    /// Rules that divert.
    pub divert_rules: Vec<Rule>,
    /// Rules of the IPv4 firewall chain; none: no chain.
    pub chain_v4: Option<Vec<String>>,
    /// Rules of the IPv6 firewall chain; none: no chain.
    pub chain_v6: Option<Vec<String>>,
    /// The floor under it all.
    pub floor: Option<Floor>,
}

impl Layout {
    /// What stands in the kernel when `selectors` are diverted on this host.
    pub fn new(host: &HostConfig, selectors: &Selectors, ways: &Ways) -> Self {
        let mut layout = Layout::default();
        for ipv4 in [true, false] {
            let of_family: Vec<&Selector> = selectors
                .iter()
                .filter(|selector| selector.is_ipv4() == ipv4 && !is_covered(selector, selectors))
                .collect();
            if of_family.is_empty() {
                continue;
            }
            match host.mode {
                Mode::Nfqueue => {
                    let chain = chain(host, ipv4, &of_family);
                    if ipv4 {
                        layout.chain_v4 = Some(chain);
                    } else {
                        layout.chain_v6 = Some(chain);
                    }
                }
                Mode::Sink | Mode::Assistant => layout.route_family(host, ipv4, &of_family, ways),
            }
        }
        layout.floor = Floor::under(host, selectors);
        layout.sink = host.mode == Mode::Sink && !selectors.is_empty();
        // Blackholes first, whatever the family.
        layout
            .routes
            .sort_by_key(|it| it.route.kind != RouteKind::Blackhole);
        layout
    }

    fn route_family(
        &mut self,
        host: &HostConfig,
        ipv4: bool,
        selectors: &[&Selector],
        ways: &Ways,
    ) {
        let (gateway, device) = match host.mode {
            Mode::Sink => {
                let hop = if ipv4 { SINK_HOP_V4 } else { SINK_HOP_V6 };
                (Some(hop), Some(host.sink_device.clone()))
            }
            Mode::Assistant | Mode::Nfqueue => {
                let way = if ipv4 { &ways.v4 } else { &ways.v6 };
                (host.assistant(ipv4), way.clone())
            }
        };
        self.routes.push(NamedRoute {
            route: default_route(host, ipv4, RouteKind::Blackhole, BLACKHOLE_METRIC),
            device: None,
        });
        // Without a way to the assistant the blackhole stands alone.
        if device.is_some() && gateway.is_some() {
            let mut route = default_route(host, ipv4, RouteKind::Unicast, METRIC);
            route.gateway = gateway;
            self.routes.push(NamedRoute { route, device });
        }
        let passing = host.pass_list.iter().filter(|to| to.is_ipv4() == ipv4);
        self.pass_rules.extend(passing.map(|to| Rule {
            to: Some(*to),
            table: crate::kernel::model::TABLE_MAIN,
            ..rule(host, ipv4, host.priority)
        }));
        self.divert_rules.extend(selectors.iter().map(|selector| {
            Rule {
                from: selector.service.map(|service| Cidr::host(service.ip())),
                to: selector.to,
                source_port: selector
                    .service
                    .map(|service| (service.port(), service.port())),
                ..rule(host, ipv4, host.divert_priority())
            }
        }));
    }
}

/// Whether another selector takes all that this one takes. Beside a broader rule a narrower one would
/// be of no use, and the kernel could not tell them apart: to remove the broader one, it takes the first
/// that has what is named (`fib_nl_delrule` in net/core/fib_rules.c).
pub fn is_covered(selector: &Selector, all: &Selectors) -> bool {
    all.iter().any(|other| {
        other != selector
            && other.service.is_none_or(|it| Some(it) == selector.service)
            && other.to.is_none_or(|it| Some(it) == selector.to)
    })
}

fn default_route(host: &HostConfig, ipv4: bool, kind: RouteKind, metric: u32) -> Route {
    let any: std::net::IpAddr = if ipv4 { [0; 4].into() } else { [0; 16].into() };
    Route {
        to: Cidr::truncated(any, 0),
        table: host.table,
        protocol: host.protocol,
        kind,
        metric,
        link: None,
        gateway: None,
        connected: false,
    }
}

fn rule(host: &HostConfig, ipv4: bool, priority: u32) -> Rule {
    Rule {
        ipv4,
        priority,
        from: None,
        to: None,
        iif: Some(OWN_PACKETS.to_owned()),
        ip_protocol: Some(TCP),
        source_port: None,
        table: host.table,
        action: TO_TABLE,
        protocol: host.protocol,
        narrowed: false,
    }
}

/// The chain's rules, written as iptables-save writes them, so that they compare.
fn chain(host: &HostConfig, ipv4: bool, selectors: &[&Selector]) -> Vec<String> {
    let passing = host.pass_list.iter().filter(|to| to.is_ipv4() == ipv4);
    let mut rules: Vec<String> = passing
        .map(|to| format!("-d {} -p tcp -j RETURN", full(to)))
        .collect();
    for selector in selectors {
        let mut words = Vec::new();
        if let Some(service) = selector.service {
            words.push(format!("-s {}", full(&Cidr::host(service.ip()))));
        }
        if let Some(to) = selector.to {
            words.push(format!("-d {}", full(&to)));
        }
        words.push("-p tcp".to_owned());
        if let Some(service) = selector.service {
            words.push(format!("-m tcp --sport {}", service.port()));
        }
        words.push(format!("-j NFQUEUE --queue-num {}", host.queue));
        rules.push(words.join(" "));
    }
    rules
}

/// With its length, even of a single address.
fn full(cidr: &Cidr) -> String {
    format!("{}/{}", cidr.first(), cidr.length())
}
