//! What others do to a target host while its agent keeps responses from the clients: nothing reaches
//! a client, holders are told at once what is wrong, and that it is over.

use std::time::{Duration, Instant};

use millrace_channel::hold::HoldEvent;
use millrace_integration::target_host::{
    ASSISTANT, Holder, NFQUEUE, PASS_LIST, SINK, TargetHost, client, need, service, tester,
};
use millrace_integration::{Family, can_run, number};
use millrace_lab::Host;
use millrace_router_agent::agent::Agent;
use millrace_router_agent::install::Installer;
use millrace_router_agent::kernel::Kernel;
use millrace_router_agent::need::Need;
use millrace_router_agent::options::Options;
use millrace_router_agent::state::{Opened, StateFile};

const ROUTING: &[&[&str]] = &[SINK, ASSISTANT];
const EVERY: &[&[&str]] = &[SINK, ASSISTANT, NFQUEUE];

/// What somebody does to the target, in shell commands.
struct Fault {
    name: &'static str,
    modes: &'static [&'static [&'static str]],
    /// What may be on its way at that moment; 0 wherever something is left that holds it.
    in_flight: u64,
    harm: &'static [&'static str],
    undo: &'static [&'static str],
    /// What holders are told of it; none: it is put right, or does no harm.
    told: Option<&'static str>,
}

fn shell(host: &Host, commands: &[&str]) {
    for command in commands {
        host.check("sh", &["-c", command]).unwrap();
    }
}

/// Waits for trouble of this kind.
fn told(holder: &Holder, what: &str) {
    loop {
        match holder.next() {
            HoldEvent::Troubled { reason } if reason.contains(what) => return,
            HoldEvent::Troubled { .. } | HoldEvent::Mended => {}
            other => panic!("{other:?}"),
        }
    }
}

fn mended(holder: &Holder) {
    while holder.next() != HoldEvent::Mended {}
}

