//! What the router-agent does to a host: it diverts what it should and nothing else, refuses what
//! would hurt, and leaves the host as it was.
#![allow(clippy::too_many_lines)]

use std::time::Duration;

use millrace_integration::target_host::{
    MODES, PASS_LIST, PORT, SERVICES, TargetHost, client, connect_from, difference, service,
    tester, vip, with,
};
use millrace_integration::{Family, can_run};

#[test]
fn every_mode_diverts_all_but_the_pass_list_of_both_families() {
    if !can_run() {
        return;
    }
    for (name, mode) in MODES {
        let scene = TargetHost::new();
        let _server = scene.serve();
        for family in Family::BOTH {
            assert!(
                scene.answers(client(family)),
                "{name}: the way is open before"
            );
        }
        let before = scene.leaked();
        assert!(before > 0, "leaks would be counted");
        scene
            .agent(&with(&["apply", "-s", SERVICES], mode))
            .unwrap();
        // The connections from before go on speaking, and are diverted too.
        std::thread::sleep(Duration::from_millis(200));
        let start = scene.leaked();
        for family in Family::BOTH {
            assert!(
                !scene.answers(client(family)),
                "{name}: clients are not answered"
            );
            assert!(scene.answers(tester(family)), "{name}: testers are");
        }
        assert_eq!(scene.leaked(), start, "{name}");
        match name {
            "sink" => assert!(scene.in_sink() > 0),
            "assistant" => assert!(scene.at_assistant() > 0),
            _ => {}
        }
    }
}

#[test]
fn a_pool_diverts_only_what_goes_to_it() {
    if !can_run() {
        return;
    }
    for (name, mode) in MODES {
        let scene = TargetHost::new();
        let _server = scene.serve();
        let pool = ["apply", "-c", "198.18.1.0/28,2001:db8:1::/64"];
        scene.agent(&with(&pool, mode)).unwrap();
        let other = "198.18.1.200".parse().unwrap();
        scene.outside.add_address("lo", other, 32).unwrap();
        assert!(scene.answers(other), "{name}: outside of the pool");
        for family in Family::BOTH {
            assert!(!scene.answers(client(family)), "{name}");
            assert!(scene.answers(tester(family)), "{name}");
        }
    }
}

#[test]
fn after_remove_the_host_is_as_it_was_compared_in_full() {
    if !can_run() {
        return;
    }
    for (name, mode) in MODES {
        let scene = TargetHost::new();
        // Settings that --manage-sysctl has to change.
        scene
            .target
            .sysctl("net/ipv4/conf/all/rp_filter", "1")
            .unwrap();
        scene
            .target
            .ip(&["route add 192.0.2.0/24 dev lo".to_owned()])
            .unwrap();
        let before = scene.picture();
        let plan = scene
            .agent(&with(&["plan", "-s", SERVICES, "--manage-sysctl"], mode))
            .unwrap();
        assert!(
            plan.contains("sysctl -w net/ipv4/conf/eth0/arp_ignore=1"),
            "{plan}"
        );
        assert!(scene.picture() == before, "{name}: plan touches nothing");
        scene
            .agent(&with(&["apply", "-s", SERVICES, "--manage-sysctl"], mode))
            .unwrap();
        let applied = scene.picture();
        assert!(applied != before);
        for (key, value) in [
            ("rp_filter", "2"),
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
        ] {
            let line = format!("net.ipv4.conf.eth0.{key} = {value}\n");
            assert!(applied.contains(&line), "{name}: {line}");
        }
        let again = scene
            .agent(&with(&["apply", "-s", SERVICES, "--manage-sysctl"], mode))
            .unwrap();
        assert!(again.contains("0 steps"), "{again}");
        scene.agent(&with(&["remove"], mode)).unwrap();
        let after = scene.picture();
        assert!(after == before, "{name}: {}", difference(&before, &after));
        let nothing = scene.agent(&with(&["remove"], mode)).unwrap();
        assert_eq!(nothing, "there was nothing to remove");
    }
}

