//! Ways to a target and back on which copies or answers are lost.

use std::net::IpAddr;

use millrace_integration::{Family, can_run};
use millrace_lab::load::Kind;
use millrace_lab::{Host, wait_for};

use super::{ASSISTED, GUARDED, PATIENCE, TO_ASSISTANT, USUAL, World, assisted, guarded};

#[test]
fn a_route_that_was_forgotten_or_leads_to_another_host() {
    if !can_run() {
        return;
    }
    let words = [
        "not diverted: 198.18.2.20:8080 takes connections of this host",
        "`ip route get CLIENT from 198.18.2.20 ipproto tcp sport 8080` must lead to 198.18.2.30",
    ];
    assisted(":", USUAL).names(&words, &[]);
    assisted("ip route add 198.18.1.0/24 via 198.18.2.1", USUAL).names(&words, &[]);
}

#[test]
fn an_assistant_that_forwards() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world
        .assistant()
        .sysctl("net/ipv4/ip_forward", "1")
        .unwrap();
    world.assisted_target();
    world.copier(USUAL, &ASSISTED);
    world.names(&["this host forwards packets", "sysctl -w"], &[]);
}

#[test]
fn clients_in_the_targets_own_network() {
    if !can_run() {
        return;
    }
    // The target answers them at once, past the assistant.
    let world = assisted(TO_ASSISTANT, USUAL);
    let router = &world.stage.router;
    let near = [router.address.v4.into()];
    let words = ["not diverted", "its own network", "--router-agent", "(-c)"];
    world.names_to(&|| world.requests(&router.host, &near), &words, &[]);
}

/// A world whose live host reaches the target through the router, with what is changed there.
fn routed(change: &str, service: &str) -> World {
    let mut world = World::new();
    world.guarded_target();
    let through = [
        "route add 198.18.2.20 via 198.18.2.1",
        "route add 2001:db8:2::20 via 2001:db8:2::1",
    ];
    world.live().ip(&through.map(str::to_owned)).unwrap();
    let router = &world.stage.router.host;
    router.check("sh", &["-c", change]).unwrap();
    world.copier(service, &GUARDED);
    world
}

#[test]
fn a_router_that_drops_sources_of_others() {
    if !can_run() {
        return;
    }
    let world = routed("sysctl -qw net/ipv4/conf/eth0/rp_filter=1", USUAL);
    let cure = "sysctl -w net/ipv4/conf/all/rp_filter=2";
    let words = [
        "on the way drops sources that are not of this host",
        "tcpdump -ni any 'host CLIENT and tcp port 8080'",
        cure,
    ];
    world.names(&words, &[]);
    let router = &world.stage.router.host;
    router.check("sh", &["-c", cure]).unwrap();
    world.names(&["copying 100% of"], &[]);

    // An assistant sees answers alone: that the route is missing looks the same from there.
    let mut world = World::new();
    world.assisted_target();
    let drop = "nft add table ip spoof; nft 'add chain ip spoof out { type filter hook postrouting priority 0; }'; \
                nft add rule ip spoof out ip saddr 198.18.1.0/24 ip daddr 198.18.2.20 counter drop";
    let through = ["route add 198.18.2.20 via 198.18.2.1".to_owned()];
    world.live().ip(&through).unwrap();
    let router = world.stage.router.host.clone();
    router.check("sh", &["-c", drop]).unwrap();
    let change = ["-c", TO_ASSISTANT];
    world.target().check("sh", &change).unwrap();
    world.copier(USUAL, &ASSISTED);
    world.names(&["something on the way drops foreign sources"], &[]);
    let counted = router.check("nft", &["list", "table", "ip", "spoof"]);
    let counted = counted.unwrap();
    assert!(!counted.contains("packets 0 "), "{counted}");
}