/// Has a fault happen under copied traffic, in each of its modes.
fn happens(fault: &Fault) {
    if !can_run() {
        return;
    }
    for mode in fault.modes {
        let name = format!("{} ({})", fault.name, mode[1]);
        let scene = TargetHost::new();
        let _server = scene.serve();
        let options = [&["-x", PASS_LIST], *mode].concat();
        let mut agent = scene.start_agent(&options);
        let holder = scene.hold("copier-1", need(&Family::BOTH.map(service), &[]));
        holder.held();
        // Of both families, and some before, while and after it happens.
        let traffic = scene.copied_traffic();
        std::thread::sleep(Duration::from_millis(200));
        shell(&scene.target, fault.harm);
        if let Some(what) = fault.told {
            told(&holder, what);
        }
        std::thread::sleep(Duration::from_millis(700));
        for family in Family::BOTH {
            assert!(scene.answers(tester(family)), "{name}: the pass-list");
        }
        let leaked = scene.leaked();
        assert!(
            leaked <= fault.in_flight,
            "{name}: {leaked}\n{}",
            agent.log()
        );
        shell(&scene.target, fault.undo);
        if fault.told.is_some() {
            mended(&holder);
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(scene.leaked(), leaked, "{name}: after it\n{}", agent.log());
        drop(traffic);
        scene.wait_status("it to be right again", |status| {
            status["agent"]["unsound"].is_null()
        });
        for family in Family::BOTH {
            assert!(!scene.answers(client(family)), "{name}");
        }
        assert!(agent.is_running(), "{name}: {}", agent.log());
    }
}

#[test]
fn a_policy_rule_of_somebody_else_before_ours() {
    happens(&Fault {
        name: "ip rule add",
        modes: ROUTING,
        in_flight: 0,
        harm: &[
            "ip rule add from 198.18.5.1 lookup main",
            "ip -6 rule add from 2001:db8:5::1 lookup main",
        ],
        undo: &[
            "ip rule del from 198.18.5.1 lookup main",
            "ip -6 rule del from 2001:db8:5::1 lookup main",
        ],
        told: Some("comes before ours"),
    });
}

#[test]
fn a_mangle_rule_that_has_packets_routed_a_second_time() {
    happens(&Fault {
        name: "DSCP in mangle OUTPUT",
        modes: ROUTING,
        in_flight: 0,
        harm: &["nft '
            table inet qos {
                chain out {
                    type route hook output priority mangle;
                    tcp sport 8080 ip dscp set cs1
                    tcp sport 8080 ip6 dscp set cs1
                }
            }'"],
        undo: &["nft delete table inet qos"],
        told: Some("marks packets or routes them a second time"),
    });
}

#[test]
fn a_mark_of_the_connection_with_a_rule_for_it() {
    happens(&Fault {
        name: "connmark routing",
        modes: &[SINK],
        in_flight: 0,
        harm: &[
            "ip rule add fwmark 7 lookup main",
            "ip -6 rule add fwmark 7 lookup main",
            "nft '
            table inet multi {
                chain in {
                    type filter hook prerouting priority mangle;
                    tcp dport 8080 ct mark set 7
                }
                chain out {
                    type route hook output priority mangle;
                    ct mark 7 meta mark set ct mark
                }
            }'",
        ],
        undo: &[
            "nft delete table inet multi",
            "ip rule del fwmark 7",
            "ip -6 rule del fwmark 7",
        ],
        told: Some("marks packets or routes them a second time"),
    });
}

#[test]
fn a_firewall_that_rejects_copies_by_icmp() {
    happens(&Fault {
        name: "REJECT",
        modes: EVERY,
        in_flight: 0,
        harm: &[
            "iptables -I INPUT -p tcp --dport 8080 ! -s 198.18.2.40 -j REJECT",
            "ip6tables -I INPUT -p tcp --dport 8080 ! -s 2001:db8:2::40 -j REJECT",
        ],
        undo: &["iptables -F INPUT", "ip6tables -F INPUT"],
        told: None,
    });
}

#[test]
fn a_firewall_that_rejects_copies_by_resets() {
    happens(&Fault {
        name: "REJECT --reject-with tcp-reset",
        modes: &[SINK],
        in_flight: 0,
        harm: &[
            "iptables -I INPUT -p tcp --dport 8080 ! -s 198.18.2.40 -j REJECT --reject-with tcp-reset",
            "ip6tables -I INPUT -p tcp --dport 8080 ! -s 2001:db8:2::40 -j REJECT --reject-with \
             tcp-reset",
        ],
        undo: &["iptables -F INPUT", "ip6tables -F INPUT"],
        told: None,
    });
}

#[test]
fn a_firewall_that_is_loaded_anew() {
    happens(&Fault {
        name: "iptables-restore without --noflush",
        modes: &[NFQUEUE],
        in_flight: 0,
        harm: &[
            "printf '*mangle\\nCOMMIT\\n' | iptables-restore",
            "printf '*mangle\\nCOMMIT\\n' | ip6tables-restore",
        ],
        undo: &[],
        told: None,
    });
}

#[test]
fn a_firewall_that_is_flushed_as_a_whole() {
    let flushed = Fault {
        name: "nft flush ruleset",
        modes: &[SINK],
        in_flight: 0,
        harm: &["nft flush ruleset"],
        undo: &[],
        told: None,
    };
    happens(&flushed);
    // There the firewall is all there is.
    happens(&Fault {
        modes: &[NFQUEUE],
        // What some tens of milliseconds let through, on a machine that is busy too.
        in_flight: 100,
        ..flushed
    });
}

#[test]
fn a_sink_that_is_deleted_and_a_table_that_is_flushed() {
    happens(&Fault {
        name: "sink deleted",
        modes: &[SINK],
        in_flight: 0,
        harm: &[
            "ip link del millrace0",
            "sleep 0.3; ip route flush table 36524",
            "ip -6 route flush table 36524",
            "sleep 0.3; ip rule flush; ip rule add pref 32766 lookup main",
            "ip -6 rule flush; ip -6 rule add pref 32766 lookup main",
        ],
        undo: &[],
        told: None,
    });
}

#[test]
fn an_assistant_to_whom_the_way_is_gone() {
    happens(&Fault {
        name: "no way to the assistant",
        modes: &[ASSISTANT],
        in_flight: 0,
        harm: &["ip route add unreachable 198.18.2.30/32"],
        undo: &["ip route del unreachable 198.18.2.30/32"],
        told: Some("198.18.2.30"),
    });
}

#[test]
fn a_service_address_that_moves_to_another_host() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let agent = scene.start_agent(&["-x", PASS_LIST]);
    let holder = scene.hold("copier-1", need(&Family::BOTH.map(service), &[]));
    holder.held();
    // Both were there when it looked.
    scene.wait_status("a look", |status| {
        number(status, "/agent/held_addresses") == 2
    });
    shell(&scene.target, &["ip address del 198.18.5.1/32 dev lo"]);
    told(
        &holder,
        "198.18.5.1 is not an address of this host any more",
    );
    shell(&scene.target, &["ip address add 198.18.5.1/32 dev lo"]);
    mended(&holder);
    assert!(agent.log().contains("diverted again"), "{}", agent.log());
}

#[test]
fn a_host_without_nftables_is_told_to_have_no_floor() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let _server = scene.serve();
    // A table that the agent cannot replace.
    let state = scene.state_dir().display().to_string();
    let program = millrace_integration::binary("millrace-router-agent")
        .display()
        .to_string();
    let hidden = format!(
        "mount -t tmpfs none /usr/sbin && exec {program} --insecure -b :: --state-dir {state} -x {PASS_LIST}"
    );
    let log = scene.target.file("agent.log");
    let agent = scene
        .target
        .spawn("unshare", &["-m", "sh", "-c", &hidden], &[], &log)
        .unwrap();
    let holder = scene.hold("copier-1", need(&Family::BOTH.map(service), &[]));
    let warnings = holder.held();
    assert!(
        warnings.iter().any(|it| it.contains("no floor")),
        "{warnings:?}\n{}",
        agent.log()
    );
    assert!(
        !scene.answers(client(Family::V4)),
        "rules divert without it"
    );
    assert_eq!(scene.leaked(), 0);
}

