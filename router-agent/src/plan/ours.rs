//! What of the kernel's state is ours: nothing else is ever removed.

use std::net::SocketAddr;

use crate::host::{GROUP, HostConfig};
use crate::kernel::firewall::{CHAIN, TABLE};
use crate::kernel::model::{Chain, Link, Route, Rule, Snapshot};
use crate::need::{Selector, Selectors};

/// Whether a policy rule is ours: our protocol number, and our preference.
pub fn rule(host: &HostConfig, rule: &Rule) -> bool {
    rule.protocol == host.protocol
        && (rule.priority == host.priority || rule.priority == host.divert_priority())
}

/// Whether a route is ours: our protocol number, in our table.
pub fn route(host: &HostConfig, route: &Route) -> bool {
    route.protocol == host.protocol && route.table == host.table
}

/// Whether a device is ours: a name of ours, and our group.
pub fn link(host: &HostConfig, link: &Link) -> bool {
    link.group == GROUP && (link.name == host.sink_device || link.name == host.sink_peer())
}

/// The sink device, if it is there and ours.
pub fn sink<'a>(host: &HostConfig, snapshot: &'a Snapshot) -> Option<&'a Link> {
    snapshot
        .link(&host.sink_device)
        .filter(|found| link(host, found))
}

/// What is diverted now, read back from our rules and chains.
pub fn diverted(host: &HostConfig, snapshot: &Snapshot) -> Selectors {
    let rules = snapshot
        .rules
        .iter()
        .filter(|it| rule(host, it) && it.priority == host.divert_priority());
    let of_rules = rules.filter_map(|rule| selector(rule.from, rule.to, rule.source_port));
    let mut selectors: Selectors = of_rules.collect();
    for chain in [&snapshot.chain_v4, &snapshot.chain_v6] {
        if chain.hooks > 0 {
            selectors.extend(chain.rules.iter().filter_map(|rule| parse(rule)));
        }
    }
    selectors
}

fn selector(
    from: Option<millrace_notation::address::Cidr>,
    to: Option<millrace_notation::address::Cidr>,
    port: Option<(u16, u16)>,
) -> Option<Selector> {
    let service = match (from, port) {
        (Some(from), Some((port, _))) => Some(SocketAddr::new(from.first(), port)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return None,
    };
    (service.is_some() || to.is_some()).then_some(Selector { service, to })
}

/// A rule of our chain that queues.
fn parse(rule: &str) -> Option<Selector> {
    let words: Vec<&str> = rule.split_whitespace().collect();
    let after = |option: &str| {
        let mut pairs = words
            .windows(2)
            .filter(|pair| pair.first() == Some(&option));
        pairs.next().and_then(|pair| pair.get(1)).copied()
    };
    if after("-j") != Some("NFQUEUE") {
        return None;
    }
    let port: Option<u16> = after("--sport").and_then(|port| port.parse().ok());
    selector(
        after("-s").and_then(|from| from.parse().ok()),
        after("-d").and_then(|to| to.parse().ok()),
        port.map(|port| (port, port)),
    )
}

/// Input of iptables-restore that puts `rules` into our chain, first in OUTPUT.
pub fn chain_program(chain: &Chain, rules: &[String]) -> String {
    let mut lines = vec![format!("*{TABLE}"), format!(":{CHAIN} - [0:0]")];
    lines.extend(rules.iter().map(|rule| format!("-A {CHAIN} {rule}")));
    if !chain.hooked_first {
        lines.extend(unhook(chain));
        lines.push(format!("-I OUTPUT 1 -j {CHAIN}"));
    }
    lines.push("COMMIT".to_owned());
    lines.join("\n") + "\n"
}

/// Input of iptables-restore that removes our chain.
pub fn chain_removal(chain: &Chain) -> String {
    let mut lines = vec![format!("*{TABLE}")];
    lines.extend(unhook(chain));
    lines.push(format!("-F {CHAIN}"));
    lines.push(format!("-X {CHAIN}"));
    lines.push("COMMIT".to_owned());
    lines.join("\n") + "\n"
}

fn unhook(chain: &Chain) -> Vec<String> {
    vec![format!("-D OUTPUT -j {CHAIN}"); chain.hooks]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queueing_rule_reads_back_as_its_selector() {
        let rule = "-s 198.18.5.1/32 -d 198.18.8.0/24 -p tcp -m tcp --sport 80 -j NFQUEUE --queue-num 36524";
        let read = parse(rule).unwrap();
        assert_eq!(read.service, Some("198.18.5.1:80".parse().unwrap()));
        assert_eq!(read.to, Some("198.18.8.0/24".parse().unwrap()));
        assert_eq!(parse("-d 198.18.8.1/32 -p tcp -j RETURN"), None);
    }
}
