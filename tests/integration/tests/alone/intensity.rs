//! How much is copied: several copiers with a share each, ramps that follow their schedule, and
//! guards that act while live clients notice nothing.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_integration::{Family, HTTP, INTERCEPTOR_PORT, Path, Scene, binary, can_run, number};
use millrace_lab::fault::Fault;
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::plot::{Line, chart};
use millrace_lab::recorder::{Manners, Recorder, RecorderConfig};
use millrace_lab::{Host, Process, StageOptions, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// One request for each connection, at this rate.
fn requests(scene: &Scene, per_second: f64, seconds: f64) -> Load {
    let kind = Kind::OneRequest {
        count: (per_second * seconds) as u64,
        rate: Some(per_second),
        path: "/bytes/200".to_owned(),
    };
    Load::new(kind, scene.live_service(0, Family::V4, HTTP))
        .from(&scene.client_addresses(Family::V4))
        .concurrency(64)
}

fn scene() -> Scene {
    let mut scene = Scene::new(StageOptions::default());
    let assistant = scene.stage.assistant.address;
    let pool = [
        format!("route add 198.18.9.0/24 via {}", assistant.v4),
        format!("route add 2001:db8:9::/64 via {}", assistant.v6),
    ];
    scene.stage.target.host.ip(&pool).unwrap();
    scene.start_interceptor();
    scene
}

/// A second copier on the live server, with its own admin port.
fn second_copier(scene: &Scene, port: u16, more: &[&str]) -> Process {
    let place = &scene.stage.live[0];
    let services = format!(
        "{}-{}",
        scene.live_service(0, Family::V4, HTTP),
        SocketAddr::new(scene.stage.target.address.v4.into(), HTTP)
    );
    let interceptor = format!("{}:{INTERCEPTOR_PORT}", scene.stage.assistant.address.v4);
    let admin = format!("127.0.0.1:{port}");
    let mut arguments = vec![
        "-x",
        &services,
        "-s",
        &interceptor,
        "--insecure",
        "--admin",
        &admin,
    ];
    arguments.extend(more);
    let log = place.host.file(&format!("copier-{port}.log"));
    let program = binary("millrace-copier");
    let mut process = place.host.spawn(program, &arguments, &[], &log).unwrap();
    let address: SocketAddr = admin.parse().unwrap();
    wait_for("the second copier", Duration::from_secs(20), || {
        !process.is_running()
            || place
                .host
                .get(address, "/readyz")
                .is_ok_and(|(status, _)| status == 200)
    })
    .unwrap();
    assert!(process.is_running(), "{}", process.log());
    process
}

/// Two copiers of the same traffic, five copies of each session by each: at the target there are ten
/// times as many connections as at the live server, and no two of them alike.
#[test]
fn two_copiers_with_a_share_each_never_collide_at_the_target() {
    if !can_run() {
        return;
    }
    for pool in [&[][..], &["-c", "198.18.9.10,2001:db8:9::10"]] {
        let mut scene = scene();
        let with = |share| [&["-n", "5", "-f", share], pool].concat();
        scene.start_copier(0, &with("0/2"));
        let mut second = second_copier(&scene, 9101, &with("1/2"));
        scene.load(requests(&scene, 100.0, 5.0));
        let to: SocketAddr = "127.0.0.1:9101".parse().unwrap();
        let status = || scene.stage.live[0].host.get_json(to, "/status").unwrap();
        scene.settle(Duration::from_secs(30));
        wait_for(
            "the second copier's replicas",
            Duration::from_secs(30),
            || number(&status(), "/report/replicas/open") == 0,
        )
        .unwrap();
        let theirs = status();
        assert_eq!(theirs["report"]["fidelity"], 1.0, "{theirs:#}");
        assert!(second.terminate(Duration::from_secs(60)).unwrap().success());
        let outcome = scene.finish();
        let report = &outcome.reports[0];
        assert_eq!(report["fidelity"], 1.0, "{report:#}");
        assert_eq!(number(report, "/replicas/moved"), 0, "{report:#}");
        let peers: Vec<SocketAddr> = outcome.target.records().iter().map(|r| r.peer).collect();
        assert_eq!(outcome.live[0].len(), 500);
        assert_eq!(peers.len(), 500 * 5 * 2);
        // A client that uses its port again does so here too; nobody else does.
        let distinct: HashSet<&SocketAddr> = peers.iter().collect();
        let clients = outcome.live[0].records().iter().map(|r| r.peer);
        let again = 500 - clients.collect::<HashSet<_>>().len();
        assert!(
            peers.len() - distinct.len() <= if pool.is_empty() { again } else { 0 },
            "{} of {} connections distinct, {again} client ports used again",
            distinct.len(),
            peers.len()
        );
        let difference = outcome.live[0].compare_times(&outcome.target, 10);
        assert!(difference.is_none(), "{difference}");
    }
}

const POOL: &str = "198.18.9.x,2001:db8:9::10-2001:db8:9::20";

/// A second copier that claims a part of the first one's sources is refused, by name.
#[test]
fn shares_that_overlap_are_refused_and_the_owner_is_named() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_copier(0, &["-c", POOL, "-f", "0/2", "--id", "first"]);
    let mut second = second_copier_unready(&scene, &["-c", POOL, "-f", "0/3", "--id", "second"]);
    wait_for("the refusal", Duration::from_secs(20), || {
        second.log().contains("first")
    })
    .unwrap();
    second.terminate(Duration::from_secs(60)).unwrap();
    scene.finish();
}

