//! Who holds what the router-agent installs: leases live as long as their holders' streams and a
//! grace time longer, through restarts and kills of either side, and never leak when they end.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_channel::hold::HoldEvent;
use millrace_integration::target_host::{
    MODES, PASS_LIST, SERVICES, TargetHost, client, need, service, tester,
};
use millrace_integration::{Family, can_run, number};
use millrace_proto::v1::hold_refused::Code;

/// The service of both families.
fn both() -> millrace_proto::v1::Need {
    need(&Family::BOTH.map(service), &[])
}

fn count(status: &serde_json::Value, what: &str) -> usize {
    status["agent"][what].as_array().unwrap().len()
}

#[test]
fn what_was_put_right_is_said_no_more() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let agent = scene.start_agent(&["-x", PASS_LIST]);
    let holder = scene.hold("copier-1", need(&[], &["198.18.1.0/28"]));
    assert_eq!(holder.held(), [""; 0]);
    let warned = |status: &serde_json::Value, word: &str| {
        let warnings = status["agent"]["warnings"].as_array().unwrap();
        let mut lines = warnings.iter().filter_map(|line| line.as_str());
        lines.any(|line| line.contains(word))
    };
    // What is to be remembered has no place any more, and of the second holder's services one is not here.
    let lent = scene.state_dir().join("state.json.new");
    std::fs::create_dir_all(&lent).unwrap();
    let elsewhere = SocketAddr::from(([198, 18, 2, 77], 8080));
    let services = [service(Family::V4), elsewhere];
    let second = scene.hold("copier-2", need(&services, &["198.18.1.16/28"]));
    second.held();
    scene.wait_status("both warnings", |status| {
        warned(status, "198.18.2.77") && warned(status, "would not be known as copies")
    });
    std::fs::remove_dir(&lent).unwrap();
    let here = ["addr", "add", "198.18.2.77/24", "dev", "eth0"].map(str::to_owned);
    scene.target.ip(&[here.join(" ")]).unwrap();
    // The service's address is on lo: its own warnings go by their own commands.
    scene.wait_status("those of the service's address", |status| {
        warned(status, "arp_ignore=1") && warned(status, "arp_announce=2")
    });
    for (setting, value) in [("arp_ignore", "1"), ("arp_announce", "2")] {
        let key = format!("net/ipv4/conf/eth0/{setting}");
        scene.target.sysctl(&key, value).unwrap();
    }
    scene.wait_status("no warnings", |status| {
        status["agent"]["warnings"].as_array().unwrap().is_empty()
    });
    let kept = std::fs::read_to_string(scene.state_dir().join("state.json")).unwrap();
    assert!(kept.contains("198.18.1.16"), "{kept}");
    drop((agent, holder, second));
}

#[test]
fn a_lease_outlives_its_holder_by_the_grace_time_and_ends_without_a_leak() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let before = scene.picture();
    let options = ["-x", PASS_LIST, "--grace", "3", "--manage-sysctl"];
    let agent = scene.start_agent(&[&options[..], &["--force", SERVICES]].concat());
    let copies = Family::BOTH.map(|family| {
        scene
            .connect(client(family), Duration::from_secs(2))
            .unwrap()
    });
    let holder = scene.hold("copier-1", both());
    let warnings = holder.held();
    assert!(
        warnings.iter().any(|it| it.contains("2 open connections")),
        "{warnings:?}"
    );
    std::thread::sleep(Duration::from_millis(200));
    let start = scene.leaked();
    let traffic = scene.copied_traffic();
    let held = scene.agent_status();
    assert_eq!(held["agent"]["leases"][0]["holder"], "copier-1");
    assert_eq!(count(&held, "diverted"), 2);
    // A real client is not answered, a tester is.
    for family in Family::BOTH {
        assert!(!scene.answers(client(family)));
        assert!(scene.answers(tester(family)));
    }
    drop(traffic);
    drop(holder);
    scene.silence_clients();
    scene.wait_status("the lease to run out", |status| {
        status["agent"]["leases"][0]["ends_in_seconds"].is_u64()
    });
    assert_eq!(
        count(&scene.agent_status(), "diverted"),
        2,
        "within the grace time"
    );
    scene.wait_status("nothing to be diverted", |status| {
        count(status, "diverted") == 0
    });
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(
        scene.leaked(),
        start,
        "nothing leaked, neither while held nor after"
    );
    let ended = number(&scene.agent_status(), "/agent/counters/connections_ended");
    assert!(ended >= 2, "the copies were ended: {ended}");
    let after = scene.picture();
    assert!(after == before, "the host is as it was");
    drop((agent, copies));
}

