//! A live host, and what lies between it and its target.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use millrace_integration::{Family, HTTP, INTERCEPTOR_PORT, Scene, binary, can_run};
use millrace_lab::{Host, StageOptions};

use super::{Named, assert_named, named};

/// A copier as the README's, with a pool that keeps answers from real clients.
pub(super) struct Live {
    pub(super) scene: Scene,
    pub(super) interceptor: String,
    pub(super) target: Ipv4Addr,
}

impl Live {
    pub(super) fn new() -> Self {
        let mut scene = Scene::new(StageOptions::default());
        scene.start_interceptor();
        Self {
            interceptor: format!("{}:{INTERCEPTOR_PORT}", scene.stage.assistant.address.v4),
            target: scene.stage.target.address.v4,
            scene,
        }
    }

    pub(super) fn host(&self) -> &Host {
        &self.scene.stage.live[0].host
    }

    /// What is not well with a copier of port `port` to `target`, with more options.
    pub(super) fn copier(&self, port: u16, target: &str, more: &[&str]) -> Vec<Named> {
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
    pub(super) fn usual(&self, more: &[&str]) -> Vec<Named> {
        self.copier(HTTP, &format!("{}:{HTTP}", self.target), more)
    }
}

/// A pool of addresses of nobody.
pub(super) const POOL: [&str; 2] = ["-c", "198.18.9.0/24"];

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
fn a_live_service_of_tls_and_a_host_that_tracks_connections_are_named() {
    if !can_run() {
        return;
    }
    let live = Live::new();
    let target = format!("{}:{HTTP}", live.target);
    let secure = SocketAddr::from(([0, 0, 0, 0], 443));
    let secure = live.host().enter(move || TcpListener::bind(secure));
    let _secure = secure.unwrap().unwrap();
    let found = live.copier(443, &target, &POOL);
    assert_named(
        &found,
        &[("warning", "tls")],
        "behind the proxy that ends TLS",
    );

    // What the copier sends through the host's routing would be tracked.
    let track = "nft add table ip track; nft 'add chain ip track out { type filter hook output priority 0; }'; \
                 nft add rule ip track out ct state new counter accept";
    live.host().check("sh", &["-c", track]).unwrap();
    let some = live.scene.live_service(0, Family::V4, HTTP);
    let some = live.host().enter(move || TcpStream::connect(some));
    let _some = some.unwrap().unwrap();
    assert_eq!(live.usual(&POOL), [], "past the routing");
    let routed = [&POOL[..], &["-o", "routed"]].concat();
    let found = live.usual(&routed);
    assert_named(&found, &[("failure", "conntrack")], "(-o DEV)");
    let link = [&POOL[..], &["-o", "eth0"]].concat();
    assert_eq!(live.usual(&link), []);
    // The other cure, as it is printed.
    let exempt = "iptables -t raw -I OUTPUT -p tcp -d TARGET --dport PORT -j CT --notrack";
    assert!(found[0].2.contains(exempt), "{found:?}");
    let exempt = exempt.replace("TARGET", &live.target.to_string());
    let exempt = exempt.replace("PORT", &HTTP.to_string());
    live.host().check("sh", &["-c", &exempt]).unwrap();
    assert_eq!(
        live.usual(&[&routed[..], &["--allow-conntrack"]].concat()),
        []
    );
}
