//! A target's host.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use millrace_integration::target_host::{TargetHost, service, vip};
use millrace_integration::{Family, can_run};
use millrace_lab::wait_for;

use super::{assert_named, mend, named};

#[test]
fn a_targets_host_is_checked_for_what_keeps_its_answers_from_being_diverted() {
    if !can_run() {
        return;
    }
    let lab = TargetHost::new();
    let server = lab.serve();
    let state = lab.state_dir().display().to_string();
    let wanted = Family::BOTH
        .map(|family| service(family).to_string())
        .join(",");
    let check = |host: &[&str]| {
        let usual = ["--insecure", "-b", "198.18.2.20", "--state-dir", &state];
        let command = ["check", "--json", "-s", &wanted];
        named(
            &lab.target,
            "millrace-router-agent",
            &[&usual[..], host, &command].concat(),
        )
    };
    let run = |command: &str| lab.target.check("sh", &["-c", command]).unwrap();
    // The VIP is on lo: its ARP settings are not yet right.
    let found = check(&[]);
    let next = "sysctl -w net/ipv4/conf/eth0/arp_ignore=1 net/ipv4/conf/eth0/arp_announce=2";
    assert_named(&found, &[("warning", "arp")], next);
    run(&found[0].2);
    assert_eq!(check(&[]), []);

    // Sources whose way back leads elsewhere, as on a real server whose default route is another device.
    run(
        "ip link add other type veth peer other2; ip link set other up; ip link set other2 up; ip route replace default dev other",
    );
    lab.target
        .sysctl("net/ipv4/conf/eth0/rp_filter", "1")
        .unwrap();
    let found = check(&[]);
    assert_named(&found, &[("warning", "rp-filter")], "rp_filter=2");
    assert_eq!(check(&["--manage-sysctl"]), []);
    run(&found[0].2);
    assert_eq!(check(&[]), []);
    // Without a way to them even a loose filter drops them.
    run("ip route del default; ip link del other");
    let found = check(&[]);
    assert_named(&found, &[("warning", "rp-filter")], "rp_filter=0");
    run(&found[0].2);
    assert_eq!(check(&[]), []);
    run("ip route replace default via 198.18.2.1");

    let rule = format!("pref 100 from {} lookup main", vip(Family::V4));
    run(&format!("ip rule add {rule}"));
    let found = check(&[]);
    assert_named(&found, &[("failure", "policy-rules")], "");
    run(&format!("ip rule del {rule}"));

    run("ip link add millrace0 type veth peer sink2");
    assert_named(&check(&[]), &[("failure", "sink-device")], "");
    run("ip link del millrace0");

    let gateway = [
        "--mode",
        "assistant",
        "--assistant",
        "198.18.2.1,2001:db8:2::1",
    ];
    assert_named(&check(&gateway), &[("failure", "assistant")], "");

    // Nothing listens.
    drop(server);
    let listening = || lab.target.check("ss", &["-Hltn", "sport = :80"]).unwrap();
    wait_for(
        "the end of the application",
        Duration::from_secs(10),
        || listening().is_empty(),
    )
    .unwrap();
    assert_named(
        &check(&[]),
        &[("warning", "application")],
        "start the tested application",
    );
    let _server = lab.serve();
    assert_eq!(check(&[]), []);

    let taken: SocketAddr = "198.18.2.20:36526".parse().unwrap();
    let taken = lab.target.enter(move || TcpListener::bind(taken));
    let taken = taken.unwrap().unwrap();
    assert_named(&check(&[]), &[("warning", "listening")], "sport = :36526");
    drop(taken);

    let user = lab.connect(
        millrace_integration::target_host::client(Family::V4),
        Duration::from_secs(5),
    );
    let user = user.unwrap();
    assert_named(&check(&[]), &[("failure", "real-users")], "");
    let forced = service(Family::V4).to_string();
    assert_eq!(check(&["--force", &forced]), []);
    drop(user);

    assert_named(
        &check(&["--allow", "198.18.5.1:443"]),
        &[("failure", "plan")],
        "",
    );
    run("ip address del 198.18.5.1/32 dev lo");
    let found = check(&[]);
    assert_named(&found, &[("warning", "service-address")], "ip address add");
    mend(&lab.target, &found[0].2);
    assert_eq!(check(&[]), []);
}