fn second_copier_unready(scene: &Scene, more: &[&str]) -> Process {
    let place = &scene.stage.live[0];
    let services = format!(
        "{}-{}",
        scene.live_service(0, Family::V4, HTTP),
        SocketAddr::new(scene.stage.target.address.v4.into(), HTTP)
    );
    let interceptor = format!("{}:{INTERCEPTOR_PORT}", scene.stage.assistant.address.v4);
    let admin = "127.0.0.1:9102";
    let mut arguments = vec![
        "-x",
        &services,
        "-s",
        &interceptor,
        "--insecure",
        "--admin",
        admin,
    ];
    arguments.extend(more);
    let log = place.host.file("copier-9102.log");
    place
        .host
        .spawn(binary("millrace-copier"), &arguments, &[], &log)
        .unwrap()
}

/// What was there at a moment of a run.
struct Moment {
    ramp_seconds: f64,
    intensity: f64,
    /// Sessions that began.
    sessions: u64,
    /// Copied connections that were opened.
    opened: u64,
}

/// Set to a file's name, the plot of docs/ramp.md is written there.
const PLOT: &str = "MILLRACE_RAMP_PLOT";

#[test]
fn a_ramp_follows_its_schedule() {
    if !can_run() {
        return;
    }
    const RAMP: &str = "10%..100%/12s,hold:4s,300%,hold:6s";
    let mut scene = scene();
    scene.start_copier(0, &["--ramp", RAMP]);
    let load = requests(&scene, 100.0, 22.0);
    let running = scene.stage.client().unwrap().host.start(move || load.run());
    let mut moments = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(22) {
        let status = scene.status(0);
        let intensity = &status["report"]["intensity"];
        moments.push(Moment {
            ramp_seconds: intensity["ramp"]["position_seconds"].as_f64().unwrap(),
            intensity: intensity["now"].as_f64().unwrap(),
            sessions: number(&status, "/report/sessions/captured")
                + number(&status, "/report/sessions/unchosen"),
            opened: number(&status, "/report/replicas/opened"),
        });
        std::thread::sleep(Duration::from_millis(1000));
    }
    let summary: Summary = running.join().unwrap().unwrap();
    assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    scene.settle(Duration::from_secs(30));
    let outcome = scene.finish();
    let report = &outcome.reports[0];
    assert_eq!(report["fidelity"], 1.0, "{report:#}");
    assert_eq!(
        outcome.target.len() as u64,
        number(report, "/replicas/opened")
    );

    // The schedule, and what was opened of it, all of which arrived.
    let schedule = |t: f64| match t {
        t if t < 12.0 => 0.1 + 0.9 * t / 12.0,
        t if t < 16.0 => 1.0,
        _ => 3.0,
    };
    for moment in &moments {
        let wanted = schedule(moment.ramp_seconds);
        assert!(
            (moment.intensity - wanted).abs() < 0.01,
            "at {} s: {}",
            moment.ramp_seconds,
            moment.intensity
        );
    }
    let measured: Vec<(f64, f64)> = moments
        .windows(2)
        .filter(|pair| pair[1].sessions > pair[0].sessions + 20)
        .map(|pair| {
            let ratio = (pair[1].opened - pair[0].opened) as f64
                / (pair[1].sessions - pair[0].sessions) as f64;
            ((pair[0].ramp_seconds + pair[1].ramp_seconds) / 2.0, ratio)
        })
        .collect();
    // Sessions are drawn: a tolerance for each second, and hardly any for the whole.
    for (at, ratio) in measured.iter().filter(|(at, _)| (at - 16.0).abs() > 1.5) {
        assert!(
            (ratio - schedule(*at)).abs() < 0.25,
            "after {at} s: {ratio}"
        );
    }
    let mean =
        |points: &[(f64, f64)]| points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64;
    let expected: Vec<(f64, f64)> = measured
        .iter()
        .map(|(at, _)| (*at, schedule(*at)))
        .collect();
    let (got, wanted) = (mean(&measured), mean(&expected));
    assert!(
        (got / wanted - 1.0).abs() < 0.1,
        "{got} copies per session, {wanted} wanted"
    );

    if let Some(file) = std::env::var_os(PLOT) {
        let planned = (0..=220)
            .map(|i| f64::from(i) / 10.0)
            .map(|t| (t, schedule(t)))
            .collect();
        let lines = [
            Line {
                name: "schedule",
                colour: "#999",
                points: planned,
            },
            Line {
                name: "measured at the target",
                colour: "#06c",
                points: measured,
            },
        ];
        let title = format!("--ramp {RAMP}");
        let svg = chart(&title, "seconds", "copies per live session", &lines);
        std::fs::write(file, svg).unwrap();
    }
}

