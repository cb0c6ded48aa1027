//! What an operator sees: whether a copier copies, in one sentence, and if not, why and what to do.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use millrace_integration::{Family, HTTP, Scene, binary, can_run};
use millrace_lab::{Host, StageOptions, wait_for};

/// The admin port of copiers here.
const ADMIN: &str = "127.0.0.1:36525";
const LIMIT: Duration = Duration::from_secs(30);

/// What `millrace-copier` with these arguments says on a host.
fn said(host: &Host, arguments: &[&str]) -> String {
    let output = host.run(binary("millrace-copier"), arguments).unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

/// Waits until the status begins with these words.
fn wait_for_sentence(host: &Host, words: &str) -> String {
    let admin = ["status", "--admin", ADMIN];
    let mut last = String::new();
    let found = wait_for("the sentence", LIMIT, || {
        last = said(host, &admin);
        last.lines().next().is_some_and(|line| line.contains(words))
    });
    assert!(found.is_ok(), "{words}: {last}");
    last
}

/// A scene with an interceptor, its live host, and how `-x` names a port of the target there.
fn stage() -> (Scene, Host, impl Fn(u16) -> String) {
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let live = scene.live_service(0, Family::V4, HTTP);
    let target = scene.stage.target.address.v4;
    let host = scene.stage.live[0].host.clone();
    (scene, host, move |port| format!("{live}-{target}:{port}"))
}

#[test]
fn one_sentence_says_that_it_copies_or_what_keeps_it_from_that() {
    if !can_run() {
        return;
    }
    let (mut scene, host, service) = stage();
    let mut copier = scene.copier_of(&service(HTTP), ADMIN, &["--summary", "1"]);
    wait_for_sentence(&host, "nothing to copy: no packet of a client for port");
    scene.requests(100);
    // The load is over before the last copy of it is: what is still on its way counts as not delivered.
    let screen = wait_for_sentence(&host, "1.000000 delivered in the last");
    assert!(screen.starts_with("copying 100% of"), "{screen}");
    assert!(screen.contains("targets 1 of 1 open"), "{screen}");
    let json = said(&host, &["status", "--admin", ADMIN, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["headline"]["state"], "copying");

    let ctl = |action| said(&host, &["ctl", action, "--admin", ADMIN]);
    ctl("pause");
    let screen = wait_for_sentence(&host, "no new session is copied: paused by the operator");
    assert!(
        screen.contains("next: `millrace-copier ctl resume`"),
        "{screen}"
    );
    ctl("resume");
    wait_for_sentence(&host, "copying 100% of");

    drop(scene.interceptor.take());
    wait_for_sentence(&host, "not copying: no interceptor is connected");
    scene.start_interceptor();
    wait_for_sentence(&host, "copying 100% of");
    wait_for("a summary", LIMIT, || {
        copier
            .log()
            .contains("INFO millrace_copier::headline::watch: copying 100% of")
    })
    .unwrap();
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_port_that_nobody_listens_on_is_named_with_those_that_somebody_does() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let target = scene.stage.target.address.v4;
    let host = scene.stage.live[0].host.clone();
    let mut copier = scene.copier_of(&format!("81-{target}:{HTTP}"), ADMIN, &[]);
    scene.requests(100);
    let words = "not copying: no packet of a client for port 81 was seen in";
    wait_for_sentence(&host, words);
    wait_for("the cause in the log", LIMIT, || {
        copier.log().contains(words)
    })
    .unwrap();
    let line = format!("nothing on this host listens on port 81, but on 2525, 6380, {HTTP}");
    assert!(copier.log().contains(&line), "{}", copier.log());
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_target_that_refuses_and_a_live_service_that_speaks_tls_are_named() {
    if !can_run() {
        return;
    }
    let (scene, host, service) = stage();
    let mut copier = scene.copier_of(&service(79), ADMIN, &[]);
    wait_for_sentence(&host, "nothing to copy");
    let live = scene.live_service(0, Family::V4, HTTP);
    let client = scene.stage.client().unwrap().host.clone();
    // A record of the handshake with a ClientHello, as far as anybody looks.
    let hello = [0x16, 3, 1, 0, 80, 1, 0, 0, 76, 3, 3];
    client
        .enter(move || {
            for _ in 0..5 {
                let mut stream = TcpStream::connect(live).unwrap();
                stream.write_all(&hello).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_millis(200)))
                    .unwrap();
                drop(stream.read(&mut [0; 100]));
            }
        })
        .unwrap();
    let screen = wait_for_sentence(&host, "nothing listens on");
    assert!(screen.contains("sessions began with TLS"), "{screen}");
    wait_for("TLS in the log", LIMIT, || {
        copier.log().contains("sessions began with TLS")
    })
    .unwrap();
    copier.terminate(LIMIT).unwrap();
}

#[test]
fn a_report_that_cannot_be_written_where_it_should_be_is_not_lost() {
    if !can_run() {
        return;
    }
    let (scene, host, service) = stage();
    let (gone, stays) = (host.file("gone"), host.file("stays"));
    std::fs::create_dir_all(&gone).unwrap();
    let report = gone.join("report.json").display().to_string();
    let control = stays.join("copier.sock").display().to_string();
    let more = ["--report", &report, "--control", &control];
    let mut copier = scene.copier_of(&service(HTTP), ADMIN, &more);
    wait_for_sentence(&host, "nothing to copy");
    scene.requests(100);
    wait_for_sentence(&host, "copying 100% of");
    std::fs::remove_dir_all(&gone).unwrap();
    let status = copier.terminate(LIMIT).unwrap();
    let log = copier.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("cannot write the report"), "{log}");
    let (_, file) = log.split_once("the report is in ").unwrap();
    let (file, _) = file.split_once(" instead").unwrap();
    assert!(std::path::Path::new(file).starts_with(&stays), "{file}");
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(report["sessions"]["captured"], 100);
}

#[test]
fn the_log_is_json_where_that_is_wanted_and_its_level_can_be_changed() {
    if !can_run() {
        return;
    }
    let (scene, host, service) = stage();
    let more = ["--log-format", "json"];
    let mut copier = scene.copier_of(&service(HTTP), ADMIN, &more);
    wait_for_sentence(&host, "nothing to copy");
    let ctl = |level| said(&host, &["ctl", "log-level", level, "--admin", ADMIN]);
    assert!(
        ctl("verbose").contains("give error, warn, info"),
        "{}",
        ctl("verbose")
    );
    assert!(ctl("millrace_copier=debug").contains("log level: millrace_copier=debug"));
    scene.requests(100);
    wait_for_sentence(&host, "copying 100% of");
    copier.terminate(LIMIT).unwrap();
    let log = copier.log();
    let (log, _) = log.split_once("report after").unwrap();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let level = |level: &str| lines.iter().filter(|line| line["level"] == level).count();
    assert!(level("INFO") > 2, "{log}");
    assert!(
        lines.iter().all(|line| line["message"].is_string()),
        "{log}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line["message"] == "log level from now on: millrace_copier=debug")
    );
}
