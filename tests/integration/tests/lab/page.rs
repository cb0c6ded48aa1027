//! The page of a copier: what it is made of, and, with `make page`, how it looks in a browser.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millrace_integration::cluster::{ClusterScene, Mode, join};
use millrace_integration::{Family, HTTP, Scene, can_run};
use millrace_lab::{Host, Process, StageOptions, wait_for};
use serde_json::Value;

const ADMIN: &str = "127.0.0.1:36525";
const LIMIT: Duration = Duration::from_secs(30);

fn admin() -> SocketAddr {
    ADMIN.parse().unwrap()
}

/// A copier of the live host's service, with an interceptor on the assistant.
fn scene(more: &[&str]) -> (Scene, Process) {
    let mut scene = Scene::new(StageOptions::default());
    scene.start_interceptor();
    let live = scene.live_service(0, Family::V4, HTTP);
    let service = format!("{live}-{}:{HTTP}", scene.stage.target.address.v4);
    let copier = scene.copier_of(&service, ADMIN, more);
    (scene, copier)
}

fn fidelity_is_whole(host: &Host) {
    wait_for("every byte to arrive", LIMIT, || {
        let status = host.get_json(admin(), "/status");
        status
            .is_ok_and(|it| it["report"]["bytes"]["wanted"] != 0 && it["report"]["fidelity"] == 1.0)
    })
    .unwrap();
}

#[test]
fn the_page_its_history_and_its_events_tell_what_status_tells() {
    if !can_run() {
        return;
    }
    let (scene, mut copier) = scene(&[]);
    let host = scene.stage.live[0].host.clone();
    wait_for("the admin port", LIMIT, || host.get(admin(), "/").is_ok()).unwrap();
    scene.requests(200);
    fidelity_is_whole(&host);
    let answer = host
        .check("curl", &["-si", &format!("http://{ADMIN}/")])
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.contains("content-security-policy: default-src 'none'; "),
        "{head}"
    );
    assert!(body.starts_with("<!doctype html>") && body.ends_with("</html>\n"));

    let total = |field: &str| -> f64 {
        let history = host.get_json(admin(), "/history?span=600").unwrap();
        let points = history["points"].as_array().unwrap();
        let each = |name: &str| {
            points
                .iter()
                .map(|it| it[name].as_f64().unwrap())
                .collect::<Vec<_>>()
        };
        let (lengths, rates) = (each("seconds"), each(field));
        lengths
            .iter()
            .zip(rates)
            .map(|(length, rate)| length * rate)
            .sum()
    };
    let copies = || (total("copies") - 200.0).abs() < 0.5;
    wait_for("the history of all copies", LIMIT, copies).unwrap();
    assert!((total("sessions") - 200.0).abs() < 0.5);
    let (wanted, delivered) = (total("wanted_bytes"), total("delivered_bytes"));
    assert!(wanted > 1000.0 && (wanted / delivered - 1.0).abs() < 1e-3);

    let metrics = host.get(admin(), "/metrics").unwrap().1;
    let name = "millrace_copier_turn_latency_seconds";
    let live = "{le=\"+Inf\",byte=\"first\",side=\"live\"} 200\n";
    assert!(
        metrics.contains(&format!("{name}_bucket{live}")),
        "{metrics}"
    );
    assert!(metrics.contains(&format!("{name}_count")));
    assert!(metrics.contains("millrace_copier_not_copying{cause=\"stopped\"} 0"));

    let listen = ["-sN", "--max-time", "3", &format!("http://{ADMIN}/events")];
    let events = String::from_utf8(host.run("curl", &listen).unwrap().stdout).unwrap();
    let lines = events
        .lines()
        .filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    assert!((2..=4).contains(&events.len()), "{}", events.len());
    let status = host.get_json(admin(), "/status").unwrap();
    for event in &events {
        assert_eq!(event["report"]["bytes"], status["report"]["bytes"]);
        assert_eq!(event["services"], status["services"]);
        assert!(event["headline"]["sentence"].is_string() && event["privileges"].is_object());
    }
    copier.terminate(LIMIT).unwrap();
}

/// A browser on a host: see `tests/page/look.mjs`.
struct Browser {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
    page: SocketAddr,
    pictures: PathBuf,
}

impl Browser {
    fn open(host: &Host, page: SocketAddr) -> Self {
        let pictures = PathBuf::from(std::env::var_os("MILLRACE_PAGE").unwrap());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../page/look.mjs");
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", host.namespace(), "node", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = host.enter(|| command.spawn()).unwrap().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            answers,
            page,
            pictures,
        }
    }

    /// Looks at the page, which is to say this of how things stand.
    fn look(&mut self, state: &str, name: &str) {
        let (page, pictures) = (self.page, self.pictures.display());
        let line = format!("http://{page}/\t{state}\t{pictures}\t{name}\n");
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n", "{name}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

#[test]
#[ignore = "needs a browser: make page"]
fn the_page_shows_each_state_in_a_browser() {
    if !can_run() {
        return;
    }
    let guard = ["--guard", "connect-failures>5%:stop"];
    let (mut scene, mut copier) = scene(&guard);
    let host = scene.stage.live[0].host.clone();
    wait_for("the admin port", LIMIT, || host.get(admin(), "/").is_ok()).unwrap();
    let mut browser = Browser::open(&host, admin());
    browser.look("Nothing to copy|Nothing captured", "1-nothing-yet");
    // The target's way to the assistant is forgotten.
    let to_clients = "198.18.1.0/24";
    let target = scene.stage.target.host.clone();
    target.ip(&[format!("route del {to_clients}")]).unwrap();
    scene.requests(200);
    browser.look("No first contact with the target", "2-no-first-contact");
    let way = format!("via {} dev eth0", scene.stage.assistant.address.v4);
    target
        .ip(&[format!("route add {to_clients} {way}")])
        .unwrap();
    scene.requests(3000);
    browser.look("Copying", "3-copying");
    drop(scene.interceptor.take());
    browser.look("No interceptor", "4-no-interceptor");
    scene.start_interceptor();
    browser.look("Copying", "5-copying-again");
    // The target's application goes, and connections are refused.
    drop(scene.target_recorder.take());
    scene.requests(1500);
    browser.look("Stopped", "6-stopped-by-a-guard");
    copier.kill().unwrap();
    browser.look("Connection lost", "7-connection-lost");
}

#[test]
#[ignore = "needs a browser: make page"]
fn the_page_shows_the_cluster_in_a_browser() {
    if !can_run() {
        return;
    }
    let Some(mut scene) = ClusterScene::in_consul(ClusterScene::options(), Mode::Sink) else {
        return;
    };
    scene.ctl(&["ramp", "50%..100%/5s"]);
    for live in 0..2 {
        scene.start_copier(live, &["-f", "auto", "--follow-plan"]);
    }
    join(scene.light_load(0, Duration::from_secs(8)));
    let host = scene.cluster.live[0].host.clone();
    let page = ([127, 0, 0, 1], 9100).into();
    let mut browser = Browser::open(&host, page);
    browser.look("Copying|Nothing to copy", "8-cluster");
    let lost = scene.cluster.live[1].host.clone();
    scene.consul.as_ref().unwrap().cut(&lost, true);
    scene.ctl(&["stop"]);
    wait_for("the lost copier to be missed", LIMIT, || {
        scene.status(0)["cluster"]["copiers"]
            .to_string()
            .contains("silent")
    })
    .unwrap();
    browser.look("Stopped", "9-cluster-stopped");
}