/// The decisions of the copier's guards so far, as text.
fn decisions(status: &Value) -> Vec<String> {
    let list = status["report"]["intensity"]["decisions"]
        .as_array()
        .unwrap();
    list.iter()
        .map(|d| d["what"].as_str().unwrap().to_owned())
        .collect()
}

/// The guards' window, in seconds.
const WINDOW: f64 = 4.0;

/// A run in which something happens to the target after some seconds: a guard must act within its
/// window (and a second for the report), and live clients must notice nothing.
fn guarded(rule: &str, hurt: impl FnOnce(&mut Scene), mode: &str) -> Vec<String> {
    let mut scene = scene();
    let window = format!("{WINDOW}s");
    let options = [
        "--guard",
        rule,
        "--guard-window",
        &window,
        "--guard-sample",
        "20",
    ];
    scene.start_copier(0, &[&options[..], &["--ramp", "50%,100%/60s"]].concat());
    let load = requests(&scene, 60.0, 20.0);
    let running = scene.stage.client().unwrap().host.start(move || load.run());
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(scene.status(0)["report"]["intensity"]["mode"], "running");
    let begun = scene.status(0)["report"]["duration_seconds"]
        .as_f64()
        .unwrap();
    hurt(&mut scene);
    wait_for("the guard", Duration::from_secs(20), || {
        scene.status(0)["report"]["intensity"]["mode"] == mode
    })
    .unwrap_or_else(|error| panic!("{error}: {:#}", scene.status(0)["report"]["intensity"]));
    let summary: Summary = running.join().unwrap().unwrap();
    assert_eq!(
        summary.errors, 0,
        "live clients noticed: {:?}",
        summary.examples
    );
    assert_eq!(summary.sessions, 1200);
    let status = scene.status(0);
    let said = decisions(&status);
    assert!(said.iter().any(|what| what.contains(rule)), "{said:?}");
    // On the copier's own clock, and with as much again for a machine that does other things too.
    let list = status["report"]["intensity"]["decisions"].as_array();
    let first = list
        .unwrap()
        .iter()
        .find(|d| d["what"].as_str().unwrap().contains(rule));
    let took = first.unwrap()["at_seconds"].as_f64().unwrap() - begun;
    assert!(took < 2.0 * WINDOW, "acted after {took} s");
    for mut copier in std::mem::take(&mut scene.copiers) {
        assert!(copier.terminate(Duration::from_secs(60)).unwrap().success());
    }
    said
}

#[test]
fn a_target_that_becomes_slow_holds_the_ramp() {
    if !can_run() {
        return;
    }
    let said = guarded(
        "latency-p90>250ms:hold",
        |scene| {
            let late = Fault::delay(Duration::from_millis(400));
            scene.set_faults(Path::CopierToTarget, late, 1);
        },
        "held",
    );
    assert!(
        said.iter()
            .any(|what| what.contains("target") && what.contains("live")),
        "{said:?}"
    );
}