#[test]
fn a_plan_made_by_hand_does_what_apply_does() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let plan = scene
        .agent(&["plan", "-s", SERVICES, "-x", PASS_LIST])
        .unwrap();
    let commands: String = plan.lines().map(|line| format!("{line}\n")).collect();
    scene.target.check("sh", &["-e", "-c", &commands]).unwrap();
    let again = scene
        .agent(&["plan", "-s", SERVICES, "-x", PASS_LIST])
        .unwrap();
    assert!(
        again.ends_with("# all of it is in place already"),
        "{again}"
    );
    scene.agent(&["remove"]).unwrap();
}

#[test]
fn dangerous_plans_are_refused_with_their_reason_and_touch_nothing() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    // An ssh session and another service's connection, from hosts in the pools below. Nobody takes
    // them out of the listeners' queues, which is no matter to the kernel.
    let _listeners = ["198.18.2.20:22", "198.18.2.20:8301"].map(|address| {
        let listen = move || std::net::TcpListener::bind(address);
        scene.target.enter(listen).unwrap().unwrap()
    });
    let _sessions = [("198.18.1.10", 22), ("198.18.1.11", 8301)]
        .map(|(from, port)| connect(&scene, from, port));
    let commands = [
        "rule add pref 9000 from 198.18.5.1 lookup 77",
        "route add 198.18.70.0/24 via 198.18.2.30 table 78",
        "route add 198.18.60.0/24 via 198.18.2.30",
        "rule add pref 12000 from 198.18.99.1 lookup 78",
        "link add foreign0 type bridge",
        "address add 198.18.5.9/32 dev lo",
    ];
    scene.target.ip(&commands.map(str::to_owned)).unwrap();
    let before = scene.picture();
    let table: &[(&str, &str)] = &[
        ("-c 0.0.0.0/0", "divert (nearly) all"),
        ("-c ::/0", "divert (nearly) all"),
        ("-c 0.0.0.0/1,128.0.0.0/1", "divert (nearly) all"),
        ("-c 127.0.0.0/24", "loopback addresses"),
        ("-c 239.1.0.0/16", "multicast addresses"),
        ("-s 127.0.0.1:80", "loopback address"),
        ("-s 198.18.5.9:36526", "that of the router-agent"),
        ("-s 198.18.5.9:36524", "that of the interceptor"),
        ("-s 198.18.5.9:22", "that of ssh"),
        ("-s 198.18.5.77:80", "does not have that address"),
        ("-c 198.18.2.0/26", "198.18.2.1 of the pass-list"),
        (
            "-s 198.18.5.9:80 -c 198.18.2.40",
            "198.18.2.40 of the pass-list",
        ),
        ("-s 198.18.5.9:80 -x 198.18.5.9", "is in the pass-list"),
        ("-x 198.18.2.40 -c 198.18.2.0/30", "a default gateway"),
        ("-c 198.18.2.16/28", "an address of this host"),
        ("-c 198.18.1.10", "a connection of ssh"),
        ("-c 198.18.1.11", "a connection of another service"),
        ("-c 198.18.1.8/29", "which has a connection of"),
        ("-c 198.18.60.0/24", "an existing route, 198.18.60.0/24"),
        ("-c 198.18.2.128/25", "a network that this host is on"),
        ("-s 198.18.5.1:80", "the rule with preference 9000"),
        (
            "-s 198.18.5.9:80 --priority 9000",
            "preference 9000 is taken",
        ),
        (
            "-s 198.18.5.9:80 --priority 8999",
            "preference 9000 is taken",
        ),
        (
            "-s 198.18.5.9:80 --table 78",
            "of somebody else leads to our table 78",
        ),
        (
            "-s 198.18.5.9:80 --sink-device foreign0",
            "that is not ours",
        ),
        (
            "-s 198.18.5.9:80 --mode assistant --assistant 198.18.2.20",
            "is this host itself",
        ),
        (
            "-s 198.18.5.9:80 --mode assistant --assistant 198.18.9.1",
            "in no network",
        ),
        (
            "-s 198.18.5.9:80 --mode assistant --assistant 198.18.2.40",
            "in the pass-list",
        ),
        (
            "-s 198.18.5.9:80 --mode assistant --assistant 198.18.2.1 -x 198.18.2.40",
            "a default gateway",
        ),
        (
            "-s [2001:db8:5::1]:80 --mode assistant --assistant 198.18.2.30",
            "no assistant for IPv6",
        ),
        ("-s [2001:db8:5::1]:80 -c 198.18.9.0/24", "no IPv6 address"),
        ("", "nothing is asked for"),
        (
            "-s 198.18.5.9:443 --allow 198.18.5.9:80",
            "service 198.18.5.9:443 may not be diverted on this host, which allows 198.18.5.9:80",
        ),
        (
            "-s 198.18.5.1:80 --allow 198.18.5.9:80",
            "service 198.18.5.1:80 may not be diverted",
        ),
        (
            "-s 198.18.5.9:22 --allow 198.18.5.9:80,198.18.8.0/24",
            "service 198.18.5.9:22 may not be diverted",
        ),
        (
            "-c 198.18.8.0/23 --allow 198.18.5.9:80,198.18.8.0/24",
            "pool 198.18.8.0/23 may not be diverted",
        ),
    ];
    for (line, reason) in table {
        for command in ["plan", "apply"] {
            let mut words: Vec<&str> = vec![command];
            words.extend(line.split_whitespace());
            if !line.contains("-x ") {
                words.extend(["-x", PASS_LIST]);
            }
            let said = scene.agent(&words).unwrap_err();
            assert!(said.contains(reason), "{command} {line}: {said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    let after = scene.picture();
    assert!(after == before, "{}", difference(&before, &after));
}

#[test]
fn a_service_that_somebody_is_connected_to_is_diverted_only_if_it_is_forced_by_name() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let second = Duration::from_secs(1);
    // Those of the pass-list go on being answered.
    let tested = scene.connect(tester(Family::V4), second).unwrap();
    let apply = with(&["apply", "-s", SERVICES], &[]);
    scene.agent(&apply).unwrap();
    scene.agent(&["remove", "-x", PASS_LIST]).unwrap();
    let user = scene.connect(client(Family::V6), second).unwrap();
    let before = scene.picture();
    let elsewhere = [&apply[..], &["--force", "198.18.5.1:8080"]].concat();
    for words in [&apply, &elsewhere] {
        let said = scene.agent(words).unwrap_err();
        let named = format!("--force {}", service(Family::V6));
        assert!(
            said.contains("1 connections to it are established"),
            "{said}"
        );
        assert!(said.contains(&named), "{said}");
        assert!(!said.contains(&client(Family::V6).to_string()), "{said}");
    }
    assert!(scene.picture() == before, "nothing was touched");
    let forced = [&apply[..], &["--force", SERVICES]].concat();
    let said = scene.agent(&forced).unwrap();
    assert!(
        said.contains("1 open connections of the tested service get no answers"),
        "{said}"
    );
    // Now it counts as a copy, also when somebody has removed all that kept its answers here.
    for harm in [
        "ip rule flush pref 10001",
        "ip -6 rule flush pref 10001",
        "nft flush ruleset",
    ] {
        scene.target.check("sh", &["-c", harm]).unwrap();
    }
    scene.agent(&apply).unwrap();
    scene.agent(&["remove", "-x", PASS_LIST]).unwrap();
    let again = scene.connect(client(Family::V6), second).unwrap();
    assert!(
        scene.agent(&apply).is_err(),
        "what was removed is not copied any more"
    );
    drop((tested, user, again));
}

fn connect(scene: &TargetHost, from: &str, port: u16) -> std::net::TcpStream {
    let to = std::net::SocketAddr::from(([198, 18, 2, 20], port));
    let from: std::net::IpAddr = from.parse().unwrap();
    if from != client(Family::V4) {
        scene.outside.add_address("lo", from, 32).unwrap();
    }
    let patience = Duration::from_secs(5);
    let connected = scene
        .outside
        .enter(move || connect_from(from, to, patience));
    connected.unwrap().unwrap()
}

#[test]
fn the_rules_do_not_disturb_strict_reverse_path_filtering() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    scene
        .target
        .sysctl("net/ipv4/conf/all/rp_filter", "1")
        .unwrap();
    for plan in [
        &["apply", "-s", SERVICES][..],
        &["apply", "-c", "198.18.1.0/28"],
    ] {
        scene.agent(&with(plan, &[])).unwrap();
        let before = scene.in_sink();
        assert!(!scene.answers(client(Family::V4)));
        assert!(
            scene.in_sink() > before,
            "the SYN came in and its answer was diverted"
        );
        assert!(scene.answers(tester(Family::V4)));
        scene.agent(&with(&["remove"], &[])).unwrap();
    }
}

