//! The order of the steps, in a simulated kernel: at every moment of installing, changing and
//! removing any plan, a diverting rule has a floor under it, a blackhole behind it and the pass-list
//! before it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_router_agent::host::{GROUP, HostConfig, Mode};
use millrace_router_agent::kernel::model::{FloorState, Link, RouteKind, Snapshot};
use millrace_router_agent::kernel::step::Step;
use millrace_router_agent::need::{Selector, Selectors};
use millrace_router_agent::plan::layout::is_covered;
use millrace_router_agent::plan::{Layout, Ways, changes, ours};
use proptest::prelude::*;

fn host(mode: Mode) -> HostConfig {
    HostConfig {
        mode,
        assistants: vec![
            "198.18.2.30".parse().unwrap(),
            "2001:db8:2::30".parse().unwrap(),
        ],
        sink_device: "millrace0".to_owned(),
        table: 36_524,
        priority: 10_000,
        protocol: 152,
        queue: 36_524,
        pass_list: vec![
            "198.18.2.1".parse().unwrap(),
            "2001:db8:2::/64".parse().unwrap(),
        ],
        allow: None,
        force: Vec::new(),
        grace: Duration::from_secs(60),
        manage_sysctl: false,
        own_ports: Vec::new(),
        state_dir: PathBuf::new(),
    }
}

fn ways() -> Ways {
    Ways {
        v4: Some("eth0".to_owned()),
        v6: Some("eth0".to_owned()),
    }
}

fn link(index: u32, name: &str, group: u32) -> Link {
    Link {
        index,
        name: name.to_owned(),
        group,
        mtu: 1500,
        ..Link::default()
    }
}

/// What the kernel makes of nft's input: the table that was there goes, another may come.
fn take_floor(kernel: &mut Snapshot, lines: &str) {
    let chains: Vec<String> = lines
        .lines()
        .filter_map(|line| line.strip_prefix("chain ")?.strip_suffix(" {"))
        .map(str::to_owned)
        .collect();
    let is_rule = |line: &&str| line.ends_with(" accept") || line.ends_with(" drop");
    kernel.floor = FloorState {
        exists: !chains.is_empty(),
        chains,
        rules: lines.lines().filter(is_rule).count(),
    };
}

/// What the kernel would make of a step. Firewall chains are atomic and left out.
fn take(kernel: &mut Snapshot, step: &Step) {
    match step {
        Step::MakeSink {
            name, peer, group, ..
        } => {
            kernel.links.push(link(10, name, *group));
            kernel.links.push(link(11, peer, *group));
        }
        Step::Prepare { name } | Step::SetUp { name } => {
            let link = kernel
                .links
                .iter_mut()
                .find(|link| link.name == *name)
                .unwrap();
            match step {
                Step::Prepare { .. } => {
                    link.alias = millrace_router_agent::kernel::ALIAS.to_owned()
                }
                _ => (link.up, link.no_arp) = (true, true),
            }
        }
        Step::AddRoute { route, device } => {
            let mut route = route.clone();
            route.link = device.as_ref().map(|name| {
                let link = kernel.links.iter().find(|link| link.name == *name).unwrap();
                assert!(
                    link.up || link.name == "eth0",
                    "a route needs a device that is up"
                );
                link.index
            });
            let clash = |it: &&_| {
                let it: &millrace_router_agent::kernel::model::Route = it;
                (it.to, it.table, it.metric) == (route.to, route.table, route.metric)
            };
            assert!(kernel.routes.iter().find(clash).is_none(), "EEXIST: {step}");
            kernel.routes.push(route);
        }
        Step::DeleteRoute { route, .. } => kernel.routes.retain(|it| it != route),
        Step::AddRule(rule) => kernel.rules.push(rule.clone()),
        Step::DeleteRule(rule) => kernel.rules.retain(|it| it != rule),
        Step::DeleteLink { .. } => {
            let gone: Vec<u32> = kernel
                .links
                .iter()
                .filter(|it| it.group == GROUP)
                .map(|it| it.index)
                .collect();
            kernel.links.retain(|it| it.group != GROUP);
            kernel
                .routes
                .retain(|it| !it.link.is_some_and(|link| gone.contains(&link)));
        }
        Step::Floor { lines } | Step::RemoveFloor { lines } => take_floor(kernel, lines),
        Step::Firewall { .. } | Step::Sysctl { .. } => {}
    }
}

