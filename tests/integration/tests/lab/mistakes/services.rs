//! Live services that are not where the operator believes them, and clients whose sessions no target can get.

use millrace_integration::can_run;

use super::{GUARDED, USUAL, guarded};

#[test]
fn a_live_service_that_is_elsewhere() {
    if !can_run() {
        return;
    }
    guarded(":", "8081-198.18.2.20:8080", &GUARDED).names(
        &[
            "nothing on this host listens on port 8081, but on 8080",
            "tcpdump -ni any tcp port 8081",
        ],
        &[],
    );
    guarded(":", "198.18.2.77:8080-198.18.2.20:8080", &GUARDED).names(
        &[
            "198.18.2.77 is no address of this host, which has 198.18.2.10",
            "check -x and -i",
        ],
        &[],
    );
}

#[test]
fn clients_of_another_family_than_the_target() {
    if !can_run() {
        return;
    }
    guarded(":", "8080-[2001:db8:2::20]:8080", &GUARDED).names(
        &[
            "no packet of a client",
            "only clients of IPv6 are copied",
            "(-c)",
        ],
        &[],
    );
}

#[test]
fn a_service_that_is_used_on_loopback_alone() {
    if !can_run() {
        return;
    }
    let world = guarded(":", USUAL, &GUARDED);
    let live = world.live().clone();
    let words = ["refused as `loopback`", "(-H)"];
    world.names_to(
        &|| {
            live.check("curl", &["-s", "http://127.0.0.1:8080/bytes/300"])
                .unwrap();
        },
        &words,
        &[],
    );
}