#[test]
fn a_sink_that_vanishes_leaks_nothing() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    scene.agent(&with(&["apply", "-s", SERVICES], &[])).unwrap();
    for harm in ["link set millrace0 down", "link del millrace0"] {
        scene.target.ip(&[harm.to_owned()]).unwrap();
        for family in Family::BOTH {
            assert!(!scene.answers(client(family)), "{harm}");
            assert!(scene.answers(tester(family)), "{harm}");
        }
        assert_eq!(scene.leaked(), 0, "{harm}");
    }
    // What is missing is put right by the next apply.
    scene.agent(&with(&["apply", "-s", SERVICES], &[])).unwrap();
    assert!(!scene.answers(client(Family::V4)));
    assert!(scene.in_sink() > 0);
}

#[test]
fn remove_ends_copied_connections_first_so_that_none_of_them_speaks_to_a_real_client() {
    if !can_run() {
        return;
    }
    for (name, mode) in MODES {
        let scene = TargetHost::new();
        let _server = scene.serve();
        let second = Duration::from_secs(1);
        let copies: Vec<_> = Family::BOTH
            .map(|family| scene.connect(client(family), second).unwrap())
            .into();
        let tested = scene.connect(tester(Family::V4), second).unwrap();
        scene
            .agent(&with(&["apply", "-s", SERVICES, "--force", SERVICES], mode))
            .unwrap();
        // Half-open ones, too: their SYN-ACKs are sent again after 1, 3, 7 s.
        drop(scene.copied_traffic());
        scene.silence_clients();
        std::thread::sleep(Duration::from_millis(200));
        let start = scene.leaked();
        scene.agent(&with(&["remove"], mode)).unwrap();
        std::thread::sleep(Duration::from_millis(3500));
        assert_eq!(
            scene.leaked(),
            start,
            "{name}: nothing of them was left to speak"
        );
        let port = format!("sport = :{PORT}");
        let open = scene.target.check("ss", &["-Htn", &port]).unwrap();
        assert_eq!(open.lines().count(), 1, "{name}: only the tester's: {open}");
        drop((copies, tested));
    }
}