fn check(kernel: &Snapshot, host: &HostConfig, step: &Step) {
    for rule in kernel
        .rules
        .iter()
        .filter(|rule| rule.priority == host.divert_priority())
    {
        assert!(
            kernel.floor.exists,
            "after '{step}' a rule diverts without a floor under it"
        );
        let blackhole = kernel.routes.iter().any(|route| {
            route.kind == RouteKind::Blackhole
                && route.to.is_ipv4() == rule.ipv4
                && route.table == rule.table
        });
        assert!(
            blackhole,
            "after '{step}' a rule diverts into a table without a blackhole"
        );
        for passed in host.pass_list.iter().filter(|it| it.is_ipv4() == rule.ipv4) {
            let passes = kernel
                .rules
                .iter()
                .any(|it| it.priority == host.priority && it.to == Some(*passed));
            assert!(passes, "after '{step}' {passed} is diverted");
        }
    }
}

/// Goes from one plan to the next, killed after some steps of each; what stands at the end.
fn go(kernel: &mut Snapshot, host: &HostConfig, wanted: &Selectors, killed_after: usize) {
    let layout = Layout::new(host, wanted, &ways());
    for steps in [killed_after, usize::MAX] {
        for step in changes(host, &layout, kernel).iter().take(steps) {
            take(kernel, step);
            check(kernel, host, step);
        }
    }
    let rest = changes(host, &layout, kernel);
    let chains_only = rest
        .iter()
        .all(|step| matches!(step, Step::Firewall { .. }));
    assert!(chains_only, "the plan does not stand: {rest:?}");
    if host.mode != Mode::Nfqueue {
        let needed = wanted.iter().filter(|it| !is_covered(it, wanted));
        assert_eq!(ours::diverted(host, kernel), needed.copied().collect());
    }
}

fn selectors() -> impl Strategy<Value = Selectors> {
    let services = ["198.18.5.1:80", "198.18.5.1:81", "[2001:db8:5::1]:80"];
    let service = prop::sample::select(services.to_vec());
    let pool = prop::option::of(prop::sample::select(vec![
        "198.18.8.0/24",
        "2001:db8:8::/64",
    ]));
    let one = (service, pool).prop_map(|(service, pool)| {
        let service: SocketAddr = service.parse().unwrap();
        let to = pool
            .map(|pool| pool.parse::<millrace_notation::address::Cidr>().unwrap())
            .filter(|to| to.is_ipv4() == service.is_ipv4());
        Selector {
            service: Some(service),
            to,
        }
    });
    prop::collection::btree_set(one, 0..5)
}

proptest! {
    #[test]
    fn whatever_the_plans_and_wherever_it_is_killed_nothing_leaks_between_two_steps(
        plans in prop::collection::vec((selectors(), 0usize..14, 0u8..3), 1..6)
    ) {
        let mut kernel = Snapshot {
            links: vec![link(1, "lo", 0), link(2, "eth0", 0)],
            ..Snapshot::default()
        };
        for (wanted, killed_after, mode) in plans {
            let mode = [Mode::Sink, Mode::Assistant, Mode::Nfqueue][usize::from(mode)];
            go(&mut kernel, &host(mode), &wanted, killed_after);
        }
        go(&mut kernel, &host(Mode::Sink), &Selectors::new(), usize::MAX);
        prop_assert_eq!(kernel.links.len(), 2);
        prop_assert!(kernel.rules.is_empty() && kernel.routes.is_empty() && !kernel.floor.exists);
    }
}
