//! Targets that are not there, that refuse or drop copies, or that are the live service.

use millrace_integration::{binary, can_run};

use super::{DROP, GUARDED, TO_ASSISTANT, USUAL, World, assisted, guarded};

#[test]
fn a_wrong_address_or_port_of_the_target() {
    if !can_run() {
        return;
    }
    guarded(":", "8080-198.18.2.99:8080", &GUARDED).names(
        &[
            "198.18.2.99",
            "this host does not have that address",
            "ip address add 198.18.2.99/32 dev lo",
        ],
        &[],
    );
    assisted(TO_ASSISTANT, "8080-198.18.2.99:8080").names(&["198.18.2.99", "ip neigh"], &[]);
    let closed = [
        "refused",
        "nothing listens on 198.18.2.20:8099",
        "ss -ltn 'sport = :8099'",
    ];
    guarded(":", "8080-198.18.2.20:8099", &GUARDED).names(&closed, &[]);
    assisted(TO_ASSISTANT, "8080-198.18.2.20:8099").names(&closed, &[]);
}

#[test]
fn a_target_that_drops_copies() {
    if !can_run() {
        return;
    }
    let strict = "ip link add other type veth peer other2; ip link set other up; ip link set other2 up; \
                  ip route add 198.18.2.1 dev eth0; ip route replace default dev other; \
                  sysctl -qw net.ipv4.conf.eth0.rp_filter=1";
    guarded(strict, USUAL, &GUARDED).names(
        &[
            "reverse-path filter dropped it",
            "sysctl -w net/ipv4/conf/eth0/rp_filter=2",
        ],
        &["rp_filter"],
    );
    guarded(DROP, USUAL, &GUARDED)
        .names(&["a firewall there dropped it", "`nft list ruleset`"], &[]);
    assisted(&format!("{TO_ASSISTANT}; {DROP}"), USUAL).names(
        &[
            "198.18.2.20:8080 does not answer this host either",
            "`nft list ruleset`",
        ],
        &[],
    );
}

#[test]
fn a_target_that_is_the_live_service() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let arguments = [
        "-x",
        "8080-198.18.2.10:8080",
        "-s",
        "198.18.2.30",
        "--insecure",
    ];
    let output = world
        .live()
        .run(binary("millrace-copier"), &arguments)
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("the target is itself the live service"),
        "{said}"
    );
}
