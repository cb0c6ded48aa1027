//! An interceptor's host.

use std::net::{SocketAddr, TcpListener};

use millrace_integration::{INTERCEPTOR_PORT, Scene, can_run};
use millrace_lab::StageOptions;

use super::{assert_named, mend, named};

#[test]
fn an_interceptors_host_is_checked_for_devices_forwarding_and_its_port() {
    if !can_run() {
        return;
    }
    let scene = Scene::new(StageOptions::default());
    let assistant = &scene.stage.assistant;
    let address = assistant.address.v4.to_string();
    let check = |more: &[&str]| {
        let usual = ["check", "--json", "--insecure", "-b", &address];
        named(
            &assistant.host,
            "millrace-interceptor",
            &[&usual[..], more].concat(),
        )
    };
    let link = ["-i", "eth0"];
    assert_eq!(check(&link), []);
    assert_eq!(check(&[]), [], "the sink is made later");
    assert_named(
        &check(&["-i", "eth9"]),
        &[("failure", "devices")],
        "ip -br link",
    );
    assistant.host.sysctl("net/ipv4/ip_forward", "1").unwrap();
    assert_named(&check(&link), &[("failure", "forwarding")], "");
    assert_eq!(check(&[&link[..], &["--allow-forwarding"]].concat()), []);
    mend(&assistant.host, &check(&link)[0].2);
    assert_eq!(check(&link), []);
    let taken = SocketAddr::new(assistant.address.v4.into(), INTERCEPTOR_PORT);
    let taken = assistant.host.enter(move || TcpListener::bind(taken));
    let _taken = taken.unwrap().unwrap();
    assert_named(&check(&link), &[("warning", "listening")], "sport = :36524");
    drop(scene.finish());
}
