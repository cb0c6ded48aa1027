//! Daemons that are not there, that may not do what they must, or of which there are two.

use millrace_integration::{binary, can_run};
use millrace_lab::Host;

use super::{ADMIN, ASSISTED, GUARDED, USUAL, World, guarded};

#[test]
fn interceptors_that_are_not_there() {
    if !can_run() {
        return;
    }
    let wrong_port = ["-s", "198.18.2.20:36599", "--router-agent", "198.18.2.20"];
    guarded(":", USUAL, &wrong_port).names(
        &[
            "198.18.2.20:36599 refuses the connection",
            "name another one with -s",
        ],
        &[],
    );
    let mut world = World::new();
    world.copier(USUAL, &GUARDED);
    world.names(
        &[
            "198.18.2.20:36524 refuses the connection",
            "start millrace-interceptor",
        ],
        &[],
    );
    // Nothing has to be started again.
    world.guarded_target();
    world.names(&["copying 100% of"], &[]);
}

#[test]
fn two_copiers_with_one_name() {
    if !can_run() {
        return;
    }
    let named = ["--id", "live"];
    let mut world = guarded(":", USUAL, &[&GUARDED[..], &named].concat());
    world.names(&["copying 100% of"], &[]);
    let other = world.target().clone();
    let service = [
        "-x",
        "9090-198.18.2.30:8080",
        "-s",
        "198.18.2.20",
        "-i",
        "eth0",
    ];
    let arguments = [&service[..], &named].concat();
    world.start(&other, "millrace-copier", &arguments, ADMIN);
    world.names(&["took over", "another copier", "--id"], &[]);
}

#[test]
fn a_copier_without_privileges() {
    if !can_run() {
        return;
    }
    let world = World::new();
    let program = binary("millrace-copier").display().to_string();
    let line = format!("{program} -x {USUAL} -s 198.18.2.20 --insecure --control none");
    let output = world
        .live()
        .run("su", &["nobody", "-s", "/bin/sh", "-c", &line])
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("CAP_NET_RAW"), "{said}");
}

#[test]
fn an_interceptor_on_a_clients_host() {
    if !can_run() {
        return;
    }
    let words = [
        "that host is itself the client",
        "its kernel resets",
        "run millrace-interceptor on a host that is nobody's client",
    ];
    let ignored = |host: &Host| {
        let status = host.check(binary("millrace-interceptor"), &["status"]);
        let status = status.unwrap();
        assert!(
            status.contains("were addressed to this host itself"),
            "{status}"
        );
    };
    // All answers to clients go to the host of some.
    let mut world = World::new();
    let client = world.stage.client().unwrap().host.clone();
    let link = ["-b", "::", "-i", "eth0"];
    world.start(&client, "millrace-interceptor", &link, 36_531);
    world.copier(USUAL, &["-s", "198.18.1.10"]);
    world.names(&words, &[]);
    ignored(&client);
    // An assistant that uses the live service, too.
    let mut world = World::new();
    world.assisted_target();
    world.copier(USUAL, &ASSISTED);
    let assistant = world.assistant().clone();
    let own = [world.stage.assistant.address.v4.into()];
    world.names_to(&|| world.requests(&assistant, &own), &words, &[]);
    ignored(&assistant);
}