/// Clients from these addresses upload, which notice nothing.
fn uploads(world: &World, from: &[IpAddr]) {
    let client = &world.stage.client().unwrap().host;
    let kind = Kind::Upload {
        size: 20_000,
        count: 10,
    };
    world.load(client, from, kind);
}

/// All addresses of clients of a family.
fn clients(world: &World, family: Family) -> Vec<IpAddr> {
    let client = world.stage.client().unwrap();
    client.addresses.iter().map(|it| family.of(*it)).collect()
}

/// Waits until every byte of the uploads is delivered.
fn costs_no_byte(world: &World) {
    wait_for("every byte", PATIENCE, || {
        let report = &world.status()["report"];
        report["bytes"]["wanted"].as_u64() > Some(200_000) && report["fidelity"] == 1.0
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", world.status()));
}

/// What a host has counted under this name.
fn counted(host: &Host, name: &str) -> u64 {
    let all = host.check("nstat", &["-asz", name]).unwrap();
    let line = all.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// What the copier says of a way that takes less than its packets.
const TOO_LONG: [&str; 2] = ["went on with smaller packets alone", "(-M)"];

#[test]
fn a_way_that_swallows_long_packets_costs_no_byte() {
    if !can_run() {
        return;
    }
    // The MTU of a router on the way is 1400, and it says nothing.
    let swallow = "nft add table ip way; nft 'add chain ip way in { type filter hook prerouting priority -300; }'; \
                   nft add rule ip way in tcp dport 8080 ip length gt 1400 counter drop";
    let world = guarded(swallow, USUAL, &GUARDED);
    world.names(&["copying 100% of"], &[]);
    let from = clients(&world, Family::V4);
    let words = [&TOO_LONG[..], &["`ping -M do -s 1472 198.18.2.20`"]].concat();
    world.warns(&|| uploads(&world, &from), &words);
    costs_no_byte(&world);
    let counter = world
        .target()
        .check("nft", &["list", "table", "ip", "way"])
        .unwrap();
    assert!(!counter.contains("packets 0 "), "{counter}");
}

#[test]
fn a_router_that_refuses_long_packets_tells_real_clients_who_do_not_heed_it() {
    if !can_run() {
        return;
    }
    let narrow = "ip route add 2001:db8:2::20 dev eth0 mtu lock 1400";
    let world = routed(narrow, "8080-[2001:db8:2::20]:8080");
    let from = clients(&world, Family::V6);
    let client = world.stage.client().unwrap();
    let few = || world.requests(&client.host, &from);
    world.names_to(&few, &["copying 100% of"], &[]);
    let words = [&TOO_LONG[..], &["`ping -M do -s 1452 2001:db8:2::20`"]].concat();
    world.warns(&|| uploads(&world, &from), &words);
    costs_no_byte(&world);
    // It told the addresses that copies bear (RFC 8201): they have no such connection, and the way to their own server is
    // as wide as before.
    assert!(counted(&world.stage.router.host, "Icmp6OutPktTooBigs") > 0);
    for server in ["2001:db8:2::10", "2001:db8:2::20"] {
        let route = client.host.check("ip", &["route", "get", server]).unwrap();
        assert!(!route.contains(" mtu "), "{route}");
    }
}

#[test]
fn a_router_that_cuts_long_packets_costs_nothing() {
    if !can_run() {
        return;
    }
    // Copies of IPv4 may be fragmented (RFC 791): no router has to refuse one.
    let world = routed("ip route add 198.18.2.20 dev eth0 mtu lock 1400", USUAL);
    world.names(&["copying 100% of"], &[]);
    let from = clients(&world, Family::V4);
    uploads(&world, &from);
    costs_no_byte(&world);
    world.names_to(&|| uploads(&world, &from), &["copying 100% of"], &[]);
    assert!(counted(&world.stage.router.host, "IpFragCreates") > 0);
    let client = &world.stage.client().unwrap().host;
    assert_eq!(counted(client, "IcmpInDestUnreachs"), 0);
}
