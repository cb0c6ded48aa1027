//! A recording is replayed from one host, without an interceptor: what that sets up keeps the host's
//! own TCP away, is there as long as it is needed, and goes with the process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_integration::replay::{Recording, a_few_requests};
use millrace_integration::{Family, HTTP, Scene, binary, can_run, number};
use millrace_lab::{Host, Process, StageOptions, wait_for};

/// Far longer than anything here takes: reached only when a test fails.
const LIMIT: Duration = Duration::from_secs(120);

/// A scene, and a recording of a few requests on connections that stay open for a while.
fn scene_and_recording() -> (Scene, PathBuf) {
    let scene = Scene::new(StageOptions::default());
    let recording = Recording::by_copier(&scene, "local.pcapng", &[]);
    a_few_requests(&scene);
    let (file, _) = recording.end();
    (scene, file)
}

/// Begins a replay that takes its time, from this host to the target's IPv4 address.
fn begin(scene: &Scene, host: &Host, file: &Path, more: &[&str]) -> Process {
    let target = scene.stage.target.address.v4;
    let live = scene.live_service(0, Family::V4, HTTP);
    let service = format!("{live}-{target}:{HTTP}");
    let path = file.display().to_string();
    let arguments = ["-i", &path, "-x", &service, "--local", "-a", "0.1"];
    let arguments = [&arguments[..], more].concat();
    let copier = host
        .spawn(
            binary("millrace-copier"),
            &arguments,
            &[],
            &host.file("begun.log"),
        )
        .unwrap();
    wait_for("the replay to begin", LIMIT, || {
        copier.log().contains("answers end in")
    })
    .unwrap();
    copier
}

/// Replays a file with `--local` from this host to a target at this address.
fn replay_locally(
    scene: &Scene,
    host: &Host,
    file: &Path,
    target: &str,
    more: &[&str],
) -> std::process::Output {
    let live = scene.live_service(0, Family::V4, HTTP);
    let live6 = scene.live_service(0, Family::V6, HTTP);
    let service = match target.starts_with('[') {
        false => format!("{live}-{target}:{HTTP}"),
        true => format!("{live6}-{target}:{HTTP}"),
    };
    let file = file.display().to_string();
    let arguments = [&["-i", &file, "-x", &service, "--local", "--asap"], more].concat();
    host.run(binary("millrace-copier"), &arguments).unwrap()
}

/// Nothing of a replay is left on this host.
fn assert_nothing_left(host: &Host) {
    let devices = host.check("ip", &["-o", "link"]).unwrap();
    assert!(!devices.contains("millrace"), "{devices}");
    for family in ["-4", "-6"] {
        let routes = host
            .check("ip", &[family, "route", "show", "table", "all"])
            .unwrap();
        assert!(
            !routes.contains("198.19.") && !routes.contains("6d72"),
            "{routes}"
        );
    }
    let tables = host.check("nft", &["list", "tables"]).unwrap();
    assert!(!tables.contains("millrace"), "{tables}");
}

#[test]
fn one_command_replays_at_a_target_elsewhere_or_on_this_host_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let (mut scene, file) = scene_and_recording();
    let live = scene.take_live();
    // Only one family's share of them is replayed at a time.
    let sessions = live.len() / 2;
    let server = scene.stage.live().unwrap().host.clone();
    let target = scene.stage.target.host.clone();
    let address = scene.stage.target.address;
    for (host, at) in [
        (&server, address.v4.to_string()),
        (&server, format!("[{}]", address.v6)),
        (&target, address.v4.to_string()),
        (&target, format!("[{}]", address.v6)),
        (&target, "127.0.0.1".to_owned()),
        (&target, "[::1]".to_owned()),
    ] {
        let output = replay_locally(&scene, host, &file, &at, &[]);
        assert!(
            output.status.success(),
            "{} at {at}: {output:?}",
            host.name()
        );
        let received = scene.take_target();
        assert_eq!(
            received.len(),
            sessions,
            "{} at {at}: {output:?}",
            host.name()
        );
        let (_, extra) = split(&live, &received);
        assert_eq!(extra, 0, "{} at {at}", host.name());
        assert_nothing_left(host);
    }
}

/// How many streams of one are missing in the other, and the other way round.
fn split(
    live: &millrace_lab::records::RecordedStreams,
    target: &millrace_lab::records::RecordedStreams,
) -> (u64, u64) {
    let difference = live.compare(target);
    (difference.missing, difference.extra)
}

#[test]
fn a_killed_local_replay_leaves_nothing_either() {
    if !can_run() {
        return;
    }
    let (scene, file) = scene_and_recording();
    for host in [
        scene.stage.live().unwrap().host.clone(),
        scene.stage.target.host.clone(),
    ] {
        let mut copier = begin(&scene, &host, &file, &[]);
        std::thread::sleep(Duration::from_secs(1));
        copier.kill().unwrap();
        // The owner of the table ends when it sees that the copier is gone.
        let gone = wait_for("the table to go", Duration::from_secs(5), || {
            let tables = host.check("nft", &["list", "tables"]).unwrap_or_default();
            !tables.contains("millrace")
        });
        assert!(gone.is_ok(), "{}", host.name());
        assert_nothing_left(&host);
    }
}

