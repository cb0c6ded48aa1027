//! Live services in pods of Kubernetes: found by labels or by a Service, while pods come and go.

use std::thread::sleep;
use std::time::Duration;

use millrace_integration::kubernetes::{
    KubeApi, NAMESPACE, NODE, Pod, Wiring, clients_reach_pods, open_forwarding,
};
use millrace_integration::{Family, HTTP, HTTP_TOO, Scene, can_run, number};
use millrace_lab::load::{Kind, Load, Summary};
use millrace_lab::{Process, StageOptions, wait_for};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
const WEB: (&str, &str) = ("app.kubernetes.io/name", "web");
const CART: (&str, &str) = ("app", "cart");

/// A scene whose live host is a node, with an API; no copier yet.
fn node(wiring: Wiring) -> (Scene, KubeApi) {
    let mut scene = Scene::new(StageOptions::default());
    open_forwarding(&scene, wiring);
    clients_reach_pods(&scene);
    let api = KubeApi::start(&scene.stage.live[0].host);
    scene.start_interceptor();
    (scene, api)
}

/// What `-x` says of one service in pods, of both families.
fn service(scene: &Scene, text: &str, port: u16) -> String {
    let target = scene.stage.target.address.v4;
    format!("{text}:{port}-{target}:{port}")
}

fn start(scene: &mut Scene, api: &KubeApi, services: &str, more: &[&str]) {
    let kubeconfig = api.kubeconfig();
    let usual = ["--kubeconfig", &kubeconfig, "--node", NODE];
    let copier = copier(scene, services, &[&usual[..], more].concat());
    scene.copiers.push(copier);
}

/// A copier whose admin port answers.
fn copier(scene: &Scene, services: &str, more: &[&str]) -> Process {
    let report = scene.stage.live[0].host.file("report.json");
    let report = report.display().to_string();
    let arguments = [&["--report", &report][..], more].concat();
    let mut copier = scene.copier_of(services, "127.0.0.1:9100", &arguments);
    let host = &scene.stage.live[0].host;
    wait_for("the copier to be up", PATIENCE, || {
        assert!(copier.is_running(), "{}", copier.log());
        host.get(([127, 0, 0, 1], 9100).into(), "/healthz").is_ok()
    })
    .unwrap();
    copier
}

/// The pods of the first service that the copier knows, by name.
fn known(scene: &Scene, at: usize) -> Vec<String> {
    let status = scene.status(0);
    let pods = status["pods"][at]["pods"].as_object();
    let placed = |places: &Value| {
        let mut places = places.as_array().into_iter().flatten();
        places.all(|place| place["device"].is_string())
    };
    let pods = pods.into_iter().flatten();
    let pods = pods.filter(|(_, places)| placed(places));
    pods.map(|(name, _)| name.clone()).collect()
}

fn wait_for_pods(scene: &Scene, at: usize, names: &[&str]) {
    wait_for("the pods to be known", PATIENCE, || {
        known(scene, at) == names
    })
    .unwrap();
    // The capture thread looks for news every 50 ms.
    sleep(Duration::from_millis(200));
}

fn talk(scene: &Scene, pod: &Pod, port: u16, count: u64) -> Summary {
    let kind = Kind::OneRequest {
        count,
        rate: Some(200.0),
        path: "/bytes/300".to_owned(),
    };
    let to = pod.service(Family::V4, port);
    scene.load(Load::new(kind, to).from(&scene.client_addresses(Family::V4)))
}

