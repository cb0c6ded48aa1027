//! Rules and dashboards speak of metrics that there are, and each alert has its section in docs/alerts.md.

#![allow(clippy::unwrap_used, clippy::panic, unused_crate_dependencies)]

use std::collections::BTreeSet;

use millrace_house::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

/// All that begins with these words and goes on as a metric's name does.
fn names<'a>(text: &'a str, beginning: &str) -> BTreeSet<&'a str> {
    let goes_on = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let found = text.match_indices(beginning).map(|(at, _)| &text[at..]);
    found
        .map(|rest| rest.split(goes_on).next().unwrap())
        .filter(|name| *name != beginning)
        .collect()
}

/// The metrics of docs/metrics.md, those of the router-agent with their prefix.
fn known() -> BTreeSet<String> {
    let document = read("docs/metrics.md");
    let whole = names(&document, "millrace_").into_iter().map(str::to_owned);
    let (_, agent) = document.split_once("## millrace-router-agent").unwrap();
    let (agent, _) = agent.split_once("\n## ").unwrap();
    let rows = agent.lines().filter(|line| line.starts_with("| `"));
    let short = rows.flat_map(|row| row.split("| ").nth(1).unwrap().split(", "));
    let short = short.map(|name| format!("millrace_router_agent_{}", name.trim().replace('`', "")));
    whole.chain(short).collect()
}

#[test]
fn rules_and_dashboards_speak_of_metrics_that_there_are() {
    let known = known();
    let files =
        ["rules.yaml", "alerts.yaml", "tests.yaml"].map(|file| format!("deploy/mixin/{file}"));
    let boards = ["copiers", "hosts"].map(|name| format!("deploy/mixin/dashboards/{name}.json"));
    for file in files.iter().chain(&boards) {
        let text = read(file).replace("${prefix}_", "millrace_");
        let used = names(&text, "millrace_");
        assert!(used.len() > 4, "{file}: {used:?}");
        for name in used {
            let plain = name.trim_end_matches("_bucket");
            assert!(known.contains(plain), "{file}: {name}");
        }
    }
}

#[test]
fn records_that_are_used_are_made() {
    let (rules, alerts) = (
        read("deploy/mixin/rules.yaml"),
        read("deploy/mixin/alerts.yaml"),
    );
    let used = alerts.split(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
    let used: BTreeSet<&str> = used.filter(|word| word.starts_with("millrace:")).collect();
    assert!(!used.is_empty());
    for record in used {
        assert!(rules.contains(&format!("record: {record}\n")), "{record}");
    }
}

#[test]
fn each_alert_has_its_section_and_each_section_its_alert() {
    let (alerts, document) = (read("deploy/mixin/alerts.yaml"), read("docs/alerts.md"));
    let after = |text: &str, mark: &str| -> BTreeSet<String> {
        let lines = text
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(mark));
        lines.map(str::to_owned).collect()
    };
    let named = after(&alerts, "- alert: ");
    assert!(named.len() > 10);
    assert_eq!(named, after(&document, "### "));
    let sections = named.iter();
    let wanted: BTreeSet<String> = sections
        .map(|name| format!("docs/alerts.md#{}", name.to_lowercase()))
        .collect();
    assert_eq!(after(&alerts, "runbook_url: "), wanted);
}