#[test]
fn a_plan_that_look_ups_do_not_confirm_is_rolled_back() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    // It takes only some answers, so that it is seen by look-ups alone: those to one port.
    let foreign = "rule add pref 9000 from 198.18.5.1 ipproto tcp dport 49152 lookup main";
    scene.target.ip(&[foreign.to_owned()]).unwrap();
    let before = scene.picture();
    let said = scene.agent(&with(&["apply", "-s", SERVICES, "--manage-sysctl"], &[]));
    let said = said.unwrap_err();
    assert!(
        said.contains("198.18.5.1:8080 would not be diverted"),
        "{said}"
    );
    let after = scene.picture();
    assert!(after == before, "{}", difference(&before, &after));
    assert!(scene.agent(&["show"]).unwrap().contains("diverted: none"));
}

#[test]
fn what_others_made_with_our_numbers_elsewhere_is_not_removed() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let foreign = [
        "rule add pref 11000 from 198.18.99.1 lookup 77 protocol 152",
        "route add 198.18.98.0/24 via 198.18.2.1 proto 152",
        "link add millrace1 type bridge",
    ];
    scene.target.ip(&foreign.map(str::to_owned)).unwrap();
    let before = scene.picture();
    scene.agent(&with(&["apply", "-s", SERVICES], &[])).unwrap();
    scene.agent(&with(&["remove"], &[])).unwrap();
    let after = scene.picture();
    assert!(after == before, "{}", difference(&before, &after));
}

#[test]
fn show_says_what_is_there() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let empty = scene.agent(&["show"]).unwrap();
    assert!(empty.contains("diverted: none"), "{empty}");
    scene.agent(&with(&["apply", "-s", SERVICES], &[])).unwrap();
    let shown = scene.agent(&["show", "--json"]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let diverted: Vec<String> = Family::BOTH
        .map(|family| format!("responses of {}", service(family)))
        .into();
    assert_eq!(shown["diverted"], serde_json::json!(diverted));
    assert_eq!(
        shown["applied_by_hand"]["services"][0],
        service(Family::V4).to_string()
    );
    assert!(vip(Family::V4).is_ipv4());
}