fn sentence(scene: &Scene) -> String {
    scene.status(0)["headline"]["sentence"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Pods come and go while clients talk; those of other labels, nodes and ports are left alone.
fn a_rollout_is_followed(wiring: Wiring, chosen_by: &str) {
    if !can_run() {
        return;
    }
    let (mut scene, api) = node(wiring);
    api.set_service("web", WEB);
    let mut first = Pod::start(&scene, "web-1", 2, wiring);
    let other = Pod::start(&scene, "cart-1", 3, wiring);
    api.set_pod("web-1", NODE, WEB, &first.addresses());
    api.set_pod("cart-1", NODE, CART, &other.addresses());
    api.set_pod("web-9", "live9", WEB, &["198.18.9.9".to_owned()]);
    let services = service(&scene, chosen_by, HTTP);
    start(&mut scene, &api, &services, &[]);
    wait_for_pods(&scene, 0, &["web-1"]);
    let mut sessions = talk(&scene, &first, HTTP, 200).sessions;
    talk(&scene, &other, HTTP, 50);
    talk(&scene, &first, HTTP_TOO, 50);

    // A roll-out: the next one comes, both serve, the first one goes.
    let mut second = Pod::start(&scene, "web-2", 4, wiring);
    api.set_pod("web-2", NODE, WEB, &second.addresses());
    wait_for_pods(&scene, 0, &["web-1", "web-2"]);
    sessions += talk(&scene, &second, HTTP, 200).sessions;
    sessions += talk(&scene, &first, HTTP, 100).sessions;
    api.delete_pod("web-1");
    wait_for_pods(&scene, 0, &["web-2"]);
    sessions += talk(&scene, &second, HTTP, 200).sessions;

    // What the pods of others recorded is none of it, nor what came to another port.
    scene.settle(PATIENCE);
    let copied = number(&scene.status(0), "/report/sessions/captured");
    assert_eq!(copied, sessions, "{}", scene.copiers[0].log());
    for pod in [&mut first, &mut second] {
        pod.count_as_live(&mut scene);
    }
    let outcome = scene.finish();
    assert_eq!(outcome.reports[0]["fidelity"], 1.0);
    assert_eq!(outcome.reports[0]["capture"]["dropped"], 0);
    assert_eq!(outcome.target.len() as u64, sessions);
}

#[test]
fn pods_of_a_service_with_a_device_each_are_copied_as_they_come_and_go() {
    let service = format!("service/{NAMESPACE}/web");
    a_rollout_is_followed(Wiring::PointToPoint, &service);
}

#[test]
fn pods_with_labels_on_a_bridge_are_copied_as_they_come_and_go() {
    let labels = format!("pods/{NAMESPACE}/{}={}", WEB.0, WEB.1);
    a_rollout_is_followed(Wiring::Bridge, &labels);
}

#[test]
fn several_services_follow_their_own_pods_and_speak_to_each_other() {
    if !can_run() {
        return;
    }
    let wiring = Wiring::PointToPoint;
    let (mut scene, api) = node(wiring);
    api.set_service("web", WEB);
    let mut web = Pod::start(&scene, "web-1", 2, wiring);
    let mut cart = Pod::start(&scene, "cart-1", 3, wiring);
    api.set_pod("web-1", NODE, WEB, &web.addresses());
    api.set_pod("cart-1", NODE, CART, &cart.addresses());
    let services = [
        service(&scene, &format!("service/{NAMESPACE}/web"), HTTP),
        service(&scene, &format!("pods/{NAMESPACE}/app=cart"), HTTP_TOO),
    ];
    let assistant = scene.stage.assistant.address.v4;
    let route = format!("route add 198.18.4.0/24 via {assistant}");
    scene.stage.target.host.ip(&[route]).unwrap();
    // Copies of what pods say to each other bear pods' addresses; the target knows no way to these.
    start(
        &mut scene,
        &api,
        &services.join(","),
        &["-c", "198.18.4.0/24"],
    );
    wait_for_pods(&scene, 0, &["web-1"]);
    wait_for_pods(&scene, 1, &["cart-1"]);
    let mut sessions = talk(&scene, &web, HTTP, 100).sessions;
    sessions += talk(&scene, &cart, HTTP_TOO, 100).sessions;
    // The same packets pass the devices of both pods.
    let kind = Kind::OneRequest {
        count: 100,
        rate: Some(200.0),
        path: "/bytes/300".to_owned(),
    };
    let to = cart.service(Family::V4, HTTP_TOO);
    let between = web
        .host
        .enter_async(move || Load::new(kind, to).run())
        .unwrap();
    assert_eq!(between.errors, 0);
    sessions += between.sessions;
    scene.settle(PATIENCE);
    for pod in [&mut web, &mut cart] {
        pod.count_as_live(&mut scene);
    }
    let outcome = scene.finish();
    assert_eq!(number(&outcome.reports[0], "/sessions/captured"), sessions);
    outcome.assert_exact();
}

#[test]
fn sessions_with_a_pod_that_dies_end_at_the_target_too() {
    if !can_run() {
        return;
    }
    let wiring = Wiring::PointToPoint;
    let (mut scene, api) = node(wiring);
    api.set_service("web", WEB);
    let pod = Pod::start(&scene, "web-1", 2, wiring);
    api.set_pod("web-1", NODE, WEB, &pod.addresses());
    let services = service(&scene, &format!("service/{NAMESPACE}/web"), HTTP);
    start(&mut scene, &api, &services, &[]);
    wait_for_pods(&scene, 0, &["web-1"]);
    let to = pod.service(Family::V4, HTTP);
    let client = scene.stage.client().unwrap().host.clone();
    // Once the pod's route is gone, this one leads to its address.
    let uplink = "route add default via 198.18.2.1".to_owned();
    scene.stage.live[0].host.ip(&[uplink]).unwrap();
    let stream = client
        .enter(move || {
            let mut stream = std::net::TcpStream::connect(to).unwrap();
            let request = b"GET /bytes/300 HTTP/1.1\r\nHost: web\r\n\r\n";
            std::io::Write::write_all(&mut stream, request).unwrap();
            let mut some = [0; 100];
            std::io::Read::read_exact(&mut stream, &mut some).unwrap();
            stream
        })
        .unwrap();
    let open = |scene: &Scene| number(&scene.status(0), "/report/replicas/open");
    wait_for("the session to be copied", PATIENCE, || open(&scene) == 1).unwrap();
    // Its device goes with it; nobody says goodbye.
    scene.stage.live[0]
        .host
        .ip(&["link del pod2".to_owned()])
        .unwrap();
    api.delete_pod("web-1");
    wait_for("the copy to end", PATIENCE, || open(&scene) == 0).unwrap();
    let report = scene.status(0)["report"].clone();
    assert_eq!(number(&report, "/replicas/completed"), 1, "{report:#}");
    assert_eq!(report["fidelity"], 1.0);
    drop(stream);
    assert!(sentence(&scene).contains("no pod of service/shop/web:8080 is on node live1"));
}

#[test]
fn while_the_api_is_away_or_refuses_what_was_known_stays_and_it_is_said() {
    if !can_run() {
        return;
    }
    let wiring = Wiring::PointToPoint;
    let (mut scene, mut api) = node(wiring);
    api.set_service("web", WEB);
    let mut pod = Pod::start(&scene, "web-1", 2, wiring);
    api.set_pod("web-1", NODE, WEB, &pod.addresses());
    let services = service(&scene, &format!("service/{NAMESPACE}/web"), HTTP);
    api.forbid(true);
    start(&mut scene, &api, &services, &[]);
    let says = |scene: &Scene, what: &str| {
        let (found, limit) = (|| sentence(scene).contains(what), PATIENCE);
        let said = wait_for(what, limit, found);
        assert!(said.is_ok(), "{}", sentence(scene));
    };
    says(
        &scene,
        "the pods of service/shop/web:8080 are not known: the Kubernetes API refuses",
    );
    assert_eq!(scene.status(0)["headline"]["cause"], "pods");
    api.forbid(false);
    wait_for_pods(&scene, 0, &["web-1"]);
    api.stop();
    let mut sessions = talk(&scene, &pod, HTTP, 100).sessions;
    let remark = |scene: &Scene| scene.status(0)["headline"]["also"].to_string();
    wait_for("a remark", PATIENCE, || {
        remark(&scene).contains("stay as they were known last")
    })
    .unwrap();
    api.resume();
    wait_for("the API to be heard again", PATIENCE * 2, || {
        !remark(&scene).contains("stay as they were known last")
    })
    .unwrap();
    sessions += talk(&scene, &pod, HTTP, 100).sessions;
    scene.settle(PATIENCE);
    pod.count_as_live(&mut scene);
    let outcome = scene.finish();
    assert_eq!(number(&outcome.reports[0], "/sessions/captured"), sessions);
    outcome.assert_exact();
}

#[test]
fn a_pod_that_its_service_does_not_choose_any_more_is_copied_until_it_ends() {
    if !can_run() {
        return;
    }
    let wiring = Wiring::PointToPoint;
    let (mut scene, api) = node(wiring);
    api.set_service("web", WEB);
    let mut blue = Pod::start(&scene, "blue", 2, wiring);
    let mut green = Pod::start(&scene, "green", 3, wiring);
    api.set_pod("blue", NODE, WEB, &blue.addresses());
    api.set_pod("green", NODE, CART, &green.addresses());
    let services = service(&scene, &format!("service/{NAMESPACE}/web"), HTTP);
    start(&mut scene, &api, &services, &[]);
    wait_for_pods(&scene, 0, &["blue"]);
    let kind = Kind::KeepAlive {
        lasting: Duration::from_secs(8),
        pause: Duration::from_millis(100),
        path: "/bytes/300".to_owned(),
    };
    let load = Load::new(kind, blue.service(Family::V4, HTTP));
    let load = load
        .from(&scene.client_addresses(Family::V4))
        .concurrency(4);
    let summary = std::thread::scope(|threads| {
        let load = threads.spawn(|| scene.load(load));
        sleep(Duration::from_secs(2));
        api.choose("web", CART);
        wait_for_pods(&scene, 0, &["blue", "green"]);
        load.join().unwrap()
    });
    let sessions = summary.sessions + talk(&scene, &green, HTTP, 50).sessions;
    scene.settle(PATIENCE);
    for pod in [&mut blue, &mut green] {
        pod.count_as_live(&mut scene);
    }
    let outcome = scene.finish();
    assert_eq!(number(&outcome.reports[0], "/sessions/captured"), sessions);
    outcome.assert_exact();
}
