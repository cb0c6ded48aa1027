//! Hosts that are broken on purpose: the check that is for it says so and no other, and passes once that is mended.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use millrace_integration::target_host::{TargetHost, service, vip};
use millrace_integration::{Family, HTTP, INTERCEPTOR_PORT, Scene, binary, can_run};
use millrace_lab::{Host, StageOptions};
use serde_json::Value;

/// What a check that is not content says: how bad it is, its name, and what is next.
type Named = (String, String, String);

/// The checks of a daemon with these arguments that are not content; all of them take less than two seconds.
fn named(host: &Host, program: &str, arguments: &[&str]) -> Vec<Named> {
    let began = Instant::now();
    let output = host.run(binary(program), arguments).unwrap();
    let took = began.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    let all: Vec<Value> = serde_json::from_str(&said)
        .unwrap_or_else(|_| panic!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // A check that must wait for another one's cure names nothing.
    let named: Vec<Named> = all
        .iter()
        .filter(|it| it["level"] != "ok" && !text(&it["found"]).starts_with("not known"))
        .map(|it| (text(&it["level"]), text(&it["name"]), text(&it["next"])))
        .collect();
    let failed = named.iter().any(|(level, ..)| level == "failure");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{said}");
    // Checks wait for others at most so long, all at once; the rest is room for a busy machine.
    assert!(took < Duration::from_secs(20), "{took:?}: {said}");
    named
}

/// A copier as the README's, with a pool that keeps answers from real clients.
struct Live {
    scene: Scene,
    interceptor: String,
    target: Ipv4Addr,
}

impl Live {
    fn new() -> Self {
        let mut scene = Scene::new(StageOptions::default());
        scene.start_interceptor();
        Self {
            interceptor: format!("{}:{INTERCEPTOR_PORT}", scene.stage.assistant.address.v4),
            target: scene.stage.target.address.v4,
            scene,
        }
    }

    fn host(&self) -> &Host {
        &self.scene.stage.live[0].host
    }

    /// What is not well with a copier of port `port` to `target`, with more options.
    fn copier(&self, port: u16, target: &str, more: &[&str]) -> Vec<Named> {
        let services = format!("{port}-{target}");
        let usual = ["check", "--json", "--insecure", "-x", &services];
        let interceptor = ["-s", &self.interceptor];
        let interceptor = if more.contains(&"-s") {
            &[][..]
        } else {
            &interceptor
        };
        let arguments = [&usual[..], interceptor, more].concat();
        named(self.host(), "millrace-copier", &arguments)
    }

    /// As `copier`, of the usual service to the usual target.
    fn usual(&self, more: &[&str]) -> Vec<Named> {
        self.copier(HTTP, &format!("{}:{HTTP}", self.target), more)
    }
}

/// A pool of addresses of nobody.
const POOL: [&str; 2] = ["-c", "198.18.9.0/24"];

/// The checks that are named are these, and the first says so next.
fn assert_named(found: &[Named], wanted: &[(&str, &str)], next: &str) {
    let names: Vec<(&str, &str)> = found
        .iter()
        .map(|(level, name, _)| (level.as_str(), name.as_str()))
        .collect();
    assert_eq!(names, wanted, "{found:?}");
    assert!(found[0].2.contains(next), "{found:?}");
}

#[test]
fn a_copiers_host_that_is_well_names_nothing_and_each_fault_its_own_check() {
    if !can_run() {
        return;
    }
    let mut live = Live::new();
    assert_eq!(live.usual(&POOL), []);
    let target = live.target;

    let port = format!("{target}:{HTTP}");
    let found = live.copier(81, &port, &POOL);
    assert_named(
        &found,
        &[("warning", "listener")],
        "tcpdump -ni any tcp port 81",
    );

    let closed = format!("{target}:8099");
    let found = live.copier(HTTP, &closed, &POOL);
    assert_named(&found, &[("failure", "target-port")], "sport = :8099");

    let found = live.copier(HTTP, "198.18.2.99:80", &POOL);
    assert_named(&found, &[("failure", "route")], "ip route get 198.18.2.99");

    let report = [&POOL[..], &["--report", "/nonexistent/report.json"]].concat();
    assert_named(
        &live.usual(&report),
        &[("failure", "report")],
        "/nonexistent",
    );

    let agent = format!("{target}");
    let agent = ["--router-agent", agent.as_str()];
    let found = live.usual(&[&POOL[..], &agent].concat());
    assert_named(
        &found,
        &[("failure", "router-agents")],
        "millrace-router-agent",
    );
    // Names the check, and leaves it out.
    let skip = [&POOL[..], &agent, &["--skip", "router-agents"]].concat();
    assert_named(&live.usual(&skip), &[("skipped", "router-agents")], "");
    let only = [&POOL[..], &agent, &["--only", "route,mtu"]].concat();
    assert_eq!(live.usual(&only), []);

    live.host()
        .check("ip", &["link", "set", "eth0", "mtu", "1400"])
        .unwrap();
    let found = live.usual(&POOL);
    assert_named(&found, &[("warning", "mtu")], "-M 1400");
    assert_eq!(live.usual(&[&POOL[..], &["-M", "1400"]].concat()), []);
    live.host()
        .check("ip", &["link", "set", "eth0", "mtu", "1500"])
        .unwrap();

    live.host()
        .check(
            "ip",
            &["link", "add", "spare", "type", "veth", "peer", "spare2"],
        )
        .unwrap();
    let devices = [&POOL[..], &["-i", "eth0,spare"]].concat();
    let found = live.usual(&devices);
    assert_named(&found, &[("warning", "devices")], "ip link set spare up");
    live.host().check("sh", &["-c", &found[0].2]).unwrap();
    assert_eq!(live.usual(&devices), []);

    // Something that speaks, and is no interceptor.
    let other = format!("{}:{HTTP}", live.target);
    let found = live.usual(&[&POOL[..], &["-s", &other]].concat());
    assert_named(&found, &[("failure", "interceptors")], "");

    drop(live.scene.interceptor.take());
    let found = live.usual(&POOL);
    assert_named(
        &found,
        &[("failure", "interceptors")],
        "millrace-interceptor",
    );
}

#[test]
fn clients_and_targets_that_do_not_fit_are_found_among_open_connections() {
    if !can_run() {
        return;
    }
    let live = Live::new();
    let guard = ("warning", "guard");
    assert_named(&live.usual(&[]), &[guard], "--router-agent");
    let service = live.scene.live_service(0, Family::V4, HTTP);
    let connect = |host: &Host, to: SocketAddr, count: usize| -> Vec<TcpStream> {
        let one = move |_| TcpStream::connect(to).unwrap();
        host.enter(move || (0..count).map(one).collect()).unwrap()
    };

    let near = connect(&live.scene.stage.assistant.host, service, 1);
    let found = live.usual(&[]);
    assert_named(
        &found,
        &[("warning", "same-network"), guard],
        "--router-agent",
    );
    drop(near);

    let far = connect(&live.scene.stage.client().unwrap().host, service, 60);
    assert_named(&live.usual(&[]), &[guard], "");
    let found = live.usual(&["-n", "1023"]);
    assert_named(&found, &[("warning", "client-ports"), guard], "-c");
    drop(far);

    // A service behind a proxy of this host, bound to loopback.
    let local = SocketAddr::from(([127, 0, 0, 1], 8099));
    let proxy = live.host().enter(move || TcpListener::bind(local));
    let _proxy = proxy.unwrap().unwrap();
    let _inner = connect(live.host(), local, 1);
    let target = format!("{}:{HTTP}", live.target);
    let found = live.copier(8099, &target, &["-i", "lo"]);
    assert_named(&found, &[("warning", "loopback-clients"), guard], "-H");

    // A copier does not start where answers of its target would go to real clients.
    let own = "127.0.0.1:8098".to_owned();
    let found = live.copier(HTTP, &own, &["--skip", "target-port"]);
    let wanted = [
        ("failure", "target-elsewhere"),
        ("skipped", "target-port"),
        guard,
    ];
    assert_named(&found, &wanted, "another host");
    let services = format!("{HTTP}-{own}");
    let arguments = ["-x", &services, "-s", &live.interceptor, "--insecure"];
    let output = live
        .host()
        .run(binary("millrace-copier"), &arguments)
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("--skip-checks target-elsewhere"), "{said}");
    drop(live.scene.finish());
}

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
    assistant.host.sysctl("net/ipv4/ip_forward", "0").unwrap();
    let taken = SocketAddr::new(assistant.address.v4.into(), INTERCEPTOR_PORT);
    let taken = assistant.host.enter(move || TcpListener::bind(taken));
    let _taken = taken.unwrap().unwrap();
    assert_named(&check(&link), &[("warning", "listening")], "sport = :36524");
    drop(scene.finish());
}

