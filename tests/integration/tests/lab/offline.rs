//! What was recorded arrives at a target as it was, whoever recorded it and however fast it is
//! replayed.

use std::path::Path;
use std::time::Duration;

use millrace_integration::replay::{Recording, a_few_requests, surprises};
use millrace_integration::traffic::some_of_everything;
use millrace_integration::{Family, HTTP, PORTS, Path as Way, Scene, can_run, number};
use millrace_lab::StageOptions;
use millrace_lab::fault::Fault;

const LIMIT: Duration = Duration::from_secs(240);

/// A scene without a copier.
fn scene() -> Scene {
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    scene
}

#[test]
fn every_kind_of_traffic_recorded_by_three_recorders_arrives_as_it_was() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    let recordings = [
        Recording::by_copier(&scene, "copier.pcapng", &[]),
        Recording::by_tcpdump(&scene, "tcpdump.pcap", "eth0", "tcp"),
        Recording::by_tcpdump(&scene, "any.pcap", "any", "tcp"),
    ];
    some_of_everything(&scene);
    let files = recordings.map(|recording| {
        let (file, said) = recording.end();
        assert!(
            said.contains(" 0 dropped") || said.contains("0 packets dropped"),
            "{said}"
        );
        file
    });
    let live = scene.take_live();
    for (file, more) in [
        (&files[0], &[][..]),
        (&files[0], &["-a", "10"]),
        (&files[0], &["--asap"]),
        (&files[1], &["-a", "2.5"]),
        (&files[2], &["--asap", "-m", "32"]),
    ] {
        let replay = scene.replay(&[file.as_path()], more, LIMIT);
        replay.assert_exact(&live, 1);
    }
    scene.set_faults(Way::CopierToTarget, Fault::loss(0.01), 7);
    let replay = scene.replay(&[files[0].as_path()], &["-a", "10"], LIMIT);
    replay.assert_exact(&live, 1);
}

#[test]
fn a_repeated_recording_comes_from_other_ports_each_time() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    let recording = Recording::by_copier(&scene, "three.pcapng", &[]);
    a_few_requests(&scene);
    let (file, _) = recording.end();
    let live = scene.take_live();
    let replay = scene.replay(&[file.as_path()], &["-T", "3"], LIMIT);
    replay.assert_exact(&live, 3);
    assert_eq!(replay.report["recording"]["rounds_done"], 3);
    assert_eq!(number(&replay.report, "/replicas/moved"), 0);
}

#[test]
fn a_recording_in_rotated_files_is_replayed_as_one() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    let recording = Recording::by_copier(&scene, "many.pcapng", &["--rotate-time", "1"]);
    a_few_requests(&scene);
    let (file, _) = recording.end();
    let mut parts: Vec<_> = std::fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("many-0"))
        .collect();
    parts.sort();
    assert!(parts.len() > 1, "{parts:?}");
    let live = scene.take_live();
    // In whatever order they are named.
    parts.reverse();
    let parts: Vec<&Path> = parts.iter().map(AsRef::as_ref).collect();
    let replay = scene.replay(&parts, &[], LIMIT);
    replay.assert_exact(&live, 1);
}

#[test]
fn what_inspect_foretells_of_a_recording_with_gaps_comes_true() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    // Linux numbers the packets of a connection one after the other: every 64th of each is left out.
    let lossy = "tcp and ip[4:2] & 63 != 0";
    let recording = Recording::by_tcpdump(&scene, "gaps.pcap", "eth0", lossy);
    some_of_everything(&scene);
    let (file, _) = recording.end();
    let found = scene.inspect(&file, &["--asap"]);
    let services = found["services"].as_array().unwrap();
    let replay = scene.replay(&[&file], &["--asap"], LIMIT);
    assert_eq!(replay.status.code(), Some(2), "{}", replay.log);
    assert!(
        number(&replay.report, "/bytes/missing") > 0,
        "{:#}",
        replay.report
    );
    let ours = services.iter().filter(|service| {
        let port = number(service, "/port");
        PORTS.iter().any(|it| u64::from(*it) == port)
    });
    assert_eq!(surprises(ours, &replay.report), [] as [String; 0]);
}