#[test]
fn a_holder_that_comes_back_in_time_finds_everything_untouched() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _agent = scene.start_agent(&["-x", PASS_LIST, "--grace", "30"]);
    scene.hold("copier-1", both()).held();
    let picture = scene.picture();
    let changes = |scene: &TargetHost| number(&scene.agent_status(), "/agent/changes");
    let before = changes(&scene);
    assert!(before > 0);
    for _ in 0..3 {
        let holder = scene.hold("copier-1", both());
        holder.held();
        assert_eq!(changes(&scene), before, "not one change was made");
        drop(holder);
        scene.wait_status("the stream's end to be noticed", |status| {
            status["agent"]["leases"][0]["ends_in_seconds"].is_u64()
        });
    }
    assert!(scene.picture() == picture);
}

#[test]
fn an_agent_without_roots_rights_does_all_of_it_in_every_mode() {
    if !can_run() {
        return;
    }
    for (_, mode) in MODES {
        let scene = TargetHost::new();
        let _server = scene.serve();
        let before = scene.picture();
        let common = [
            "-x",
            PASS_LIST,
            "--grace",
            "1",
            "--manage-sysctl",
            "--user",
            "nobody",
        ];
        let agent = scene.start_agent(&[&common[..], mode].concat());
        let status = scene.agent_status();
        assert_ne!(status["privileges"]["uid"], 0, "{status:#}");
        let holder = scene.hold("copier-1", both());
        holder.held();
        for family in Family::BOTH {
            assert!(!scene.answers(client(family)), "{mode:?}");
            assert!(scene.answers(tester(family)), "{mode:?}");
        }
        assert_eq!(scene.leaked(), 0, "{mode:?}");
        drop(holder);
        scene.wait_status("nothing to be diverted", |status| {
            count(status, "diverted") == 0
        });
        assert!(scene.picture() == before, "{mode:?}");
        drop(agent);
    }
}

#[test]
fn of_two_holders_what_either_needs_is_installed() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let _agent = scene.start_agent(&["-x", PASS_LIST, "--grace", "1"]);
    let first = scene.hold("copier-1", both());
    first.held();
    let second = scene.hold("copier-2", need(&[service(Family::V4)], &[]));
    second.held();
    assert_eq!(count(&scene.agent_status(), "diverted"), 2);
    drop(first);
    scene.wait_status("the first lease to end", |status| {
        count(status, "leases") == 1 && count(status, "diverted") == 1
    });
    assert!(
        !scene.answers(client(Family::V4)),
        "the second still needs it"
    );
    assert!(
        scene.answers(client(Family::V6)),
        "nobody needs it any more"
    );
    drop(second);
    scene.wait_status("the second lease to end", |status| {
        count(status, "diverted") == 0
    });
    assert!(scene.answers(client(Family::V4)));
}

#[test]
fn an_agent_killed_under_load_and_back_leaks_nothing_and_its_holders_come_back() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let options = ["-x", PASS_LIST, "--grace", "20"];
    let mut agent = scene.start_agent(&options);
    let holder = scene.hold("copier-1", both());
    holder.held();
    let picture = scene.picture();
    let traffic = scene.copied_traffic();
    for _ in 0..3 {
        agent.kill().unwrap();
        assert!(matches!(holder.next(), HoldEvent::Lost { .. }));
        for family in Family::BOTH {
            assert!(scene.answers(tester(family)), "without an agent");
        }
        agent = scene.start_agent(&options);
        holder.held();
    }
    // A restart in order is no different.
    agent.terminate(Duration::from_secs(10)).unwrap();
    assert!(scene.picture() == picture, "what is installed stays");
    let mut agent = scene.start_agent(&options);
    holder.held();
    assert_eq!(
        number(&scene.agent_status(), "/agent/changes"),
        0,
        "nothing was to be changed"
    );
    assert_eq!(scene.leaked(), 0);
    assert!(scene.picture() == picture);
    drop(traffic);
    assert!(agent.is_running());
}

#[test]
fn after_a_kill_that_cost_all_rules_copies_are_known_whoever_comes_back_first() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let options = ["-x", PASS_LIST, "--grace", "20"];
    let _copy = scene
        .connect(client(Family::V4), Duration::from_secs(2))
        .unwrap();
    let mut agent = scene.start_agent(&[&options[..], &["--force", SERVICES]].concat());
    scene.hold("copier-1", both()).held();
    agent.kill().unwrap();
    for harm in [
        "ip rule flush pref 10001; ip rule flush pref 10000",
        "ip -6 rule flush pref 10001; ip -6 rule flush pref 10000",
        "ip route flush table 36524; ip -6 route flush table 36524; ip link del millrace0",
        "nft flush ruleset",
    ] {
        scene.target.check("sh", &["-c", harm]).unwrap();
    }
    let _agent = scene.start_agent(&options);
    let pooled = need(&[service(Family::V4)], &["198.18.9.0/24"]);
    let first = scene.hold("copier-2", pooled);
    first.held();
    let second = scene.hold("copier-1", both());
    second.held();
}