#[test]
fn a_targets_host_is_checked_for_what_keeps_its_answers_from_being_diverted() {
    if !can_run() {
        return;
    }
    let lab = TargetHost::new();
    let _server = lab.serve();
    let state = lab.state_dir().display().to_string();
    let wanted = Family::BOTH
        .map(|family| service(family).to_string())
        .join(",");
    let check = |host: &[&str]| {
        let usual = ["--insecure", "-b", "198.18.2.20", "--state-dir", &state];
        let command = ["check", "--json", "-s", &wanted];
        named(
            &lab.target,
            "millrace-router-agent",
            &[&usual[..], host, &command].concat(),
        )
    };
    let run = |command: &str| lab.target.check("sh", &["-c", command]).unwrap();
    // The VIP is on lo: its ARP settings are not yet right.
    let found = check(&[]);
    let next = "sysctl -w net/ipv4/conf/eth0/arp_ignore=1 net/ipv4/conf/eth0/arp_announce=2";
    assert_named(&found, &[("warning", "arp")], next);
    run(&found[0].2);
    assert_eq!(check(&[]), []);

    // Sources whose way back leads elsewhere, as on a real server whose default route is another device.
    run(
        "ip link add other type veth peer other2; ip link set other up; ip link set other2 up; ip route replace default dev other",
    );
    lab.target
        .sysctl("net/ipv4/conf/eth0/rp_filter", "1")
        .unwrap();
    let found = check(&[]);
    assert_named(&found, &[("warning", "rp-filter")], "rp_filter=2");
    assert_eq!(check(&["--manage-sysctl"]), []);
    run(&found[0].2);
    assert_eq!(check(&[]), []);
    // Without a way to them even a loose filter drops them.
    run("ip route del default; ip link del other");
    let found = check(&[]);
    assert_named(&found, &[("warning", "rp-filter")], "rp_filter=0");
    run(&found[0].2);
    assert_eq!(check(&[]), []);
    run("ip route replace default via 198.18.2.1");

    let rule = format!("pref 100 from {} lookup main", vip(Family::V4));
    run(&format!("ip rule add {rule}"));
    let found = check(&[]);
    assert_named(&found, &[("failure", "policy-rules")], "");
    run(&format!("ip rule del {rule}"));

    run("ip link add millrace0 type veth peer sink2");
    assert_named(&check(&[]), &[("failure", "sink-device")], "");
    run("ip link del millrace0");

    let gateway = [
        "--mode",
        "assistant",
        "--assistant",
        "198.18.2.1,2001:db8:2::1",
    ];
    assert_named(&check(&gateway), &[("failure", "assistant")], "");

    let user = lab.connect(
        millrace_integration::target_host::client(Family::V4),
        Duration::from_secs(5),
    );
    let user = user.unwrap();
    assert_named(&check(&[]), &[("failure", "real-users")], "");
    let forced = service(Family::V4).to_string();
    assert_eq!(check(&["--force", &forced]), []);
    drop(user);

    assert_named(
        &check(&["--allow", "198.18.5.1:443"]),
        &[("failure", "plan")],
        "",
    );
    run("ip address del 198.18.5.1/32 dev lo");
    let found = check(&[]);
    assert_named(&found, &[("warning", "service-address")], "");
}