#[test]
fn a_target_that_resets_is_stepped_back() {
    if !can_run() {
        return;
    }
    guarded(
        "resets>10%:step-back",
        |scene| {
            let manners = Manners {
                reset_every: Some(1),
                ..Manners::default()
            };
            let mut good = scene.target_recorder.take().unwrap();
            good.process().kill().unwrap();
            let config = RecorderConfig {
                http: vec![HTTP],
                out: scene.stage.target.host.file("bad.json"),
                manners,
                ..RecorderConfig::default()
            };
            scene.target_recorder =
                Some(Recorder::start(&scene.stage.target.host, &config).unwrap());
        },
        "held",
    );
}

#[test]
fn a_target_that_is_killed_stops_everything() {
    if !can_run() {
        return;
    }
    guarded(
        "connect-failures>20%:stop",
        |scene| {
            scene
                .target_recorder
                .as_mut()
                .unwrap()
                .process()
                .kill()
                .unwrap();
        },
        "stopped",
    );
}

/// Answers HTTP requests on this port, one for each connection, but none of every `mute`th; ends by
/// itself.
async fn serve_partly(address: SocketAddr, mute: u64) {
    let listener = TcpListener::bind(address).await.unwrap();
    let serving = async {
        for number in 1u64.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await;
                if read.is_ok_and(|bytes| bytes > 0) && !number.is_multiple_of(mute) {
                    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes";
                    let _ = stream.write_all(head).await;
                }
                // Until the client closes.
                while stream.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {}
            });
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), serving).await;
}

#[test]
fn a_target_that_leaves_every_fifth_request_unanswered_stops_everything_while_it_does() {
    if !can_run() {
        return;
    }
    guarded(
        "unanswered>10%:stop",
        |scene| {
            let mut good = scene.target_recorder.take().unwrap();
            good.process().kill().unwrap();
            let target = &scene.stage.target;
            let address = SocketAddr::new(target.address.v4.into(), HTTP);
            drop(target.host.start(move || serve_partly(address, 5)));
        },
        "stopped",
    );
}

/// A hanging interceptor leaves SYNs and requests without answers, as a dead target would.
#[test]
fn a_hanging_interceptor_is_not_held_against_the_target() {
    if !can_run() {
        return;
    }
    let rules = "connect-failures>5%:stop,unanswered>10%:stop,latency-p90>1s:hold";
    let mut scene = scene();
    let options = ["--guard", rules, "--guard-window", "4s"];
    scene.start_copier(0, &[&options[..], &["--guard-sample", "20"]].concat());
    let load = requests(&scene, 60.0, 25.0);
    let running = scene.stage.client().unwrap().host.start(move || load.run());
    let blind = |scene: &Scene| !scene.status(0)["report"]["intensity"]["blind"].is_null();
    let judging = |scene: &Scene| {
        let guards = &scene.status(0)["report"]["intensity"]["guards"];
        !blind(scene) && number(&guards[0], "/count") >= 100
    };
    let limit = Duration::from_secs(30);
    wait_for("guards that judge", limit, || judging(&scene)).unwrap();
    let hanging = |scene: &mut Scene, signal| {
        let interceptor = scene.interceptor.as_mut().unwrap();
        interceptor.signal(signal).unwrap();
    };
    hanging(&mut scene, Signal::STOP);
    wait_for("guards that look away", limit, || blind(&scene)).unwrap();
    hanging(&mut scene, Signal::CONT);
    let summary: Summary = running.join().unwrap().unwrap();
    assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    wait_for("guards that look again", limit, || !blind(&scene)).unwrap();
    let status = scene.status(0);
    assert_eq!(status["report"]["intensity"]["mode"], "running");
    let said = decisions(&status);
    assert!(!said.iter().any(|what| what.contains("guard ")), "{said:?}");
    scene.settle(Duration::from_secs(30));
    let outcome = scene.finish();
    assert_eq!(outcome.reports[0]["fidelity"], 1.0);
}

