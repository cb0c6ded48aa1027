//! Clocks that differ, and certificates that are used up or another daemon's.

use std::path::PathBuf;

use millrace_integration::{binary, can_run};
use millrace_lab::Host;

use super::{GUARDED, USUAL, World};

/// Days, in seconds.
const DAY: i64 = 86_400;

/// Makes a clock of its own for daemons of a host: network namespaces share the clock, and time namespaces have none of
/// their own for the time of day. Daemons ask the C library for it.
pub(crate) fn clock_of(host: &Host) -> String {
    let source = host.file("clock.c");
    std::fs::write(&source, include_str!("clock.c")).unwrap();
    let library: PathBuf = host.file("clock.so");
    let [from, to] = [&source, &library].map(|path| path.display().to_string());
    let arguments = ["-shared", "-fPIC", "-o", &to, &from];
    host.check("cc", &arguments).unwrap();
    to
}

/// Starts what belongs on the target with a clock that is wrong by so many seconds.
fn start_target(world: &mut World, skew: i64) {
    let target = world.target().clone();
    let (library, skew) = (clock_of(&target), skew.to_string());
    let clock = [
        ("LD_PRELOAD", library.as_str()),
        ("MILLRACE_TEST_SKEW", &skew),
    ];
    let state = target.file("state").display().to_string();
    let agent = ["-b", "::", "--state-dir", &state];
    let own = (&target, "millrace-router-agent");
    world.start_after(":", &clock, own, &agent, 36_532);
    let own = (&target, "millrace-interceptor");
    world.start_after(":", &clock, own, &["-b", "::"], 36_531);
}

#[test]
fn clocks_that_differ() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world.certified();
    start_target(&mut world, -2 * DAY);
    world.copier(USUAL, &GUARDED);
    let words = [
        "198.18.2.20:36524",
        "not yet valid",
        "compare the clocks (`date -u` on both hosts)",
    ];
    world.names(&words, &[]);
    let copier = world.daemons.pop();
    world.daemons.clear();
    start_target(&mut world, 0);
    world.daemons.extend(copier);
    world.names(&["copying 100% of"], &[]);

    // The copier's own clock is slow.
    let mut world = World::new();
    world.certified();
    start_target(&mut world, 0);
    let live = world.live().clone();
    let library = clock_of(&live);
    let skew = (-2 * DAY).to_string();
    let clock = [
        ("LD_PRELOAD", library.as_str()),
        ("MILLRACE_TEST_SKEW", &skew),
    ];
    let arguments = [&["-x", USUAL, "--grace", "0"][..], &GUARDED].concat();
    let own = (&live, "millrace-copier");
    world.start_after(":", &clock, own, &arguments, super::ADMIN);
    let words = [
        "198.18.2.20:36524",
        "is not valid before",
        "compare the clocks (`date -u` on both hosts)",
    ];
    world.names(&words, &[]);
}

/// What a copier says that does not start.
fn refused(world: &World, environment: &[(&str, &str)], code: i32) -> String {
    let security = world.security("millrace-copier").join(" ");
    let variables = environment
        .iter()
        .map(|(name, value)| format!("{name}={value} "));
    let variables: String = variables.collect();
    let program = binary("millrace-copier").display().to_string();
    let line = format!("{variables}{program} -x {USUAL} -s 198.18.2.20 {security}");
    let output = world.live().run("sh", &["-c", &line]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

#[test]
fn certificates_that_are_used_up_or_another_daemons_keep_a_copier_from_starting() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world.certified();
    let library = clock_of(world.live());
    let skew = (40 * DAY).to_string();
    let fast = [
        ("LD_PRELOAD", library.as_str()),
        ("MILLRACE_TEST_SKEW", &skew),
    ];
    for said in [refused(&world, &fast, 64), {
        let certificates = world.certificates.as_ref().unwrap();
        certificates.renew("copier", -1).unwrap();
        refused(&world, &[], 64)
    }] {
        assert!(said.contains("copier.pem: expired at"), "{said}");
        assert!(said.contains("renew it"), "{said}");
        assert!(said.contains("set the clock"), "{said}");
        assert!(said.contains("`date -u`"), "{said}");
    }
    let files = world.certificates.as_ref().unwrap();
    let [own, other] = ["copier", "interceptor"].map(|role| files.files(role));
    std::fs::copy(other.cert, own.cert).unwrap();
    std::fs::copy(other.key, own.key).unwrap();
    let said = refused(&world, &[], 64);
    let words =
        "but this daemon is a copier: give a certificate for spiffe://example.test/millrace/copier";
    assert!(said.contains(words), "{said}");
}