#[test]
fn an_agent_that_finds_rules_whose_holder_never_comes_removes_them() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let before = scene.picture();
    let mut agent = scene.start_agent(&["-x", PASS_LIST]);
    let holder = scene.hold("copier-1", both());
    holder.held();
    agent.kill().unwrap();
    drop(holder);
    let _again = scene.start_agent(&["-x", PASS_LIST, "--grace", "2"]);
    let found = scene.agent_status();
    assert_eq!(number(&found, "/agent/found"), 2, "{found:#}");
    assert!(
        !scene.answers(client(Family::V4)),
        "kept for the grace time"
    );
    scene.wait_status("what was found to be removed", |status| {
        count(status, "diverted") == 0
    });
    assert!(scene.picture() == before);
}

#[test]
fn what_was_applied_by_hand_outlives_daemons_until_it_is_removed_by_hand() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    scene
        .agent(&["apply", "-s", "198.18.5.1:8080", "-x", PASS_LIST])
        .unwrap();
    let mut agent = scene.start_agent(&["-x", PASS_LIST, "--grace", "1"]);
    std::thread::sleep(Duration::from_millis(2500));
    let status = scene.agent_status();
    assert_eq!(status["agent"]["applied_by_hand"], true);
    assert_eq!(count(&status, "diverted"), 1);
    let said = scene.agent(&["remove"]).unwrap_err();
    assert!(said.contains("a router-agent (process"), "{said}");
    assert!(scene.agent(&["show"]).unwrap().contains("198.18.5.1:8080"));
    agent.terminate(Duration::from_secs(10)).unwrap();
    scene.agent(&["remove"]).unwrap();
    assert!(scene.agent(&["show"]).unwrap().contains("diverted: none"));
}

#[test]
fn a_dangerous_need_is_refused_and_hurts_no_other_holder() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _agent = scene.start_agent(&["-x", PASS_LIST]);
    let good = scene.hold("copier-1", both());
    good.held();
    let picture = scene.picture();
    // The holder is at 198.18.2.1: the pool holds its own way back.
    for (pool, reason) in [
        ("0.0.0.0/0", "divert (nearly) all"),
        ("198.18.2.0/24", "of the pass-list"),
        ("198.18.2.16/28", "an address of this host"),
    ] {
        let bad = scene.hold("copier-2", need(&[], &[pool]));
        match bad.next() {
            HoldEvent::Refused { code, reason: said } => {
                assert_eq!(code, Code::Dangerous);
                assert!(said.contains(reason), "{pool}: {said}");
            }
            other => panic!("{pool}: {other:?}"),
        }
    }
    let status = scene.agent_status();
    assert_eq!(count(&status, "leases"), 1);
    assert!(scene.picture() == picture);
}

#[test]
fn what_somebody_else_removes_is_put_right_while_it_is_held() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let _agent = scene.start_agent(&["-x", PASS_LIST]);
    let holder = scene.hold("copier-1", both());
    holder.held();
    scene
        .target
        .ip(&["link set millrace0 down".to_owned()])
        .unwrap();
    let traffic = scene.copied_traffic();
    scene.wait_status("it to be mended", |status| {
        number(status, "/agent/counters/mended") == 1
    });
    drop(traffic);
    assert_eq!(
        scene.leaked(),
        0,
        "the blackhole took what the sink could not"
    );
    scene.target.ip(&["link del millrace0".to_owned()]).unwrap();
    scene.wait_status("it to be mended", |status| {
        number(status, "/agent/counters/mended") == 2
    });
    assert!(!scene.answers(client(Family::V4)));
    assert_eq!(scene.leaked(), 0);
}

#[test]
fn holders_with_and_without_a_pool_come_and_go_in_any_order() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    let _agent = scene.start_agent(&["-x", PASS_LIST, "--grace", "1"]);
    let services = Family::BOTH.map(service);
    let pools = ["198.18.1.0/28", "2001:db8:1::/64"];
    let wide = || scene.hold("copier-1", need(&services, &[]));
    let narrow = || scene.hold("copier-2", need(&services, &pools));
    let elsewhere = "198.18.1.200".parse().unwrap();
    scene.outside.add_address("lo", elsewhere, 32).unwrap();
    for wide_first in [true, false] {
        let (first, second) = match wide_first {
            true => (wide(), narrow()),
            false => (narrow(), wide()),
        };
        first.held();
        second.held();
        for leaving in [first, second] {
            assert!(!scene.answers(client(Family::V4)) && !scene.answers(client(Family::V6)));
            drop(leaving);
            let left =
                |status: &serde_json::Value| status["agent"]["leases"].as_array().unwrap().len();
            let before = left(&scene.agent_status());
            scene.wait_status("a lease to end", |status| left(status) < before);
        }
        scene.wait_status("nothing to be diverted", |status| {
            status["agent"]["diverted"] == serde_json::json!([])
        });
        assert!(scene.answers(elsewhere));
        let rules = scene.target.check("ip", &["rule"]).unwrap();
        assert!(!rules.contains("proto 152"), "{rules}");
    }
}
