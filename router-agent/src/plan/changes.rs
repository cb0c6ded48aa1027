//! The steps from the kernel's state to a layout.
//!
//! The order keeps three promises at every moment, so also if the agent is killed between two steps:
//!
//! - While a diverting rule is in place, its table holds at least the blackhole: what is diverted
//!   never falls through to the routes behind, even if the sink device or the assistant goes.
//! - While a diverting rule is in place, so are the rules of the pass-list.
//!
//! - While a diverting rule is in place, the floor is, where this host can have one.
//!
//! So: floor, blackhole, device, route, pass rules, diverting rules; and the other way round to
//! remove.

use crate::host::{GROUP, HostConfig};
use crate::kernel::model::{Chain, Route, RouteKind, Rule, Snapshot};
use crate::kernel::step::Step;
use crate::plan::floor::{self, Floor};
use crate::plan::layout::{Layout, NamedRoute};
use crate::plan::ours;

/// MTU of a sink on a host without a default route.
const USUAL_MTU: u32 = 1500;

/// The steps, none if all is as it should be.
pub fn changes(host: &HostConfig, wanted: &Layout, now: &Snapshot) -> Vec<Step> {
    let mut steps = Vec::new();
    let routes = Routes::new(host, wanted, now);
    let missing = |floor: &&Floor| !floor.stands(&now.floor);
    let floor = wanted
        .floor
        .as_ref()
        .filter(missing)
        .map(|floor| Step::Floor {
            lines: floor.program(),
        });
    let added = |rule: &Rule| !now.rules.contains(rule);
    // A smaller floor comes after the rules that go, any other before those that come.
    let first = !now.floor.exists || wanted.divert_rules.iter().any(added);
    if first {
        steps.extend(floor.clone());
    }
    steps.extend(routes.missing(true));
    if wanted.sink {
        sink(host, now, &mut steps);
    }
    // The blackhole catches what the route that goes has diverted.
    steps.extend(routes.superfluous(false));
    steps.extend(routes.missing(false));
    let rules = |wanted: &[Rule]| -> Vec<Step> {
        let missing = wanted.iter().filter(|rule| !now.rules.contains(rule));
        missing.cloned().map(Step::AddRule).collect()
    };
    steps.extend(rules(&wanted.pass_rules));
    steps.extend(rules(&wanted.divert_rules));
    steps.extend(chain(true, wanted.chain_v4.as_deref(), &now.chain_v4));
    steps.extend(chain(false, wanted.chain_v6.as_deref(), &now.chain_v6));
    let gone = |priority: u32| {
        let own = now
            .rules
            .iter()
            .filter(move |rule| ours::rule(host, rule) && rule.priority == priority);
        own.filter(|rule| !wanted.divert_rules.contains(rule) && !wanted.pass_rules.contains(rule))
            .cloned()
            .map(Step::DeleteRule)
    };
    steps.extend(gone(host.divert_priority()));
    steps.extend(gone(host.priority));
    steps.extend(routes.superfluous(true));
    if !wanted.sink {
        let sink = now
            .links
            .iter()
            .find(|link| ours::link(host, link) && link.name == host.sink_device);
        // A pair that somebody has renamed one end of is found by the other.
        let any = sink.or_else(|| now.links.iter().find(|link| ours::link(host, link)));
        steps.extend(any.map(|link| Step::DeleteLink {
            name: link.name.clone(),
        }));
    }
    steps.extend(floor.filter(|_| !first));
    if wanted.floor.is_none() && now.floor.exists {
        let lines = floor::removal(&floor::table(host));
        steps.push(Step::RemoveFloor { lines });
    }
    steps
}

