//! Rules and dashboards (deploy/mixin) over the figures of daemons that work, in a Prometheus.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_integration::can_run;
use millrace_lab::{Host, Process, wait_for};
use serde_json::Value;

use crate::mistakes::{GUARDED, USUAL, World};

/// Where Prometheus listens, on each host for itself.
const PROMETHEUS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9090);
const LIMIT: Duration = Duration::from_secs(60);

/// Panels that show nothing as long as nothing goes wrong, or without certificates.
const MAY_BE_EMPTY: [&str; 3] = [
    "What keeps a copier from copying",
    "Copies that ended early, sessions that were refused",
    "Days until certificates expire",
];

fn mixin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/mixin")
}

/// A Prometheus that asks these admin ports of its own host.
fn prometheus(host: &Host, ports: &[u16]) -> Process {
    let targets: Vec<String> = ports.iter().map(|it| format!("127.0.0.1:{it}")).collect();
    let files = ["rules.yaml", "alerts.yaml"].map(|it| mixin().join(it).display().to_string());
    let config = serde_json::json!({
        "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
        "rule_files": files,
        "scrape_configs": [{
            "job_name": "millrace",
            "static_configs": [{ "targets": targets, "labels": { "cluster": "shop" } }],
        }],
    });
    let file = host.file("prometheus.yaml");
    // What is JSON is YAML.
    std::fs::write(&file, config.to_string()).unwrap();
    let arguments = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", host.file("tsdb").display()),
        format!("--web.listen-address={PROMETHEUS}"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let log = host.file("prometheus.log");
    host.spawn("prometheus", &arguments, &[], &log).unwrap()
}

/// What a query gives now.
fn query(host: &Host, expression: &str) -> Value {
    let mut encoded = String::new();
    for byte in expression.bytes() {
        encoded += &format!("%{byte:02X}");
    }
    let answer = host.get_json(PROMETHEUS, &format!("/api/v1/query?query={encoded}"));
    let answer = answer.unwrap();
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].clone()
}

/// Each query of a dashboard and the panel that shows it, for all clusters and instances.
fn panels(board: &str) -> Vec<(String, String)> {
    let file = mixin().join(format!("dashboards/{board}.json"));
    let board: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression
                .replace("${prefix}", "millrace")
                .replace("$cluster", ".*")
                .replace("$instance", ".*")
                .replace("$__rate_interval", "10s");
            assert!(!expression.contains('$'), "{expression}");
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    found
}

#[test]
fn each_panel_shows_figures_of_daemons_that_work_and_no_alert_fires() {
    if !can_run() {
        return;
    }
    let mut world = World::new();
    world.guarded_target();
    world.copier(USUAL, &GUARDED);
    let (live, target) = (world.live().clone(), world.target().clone());
    let places = [
        (&live, "copiers", &[36_530][..]),
        (&target, "hosts", &[36_531, 36_532]),
    ];
    let _running = places.map(|(host, _, ports)| prometheus(host, ports));
    let scraped = |host| {
        let up = query(host, "max_over_time(up[1m]) == 1");
        up.as_array().is_some_and(|it| !it.is_empty())
    };
    for (host, ..) in places {
        wait_for("Prometheus", LIMIT, || {
            host.get(PROMETHEUS, "/-/ready").is_ok_and(|it| it.0 == 200) && scraped(host)
        })
        .unwrap();
    }
    for (host, board, _) in places {
        for (title, expression) in panels(board) {
            let mut last = Value::Null;
            let shown = wait_for("a panel's figures", LIMIT, || {
                world.clients();
                last = query(host, &expression);
                let series = last.as_array().unwrap();
                let a_number = |it: &Value| it["value"][1] != "NaN";
                MAY_BE_EMPTY.contains(&&*title) || series.iter().any(a_number)
            });
            assert!(shown.is_ok(), "{board}, {title}: {expression}: {last}");
            eprintln!("{board}: {title}: {last}");
        }
        let rules = host.get_json(PROMETHEUS, "/api/v1/rules").unwrap();
        for group in rules["data"]["groups"].as_array().unwrap() {
            for rule in group["rules"].as_array().unwrap() {
                assert_eq!(rule["health"], "ok", "{rule:#}");
                assert_ne!(rule["state"], "firing", "{rule:#}");
            }
        }
    }
}