/// Nothing of a ramp is lost, and nothing comes at once, because the way back was late.
#[test]
fn a_ramp_waits_for_the_way_back() {
    if !can_run() {
        return;
    }
    let mut scene = Scene::new(StageOptions::default());
    scene.start_copier_only(0, &["--ramp", "10%..300%/4s"]);
    let load = requests(&scene, 60.0, 20.0);
    let running = scene.stage.client().unwrap().host.start(move || load.run());
    std::thread::sleep(Duration::from_secs(6));
    let intensity = |scene: &Scene| scene.status(0)["report"]["intensity"].clone();
    let held = intensity(&scene);
    assert!(
        (held["now"].as_f64().unwrap() - 0.1).abs() < 1e-6,
        "{held:#}"
    );
    assert_eq!(held["ramp"]["waiting"], true, "{held:#}");
    scene.start_interceptor();
    wait_for("the end of the ramp", Duration::from_secs(30), || {
        (intensity(&scene)["now"].as_f64().unwrap() - 3.0).abs() < 1e-6
    })
    .unwrap();
    assert_eq!(intensity(&scene)["ramp"]["waiting"], false);
    let summary: Summary = running.join().unwrap().unwrap();
    assert_eq!(summary.errors, 0, "{:?}", summary.examples);
    scene.settle(Duration::from_secs(30));
    assert_eq!(scene.finish().reports[0]["fidelity"], 1.0);
}

/// Neither another user of the host nor whoever reaches the admin port gives commands.
fn nobody_else_commands(host: &Host) {
    for (path, body) in [("intensity", "10%"), ("pause", ""), ("stop", "")] {
        let url = format!("http://127.0.0.1:9100/{path}");
        let answer = host.check("curl", &["-s", "-d", body, &url]).unwrap();
        assert!(answer.contains("only shows"), "{path}: {answer}");
    }
    let shown = host.check("curl", &["-s", "http://127.0.0.1:9100/intensity"]);
    assert!(shown.unwrap().contains("\"now\":0.3"));
    // Where nobody may read it, too.
    let program = host.file("copier");
    std::fs::copy(binary("millrace-copier"), &program).unwrap();
    let program = program.display().to_string();
    let as_nobody = |arguments: &[&str]| {
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        host.run("setpriv", &[&user, arguments].concat()).unwrap()
    };
    if !as_nobody(&["true"]).status.success() {
        assert!(std::env::var_os("CI").is_none(), "a lab of root is needed");
        eprintln!("SKIPPED: there is no other user here");
        return;
    }
    let ctl = |action: &[&str]| {
        as_nobody(&[&[&program, "ctl", "--admin", "127.0.0.1:9100"], action].concat())
    };
    for action in [&["intensity", "10%"][..], &["pause"], &["stop"]] {
        let output = ctl(action);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("as root"), "{text}");
    }
    assert!(ctl(&["intensity"]).status.success(), "looking is allowed");
}

/// `ctl` on a running copier: what the operator says is done, and shown.
#[test]
fn ctl_sets_pauses_resumes_and_stops() {
    if !can_run() {
        return;
    }
    let mut scene = scene();
    scene.start_copier(0, &[]);
    let host = scene.stage.live[0].host.clone();
    let ctl = |arguments: &[&str]| {
        let all = [&["ctl", "--admin", "127.0.0.1:9100"], arguments].concat();
        host.run(binary("millrace-copier"), &all).unwrap()
    };
    let now = |scene: &Scene| {
        // A command is done within a tenth of a second, and shown a quarter of one later.
        std::thread::sleep(Duration::from_millis(700));
        scene.status(0)["report"]["intensity"]["now"]
            .as_f64()
            .unwrap()
    };
    for (arguments, intensity) in [
        (&["intensity", "20%"][..], 0.2),
        (&["pause"], 0.0),
        (&["resume"], 0.2),
        (&["intensity", "2.5"], 2.5),
        (&["ramp", "50%,10%..10%/1m"], 0.1),
        (&["ramp", "30%,hold:1m"], 0.3),
    ] {
        let output = ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!((now(&scene) - intensity).abs() < 1e-9, "{arguments:?}");
    }
    let shown = String::from_utf8(ctl(&["intensity"]).stdout).unwrap();
    assert!(shown.contains("intensity 0.3 (running)"), "{shown}");
    assert!(shown.contains("the operator has set 2.5"), "{shown}");
    for wrong in [
        &["intensity", "fast"][..],
        &["ramp"],
        &["pause", "1"],
        &["jump"],
    ] {
        let output = ctl(wrong);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}");
        assert_eq!(
            String::from_utf8(output.stderr).unwrap().lines().count(),
            1,
            "{wrong:?}"
        );
    }
    nobody_else_commands(&host);
    assert!((now(&scene) - 0.3).abs() < 1e-9);
    assert!(ctl(&["stop"]).status.success());
    let status = scene.copiers[0].wait(Duration::from_secs(40)).unwrap();
    assert!(status.success(), "{status}");
}
