//! Ways to a target and back on which copies or answers are lost.

use std::net::IpAddr;

use millrace_integration::can_run;
use millrace_lab::load::Kind;
use millrace_lab::wait_for;

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
fn routed(change: &str) -> World {
    let mut world = World::new();
    world.guarded_target();
    let through = ["route add 198.18.2.20 via 198.18.2.1".to_owned()];
    world.live().ip(&through).unwrap();
    let router = &world.stage.router.host;
    router.check("sh", &["-c", change]).unwrap();
    world.copier(USUAL, &GUARDED);
    world
}

#[test]
fn a_router_that_drops_sources_of_others() {
    if !can_run() {
        return;
    }
    let world = routed("sysctl -qw net/ipv4/conf/eth0/rp_filter=1");
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

/// Clients upload, which notice nothing, and every byte is delivered. The copier names a way that takes less than its packets.
fn costs_no_byte(world: &World) {
    let client = world.stage.client().unwrap();
    let from: Vec<IpAddr> = client.addresses.iter().map(|it| it.v4.into()).collect();
    world.names(&["copying 100% of"], &[]);
    let uploads = || {
        let kind = Kind::Upload {
            size: 20_000,
            count: 10,
        };
        world.load(&client.host, &from, kind);
    };
    let words = [
        "went on with smaller packets alone",
        "`ping -M do -s 1472 198.18.2.20`",
        "(-M)",
    ];
    world.warns(&uploads, &words);
    wait_for("every byte", PATIENCE, || {
        let report = &world.status()["report"];
        report["bytes"]["wanted"].as_u64() > Some(200_000) && report["fidelity"] == 1.0
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", world.status()));
}

#[test]
fn a_way_that_swallows_long_packets_costs_no_byte() {
    if !can_run() {
        return;
    }
    // The MTU of a router on the way is 1400, and it says nothing.
    let swallow = "nft add table ip way; nft 'add chain ip way in { type filter hook prerouting priority -300; }'; \
                   nft add rule ip way in tcp dport 8080 ip length gt 1400 counter drop";
    let world = guarded(swallow, USUAL, &GUARDED);
    costs_no_byte(&world);
    let counter = world
        .target()
        .check("nft", &["list", "table", "ip", "way"])
        .unwrap();
    assert!(!counter.contains("packets 0 "), "{counter}");
}

#[test]
fn a_way_that_refuses_long_packets_costs_no_byte_and_tells_clients_nothing_that_they_heed() {
    if !can_run() {
        return;
    }
    let world = routed("ip route add 198.18.2.20 dev eth0 mtu lock 1400");
    costs_no_byte(&world);
    // The router told the addresses that copies bear, which are real clients': "fragmentation needed" (RFC 1191).
    let router = &world.stage.router.host;
    let counted = router.check("nstat", &["-asz", "IcmpOutDestUnreachs"]);
    let counted = counted.unwrap();
    let told = counted.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "IcmpOutDestUnreachs").then(|| words.next()?.parse::<u64>().ok())?
    });
    assert!(told > Some(0), "{counted}");
    // They have no such connection: the way to their server is as wide as before.
    let client = world.stage.client().unwrap();
    for server in ["198.18.2.10", "198.18.2.20"] {
        let route = client.host.check("ip", &["route", "get", server]).unwrap();
        assert!(!route.contains("mtu"), "{route}");
    }
}