/// Makes the sink and sets it up, as far as it is not.
fn sink(host: &HostConfig, now: &Snapshot, steps: &mut Vec<Step>) {
    let (name, peer) = (host.sink_device.clone(), host.sink_peer());
    let ready = |name: &str| {
        let link = now.link(name)?;
        Some(link.up && link.no_arp && link.alias == crate::kernel::ALIAS)
    };
    if now.link(&name).is_none() {
        steps.push(Step::MakeSink {
            name: name.clone(),
            peer: peer.clone(),
            group: GROUP,
            mtu: mtu(host, now),
        });
    }
    let new = now.link(&name).is_none();
    // The other end first: without it a veth pair has no carrier.
    for (name, missing_is_fine) in [(peer, !new), (name, false)] {
        let ready = ready(&name).unwrap_or(missing_is_fine);
        if !ready {
            steps.push(Step::Prepare { name: name.clone() });
            steps.push(Step::SetUp { name });
        }
    }
}

/// The MTU of the way out: it decides which segment size the target offers to its peers.
fn mtu(host: &HostConfig, now: &Snapshot) -> u32 {
    let default = now
        .routes
        .iter()
        .filter(|route| route.to.length() == 0 && route.table != host.table)
        .find_map(|route| now.link_at(route.link?))
        .filter(|link| !link.loopback);
    default.map_or(USUAL_MTU, |link| link.mtu)
}

/// The routes wanted beside those that are there.
struct Routes<'a> {
    host: &'a HostConfig,
    wanted: &'a [NamedRoute],
    now: &'a Snapshot,
}

impl<'a> Routes<'a> {
    fn new(host: &'a HostConfig, wanted: &'a Layout, now: &'a Snapshot) -> Self {
        Self {
            host,
            wanted: &wanted.routes,
            now,
        }
    }

    /// Blackholes, or all others, that are missing.
    fn missing(&self, blackholes: bool) -> Vec<Step> {
        let kind = |route: &Route| (route.kind == RouteKind::Blackhole) == blackholes;
        let missing = self.wanted.iter().filter(|it| {
            kind(&it.route) && !self.now.routes.iter().any(|there| self.is(it, there))
        });
        missing
            .map(|it| Step::AddRoute {
                route: it.route.clone(),
                device: it.device.clone(),
            })
            .collect()
    }

    /// Blackholes, or all others, that are ours and not wanted.
    fn superfluous(&self, blackholes: bool) -> Vec<Step> {
        let own = self.now.routes.iter().filter(|route| {
            ours::route(self.host, route) && (route.kind == RouteKind::Blackhole) == blackholes
        });
        let mut gone: Vec<&Route> = own
            .filter(|there| !self.wanted.iter().any(|it| self.is(it, there)))
            .collect();
        // With all rules gone the order does not matter; with some it does, and those are kept.
        gone.sort_by_key(|route| (route.to.is_ipv4(), route.metric));
        gone.into_iter()
            .map(|route| Step::DeleteRoute {
                route: route.clone(),
                device: route
                    .link
                    .and_then(|index| self.now.link_at(index))
                    .map(|link| link.name.clone()),
            })
            .collect()
    }

    /// Whether a route that is there is the one wanted.
    fn is(&self, wanted: &NamedRoute, there: &Route) -> bool {
        let device = there.link.and_then(|index| self.now.link_at(index));
        let same_device = match wanted.route.kind {
            // IPv6 shows blackholes on the loopback device.
            RouteKind::Blackhole => true,
            RouteKind::Unicast | RouteKind::Local | RouteKind::Other(_) => {
                device.map(|link| link.name.as_str()) == wanted.device.as_deref()
            }
        };
        same_device
            && there.to == wanted.route.to
            && there.table == wanted.route.table
            && there.kind == wanted.route.kind
            && there.metric == wanted.route.metric
            && there.gateway == wanted.route.gateway
            && there.protocol == wanted.route.protocol
    }
}

/// Changes of our firewall chain.
fn chain(ipv4: bool, wanted: Option<&[String]>, now: &Chain) -> Option<Step> {
    let lines = match wanted {
        Some(rules) if !now.hooked_first || now.rules != rules => ours::chain_program(now, rules),
        None if now.exists || now.hooks > 0 => ours::chain_removal(now),
        Some(_) | None => return None,
    };
    Some(Step::Firewall { ipv4, lines })
}