#[test]
fn a_service_that_is_redirected_bears_its_address_only_at_the_end() {
    happens(&Fault {
        name: "REDIRECT",
        modes: &[SINK],
        in_flight: 0,
        // The application listens on another port: answers leave OUTPUT from there.
        harm: &[
            "iptables -t nat -A PREROUTING -p tcp --dport 8080 ! -s 198.18.2.40 -j REDIRECT --to-ports 9090",
            "ip6tables -t nat -A PREROUTING -p tcp --dport 8080 ! -s 2001:db8:2::40 -j REDIRECT \
             --to-ports 9090",
        ],
        undo: &["iptables -t nat -F", "ip6tables -t nat -F"],
        told: Some("marks packets or routes them a second time"),
    });
}

#[test]
fn what_somebody_else_removes_is_news_and_put_right_at_once() {
    if !can_run() {
        return;
    }
    let scene = TargetHost::new();
    let state = scene.state_dir().display().to_string();
    let words = [
        "millrace-router-agent",
        "--state-dir",
        &state,
        "-x",
        PASS_LIST,
    ];
    let options = <Options as clap::Parser>::try_parse_from(words).unwrap();
    let host = options.host_config().unwrap();
    let Opened::Ours(file) = StateFile::open(&host.state_dir).unwrap() else {
        panic!("another agent runs");
    };
    let wanted = need(&Family::BOTH.map(service), &[]);
    let scene = &scene;
    scene
        .target
        .enter(move || {
            let now = Instant::now();
            let mut agent =
                Agent::new(Installer::new(host, Kernel::open().unwrap(), file), now).unwrap();
            let wanted = Need::try_from(&wanted).unwrap();
            agent.hold(now, "copier-1", 1, wanted, None).unwrap();
            // What it has done itself is news too, and looked at once.
            let settle = |agent: &mut Agent, now: Instant| {
                let soon = now + Duration::from_millis(200);
                while agent.has_news(soon) {
                    agent.tick(soon);
                }
            };
            settle(&mut agent, now);
            let held = scene.picture();
            let rules = ["rule flush", "rule add pref 32766 lookup main"];
            let routes = ["route flush table 36524"];
            let by_hand = [
                ("-4", &rules[..]),
                ("-6", &rules[..]),
                ("-4", &routes[..]),
                ("-6", &routes[..]),
            ];
            for ((family, commands), later) in by_hand.iter().zip(1..) {
                for command in *commands {
                    let words = std::iter::once(*family).chain(command.split(' '));
                    let words: Vec<_> = words.collect();
                    scene.target.run("ip", &words).unwrap();
                }
                assert!(scene.picture() != held, "{commands:?}");
                // Long before it would look by itself.
                let soon = now + Duration::from_secs(later);
                assert!(agent.has_news(soon), "{commands:?}");
                agent.tick(soon);
                settle(&mut agent, soon);
                assert!(!agent.has_news(soon + Duration::from_secs(1) / 2));
                assert!(scene.picture().contains("proto 152"));
            }
        })
        .unwrap();
}