/// The `nft` that holds the table of this copier.
fn nft_of(copier: &Process) -> String {
    let parent = copier.pid().to_string();
    let children = std::process::Command::new("pgrep")
        .args(["-P", &parent])
        .output()
        .unwrap();
    let children = String::from_utf8(children.stdout).unwrap();
    let mut is_nft = children.split_whitespace().filter(|child| {
        let name = std::fs::read_to_string(format!("/proc/{child}/comm"));
        name.is_ok_and(|name| name.trim() == "nft")
    });
    is_nft.next().unwrap().to_owned()
}

fn signal(pid: &str, signal: &str) {
    let status = std::process::Command::new("kill")
        .args([signal, pid])
        .status()
        .unwrap();
    assert!(status.success());
}

/// Waits until a replay has connections.
fn until_connected(scene: &Scene) {
    let target = &scene.stage.target.host;
    wait_for("connections to the target", LIMIT, || {
        let listed = target.check("ss", &["-Htn", "state", "established"]);
        listed.unwrap_or_default().contains(&format!(":{HTTP} "))
    })
    .unwrap();
}

#[test]
fn signals_to_the_whole_group_leave_the_shield_up_while_the_copier_drains() {
    if !can_run() {
        return;
    }
    let (scene, file) = scene_and_recording();
    let host = scene.stage.live().unwrap().host.clone();
    let report = host.file("drained.json");
    let report = report.display().to_string();
    let mut copier = begin(&scene, &host, &file, &["--report", &report]);
    until_connected(&scene);
    let nft = nft_of(&copier);
    // As a terminal and a service manager do it.
    for name in ["-INT", "-TERM", "-HUP", "-QUIT"] {
        signal(&nft, name);
    }
    // Several turns of each connection.
    std::thread::sleep(Duration::from_secs(1));
    let status = copier.terminate(LIMIT).unwrap();
    assert_eq!(status.code(), Some(2), "interrupted: {}", copier.log());
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(report["replicas"]["aborted"], serde_json::json!({}));
    assert!(number(&report, "/replicas/completed") > 0, "{report:#}");
    assert_nothing_left(&host);
}

#[test]
fn a_replay_whose_shield_is_gone_ends_and_says_so() {
    if !can_run() {
        return;
    }
    let (scene, file) = scene_and_recording();
    let host = scene.stage.live().unwrap().host.clone();
    host.sysctl("net/ipv4/ip_local_port_range", "10000 60999")
        .unwrap();
    let mut copier = begin(&scene, &host, &file, &[]);
    assert!(
        copier
            .log()
            .contains("from ports 1024 to 17151 are cut off"),
        "{}",
        copier.log()
    );
    until_connected(&scene);
    signal(&nft_of(&copier), "-KILL");
    let status = copier.wait(LIMIT).unwrap();
    assert_eq!(status.code(), Some(1), "{}", copier.log());
    let log = copier.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.starts_with("millrace-copier: --local: nft, which kept this host from resetting"),
        "{log}"
    );
}

#[test]
fn two_replays_at_one_target_need_shares_of_their_own() {
    if !can_run() {
        return;
    }
    let (scene, file) = scene_and_recording();
    let host = scene.stage.live().unwrap().host.clone();
    let target = scene.stage.target.address.v4.to_string();
    let mut first = begin(&scene, &host, &file, &["-f", "0/2"]);
    let beside = |share: &[&str]| {
        let more = [&["--admin", "127.0.0.1:36531"], share].concat();
        replay_locally(&scene, &host, &file, &target, &more)
    };
    for overlapping in [&["-f", "0/2"][..], &["-f", "0/4"], &[]] {
        let output = beside(overlapping);
        assert_eq!(output.status.code(), Some(1), "{overlapping:?}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("another replay on this host"), "{said}");
    }
    let output = beside(&["-f", "1/2"]);
    assert!(output.status.success(), "{output:?}");
    assert!(first.is_running(), "{}", first.log());
    first.kill().unwrap();
}

#[test]
fn a_host_without_ipv6_replays_at_itself_over_ipv4() {
    if !can_run() {
        return;
    }
    let (scene, file) = scene_and_recording();
    let host = scene.stage.target.host.clone();
    for which in ["all", "default"] {
        let key = format!("net/ipv6/conf/{which}/disable_ipv6");
        host.sysctl(&key, "1").unwrap();
    }
    let output = replay_locally(&scene, &host, &file, "127.0.0.1", &[]);
    assert!(output.status.success(), "{output:?}");
}