#[test]
fn a_recording_of_clients_alone_is_replayed_turn_by_turn() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    let recording = Recording::by_tcpdump(
        &scene,
        "clients.pcap",
        "eth0",
        &format!("tcp dst port {HTTP}"),
    );
    a_few_requests(&scene);
    let (file, _) = recording.end();
    let live = scene.take_live();
    for more in [&[][..], &["--asap"]] {
        let replay = scene.replay(&[file.as_path()], more, LIMIT);
        replay.assert_exact(&live, 1);
        assert_eq!(number(&replay.report, "/packets/live_segments"), 0);
        assert_eq!(number(&replay.report, "/gate/overridden"), 0);
    }
}

#[test]
fn what_was_not_delivered_is_exit_code_2() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    let recording = Recording::by_copier(&scene, "late.pcapng", &[]);
    a_few_requests(&scene);
    let (file, _) = recording.end();
    // The target refuses connections: nothing listens there.
    drop(scene.target_recorder.take().unwrap().stop());
    let host = scene.stage.live().unwrap().host.clone();
    let target = scene.stage.target.address.v4;
    let live = scene.live_service(0, Family::V4, HTTP);
    let interceptor = scene.stage.assistant.address.v4.to_string();
    let service = format!("{live}-{target}:{HTTP}");
    let file = file.display().to_string();
    let arguments = [
        "-i",
        &file,
        "-x",
        &service,
        "-s",
        &interceptor,
        "--insecure",
        "--no-probe",
        "--asap",
    ];
    let run = |more: &[&str]| {
        let arguments = [&arguments[..], more].concat();
        host.run(millrace_integration::binary("millrace-copier"), &arguments)
            .unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--min-fidelity"), "{said}");
    let output = run(&["--min-fidelity", "0"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    // Nothing of the recording belongs to this service.
    let nobody = format!("{}-{target}:{HTTP}", HTTP + 1000);
    let arguments = ["-i", &file, "-x", &nobody, "--local"];
    let output = host
        .run(millrace_integration::binary("millrace-copier"), &arguments)
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("packets belongs to -x"), "{said}");
}

#[test]
fn while_the_operator_has_paused_a_recording_waits() {
    if !can_run() {
        return;
    }
    let scene = Scene::new(StageOptions::default());
    let recording = Recording::by_copier(&scene, "paused.pcapng", &[]);
    a_few_requests(&scene);
    let (file, _) = recording.end();
    let host = scene.stage.live().unwrap().host.clone();
    let target = scene.stage.target.address.v4;
    let service = format!(
        "{}-{target}:{HTTP}",
        scene.live_service(0, Family::V4, HTTP)
    );
    let path = file.display().to_string();
    let arguments = ["-i", &path, "-x", &service, "--local"];
    let log = host.file("paused.log");
    let copier = millrace_integration::binary("millrace-copier");
    let mut replay = host.spawn(&copier, &arguments, &[], &log).unwrap();
    millrace_lab::wait_for("the pause", LIMIT, || {
        host.run(&copier, &["ctl", "pause"])
            .is_ok_and(|output| output.status.success())
    })
    .unwrap();
    // Longer than the recording.
    std::thread::sleep(Duration::from_secs(6));
    assert!(
        replay.wait(Duration::from_millis(1)).is_err(),
        "{}",
        replay.log()
    );
    host.check(&copier, &["ctl", "resume"]).unwrap();
    let status = replay.wait(LIMIT).unwrap();
    assert!(status.success(), "{status}: {}", replay.log());
}

#[test]
fn a_signal_ends_a_replay_of_a_pipe_that_has_no_data() {
    if !can_run() {
        return;
    }
    let scene = Scene::new(StageOptions::default());
    let host = scene.stage.live().unwrap().host.clone();
    let pipe = host.file("silent.fifo").display().to_string();
    host.check("mkfifo", &[&pipe]).unwrap();
    let service = format!(
        "{}-{}:{HTTP}",
        scene.live_service(0, Family::V4, HTTP),
        scene.stage.target.address.v4
    );
    let arguments = ["-i", &pipe, "-x", &service, "--local"];
    let log = host.file("silent.log");
    let copier = millrace_integration::binary("millrace-copier");
    let mut replay = host.spawn(&copier, &arguments, &[], &log).unwrap();
    millrace_lab::wait_for("the replay to begin", LIMIT, || {
        replay.log().contains("answers end in")
            || host
                .run(&copier, &["ctl", "intensity"])
                .is_ok_and(|output| output.status.success())
    })
    .unwrap();
    let status = replay.terminate(LIMIT).unwrap();
    assert_eq!(status.code(), Some(2), "{}", replay.log());
}
