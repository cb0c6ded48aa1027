//! `millrace-copier status`: whether the copiers of this host copy, in one sentence and one screen each.

use std::fmt;
use std::net::SocketAddr;

use millrace_daemon::exit::ExitError;
use millrace_daemon::status::{self, Said, StatusOptions, first_lines, printable};
use millrace_fleet::consul::Enrolled;
use serde::Deserialize;
use serde_json::Value;

use super::cluster::line;

use crate::command::{self, Arguments};
use crate::control::instances;
use crate::headline::percent;
use crate::options::ADMIN;
use millrace_notation::units::shown;

/// Interceptors and router-agents that are listed.
const LISTED: usize = 12;
/// Decisions that are listed.
const LATELY: usize = 5;

/// Says whether the copiers of this host copy, and if not, why and what to do.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "millrace-copier-status",
    bin_name = "millrace-copier status",
    version
)]
struct Options {
    #[command(flatten)]
    status: StatusOptions,
}

/// Its command line, for the manual and for shells.
pub(crate) fn command_line() -> clap::Command {
    <Options as clap::CommandFactory>::command()
}

/// Runs the command.
///
/// # Errors
/// Exit code 64 for the command line, 1 when a copier does not answer, 2 when one is kept from copying.
pub fn run(arguments: Arguments) -> Result<(), ExitError> {
    let Options { status } = command::parse(arguments)?;
    let ask = || ask(status.admin);
    status::show(&status, ask, |status, admin| {
        Screen { status, admin }.to_string()
    })
}

/// What each copier says of itself.
fn ask(admin: Option<SocketAddr>) -> Vec<Said> {
    let found = || {
        let found = instances();
        let at = |port| SocketAddr::new(ADMIN.ip(), port);
        match found.as_slice() {
            [] => vec![ADMIN],
            ports => ports.iter().copied().map(at).collect(),
        }
    };
    let ports = admin.map_or_else(found, |named| vec![named]);
    let said = ports.into_iter().map(|admin| (admin, one(admin)));
    said.collect()
}

fn one(admin: SocketAddr) -> Result<Value, String> {
    let status = status::ask(admin, "copier")?;
    let version = || {
        let version = status.pointer("/version").and_then(Value::as_str);
        printable(version.unwrap_or("unknown"))
    };
    match (
        status.pointer("/headline/sentence"),
        status.pointer("/report/sessions"),
    ) {
        (Some(Value::String(_)), Some(_)) => Ok(status),
        (_, Some(_)) => Err(format!(
            "the copier at {admin} has version {}, and this command another one: restart the copier",
            version()
        )),
        _ => Err(format!("what answers at {admin} is no copier")),
    }
}

/// One copier.
struct Screen<'a> {
    status: &'a Value,
    /// Its admin port, where there are several.
    admin: Option<SocketAddr>,
}

impl Screen<'_> {
    fn number(&self, path: &str) -> u64 {
        let value = self.status.pointer(path);
        value.and_then(Value::as_u64).unwrap_or_default()
    }

    fn float(&self, path: &str) -> f64 {
        let value = self.status.pointer(path);
        value.and_then(Value::as_f64).unwrap_or_default()
    }

    fn text(&self, path: &str) -> &str {
        let value = self.status.pointer(path);
        value.and_then(Value::as_str).unwrap_or_default()
    }

    fn list(&self, path: &str) -> &[Value] {
        let value = self.status.pointer(path);
        value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Counts by reason, most first.
    fn reasons(&self, path: &str) -> String {
        let counts = self.status.pointer(path).and_then(Value::as_object);
        let mut counts: Vec<(u64, &str)> = counts
            .into_iter()
            .flatten()
            .map(|(reason, count)| (count.as_u64().unwrap_or_default(), reason.as_str()))
            .collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        match counts.as_slice() {
            [] => "none".to_owned(),
            some => {
                let some: Vec<String> = some.iter().map(|(n, why)| format!("{n} {why}")).collect();
                some.join(", ")
            }
        }
    }

    fn percentiles(&self, path: &str) -> String {
        let at = |name: &str| self.float(&format!("{path}/{name}")) / 1e3;
        match self.number(&format!("{path}/count")) {
            0 => "none yet".to_owned(),
            _ => format!("{:.2} / {:.2} ms", at("p50"), at("p99")),
        }
    }

    /// How many of these say yes.
    fn share(&self, path: &str, yes: impl Fn(&Value) -> bool) -> String {
        let all = self.list(path);
        let good = all.iter().filter(|it| yes(it)).count();
        format!("{good} of {}", all.len())
    }
}

impl fmt::Display for Screen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(admin) = self.admin {
            write!(f, "{admin}: ")?;
        }
        f.write_str(&first_lines(self.status))?;
        self.figures(f)?;
        self.path(f)?;
        self.cluster(f)?;
        let decisions = self.list("/report/intensity/decisions");
        for decision in decisions.iter().rev().take(LATELY) {
            let at = decision["at_seconds"].as_f64().unwrap_or_default();
            let what = decision["what"].as_str().unwrap_or_default();
            writeln!(f, "  lately      at {at:.0} s: {what}")?;
        }
        Ok(())
    }
}

impl Screen<'_> {
    fn figures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.float("/recent/seconds").max(1.0);
        let (wanted, got) = (
            self.float("/recent/wanted_bytes"),
            self.float("/recent/delivered_bytes"),
        );
        let lately = match wanted > 0.0 {
            true => shown((got / wanted).min(1.0)),
            false => "nothing to deliver".to_owned(),
        };
        writeln!(
            f,
            "  copier      {}, version {}, up {:.0} s",
            self.text("/services"),
            self.text("/version"),
            self.float("/report/duration_seconds"),
        )?;
        writeln!(
            f,
            "  sessions    {:.1}/s; {} captured, {} open, {} left out, refused: {}",
            self.float("/recent/sessions") / seconds,
            self.number("/report/sessions/captured"),
            self.number("/report/replicas/open"),
            self.number("/report/sessions/unchosen"),
            self.reasons("/report/sessions/refused"),
        )?;
        writeln!(
            f,
            "  copies      {} opened, {} completed, aborted: {}",
            self.number("/report/replicas/opened"),
            self.number("/report/replicas/completed"),
            self.reasons("/report/replicas/aborted"),
        )?;
        writeln!(
            f,
            "  fidelity    {} since the start, {} in the last {seconds:.0} s",
            shown(self.float("/report/fidelity")),
            lately,
        )?;
        writeln!(
            f,
            "  latency     p50 / p99: live {}, target {}; lag {}",
            self.percentiles("/report/latency/first_byte/live"),
            self.percentiles("/report/latency/first_byte/target"),
            self.percentiles("/report/turn_lag"),
        )?;
        writeln!(
            f,
            "  capture     {} frames, {} dropped; intensity {}, {}",
            self.number("/report/capture/received"),
            self.number("/report/capture/dropped"),
            percent(
                self.float("/report/intensity/now")
                    * self.float("/report/intensity/factor").max(1.0)
            ),
            self.text("/report/intensity/mode"),
        )
    }

    /// The cluster that it takes part in.
    fn cluster(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let copiers = self.list("/cluster/copiers");
        let silent = |copier: &Value| copier["standing"] == "silent";
        let doubt = match self.text("/cluster/doubt") {
            "" => String::new(),
            why => format!("; as it was known last: {}", printable(why)),
        };
        if !self.text("/cluster/cluster").is_empty() {
            writeln!(
                f,
                "  cluster     {}: {} copiers, {} without a word{doubt}",
                self.text("/cluster/cluster"),
                copiers.len(),
                copiers.iter().filter(|it| silent(it)).count(),
            )?;
        }
        for copier in copiers.iter().take(LISTED) {
            if let Ok(copier) = Enrolled::deserialize(copier) {
                writeln!(f, "    {}", line(&copier))?;
            }
        }
        if self
            .status
            .pointer("/report/intensity/plan/edition")
            .is_some()
        {
            writeln!(
                f,
                "  plan        edition {}: {}, {}",
                self.number("/report/intensity/plan/edition"),
                percent(self.float("/report/intensity/plan/now")),
                self.text("/report/intensity/plan/mode"),
            )?;
        }
        let changes = self.list("/report/intensity/plan/changes");
        for change in changes.iter().rev().take(LATELY) {
            let (by, what) = (&change["by"], &change["what"]);
            let said = |it: &Value| printable(it.as_str().unwrap_or_default());
            writeln!(f, "    {}: {}", said(by), said(what))?;
        }
        Ok(())
    }

    /// The way to the targets and back.
    fn path(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connected = |link: &Value| link["connected"] == true;
        let held = |agent: &Value| agent["held"] == true;
        let open = |target: &Value| target["state"] == "open";
        writeln!(
            f,
            "  path        interceptors {} connected, router-agents {} hold, targets {} open",
            self.share("/interceptors", connected),
            self.share("/router_agents", held),
            self.share("/report/targets", open),
        )?;
        for link in self.list("/interceptors").iter().take(LISTED) {
            let address = link["address"].as_str().unwrap_or_default();
            match connected(link) {
                true => writeln!(
                    f,
                    "    interceptor {address}: connected for {} s, round trip {} us, copies {}",
                    link["since_seconds"], link["rtt_us"], link["copies_connected"]
                )?,
                false => writeln!(
                    f,
                    "    interceptor {address}: down: {}",
                    link["last_error"].as_str().unwrap_or_default()
                )?,
            }
        }
        for agent in self.list("/router_agents").iter().take(LISTED) {
            let why = ["trouble", "last_error"]
                .into_iter()
                .filter_map(|field| agent[field].as_str())
                .find(|why| !why.is_empty());
            let address = agent["address"].as_str().unwrap_or_default();
            match held(agent) {
                true => writeln!(f, "    router-agent {address}: holds")?,
                false => writeln!(
                    f,
                    "    router-agent {address}: does not hold: {}",
                    why.unwrap_or("no answer yet")
                )?,
            }
        }
        for target in self.list("/report/targets").iter().take(LISTED) {
            let name = target["target"].as_str().unwrap_or_default();
            let finding = target["finding"].as_str().filter(|_| !open(target));
            writeln!(
                f,
                "    target {name}: {}{}",
                target["state"].as_str().unwrap_or_default(),
                finding.map_or(String::new(), |finding| format!(": {finding}"))
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_screen_begins_with_the_sentence_and_shows_each_hop() {
        let status = json!({
            "headline": {
                "state": "not_copying",
                "sentence": "not copying: no interceptor is connected",
                "next": "start one",
                "also": [{ "about": "x", "text": "1 of 2 links" }],
            },
            "version": "1.2.3",
            "services": "80-198.18.2.20:80",
            "recent": { "seconds": 10.0, "sessions": 25, "wanted_bytes": 200, "delivered_bytes": 100 },
            "report": {
                "duration_seconds": 20.0,
                "fidelity": 0.75,
                "sessions": { "captured": 50, "refused": { "memory": 3, "sources": 9 } },
                "targets": [{ "target": "198.18.2.20:80", "state": "failed", "finding": "lost" }],
                "turn_lag": { "count": 5, "p50": 100, "p99": 1500 },
                "intensity": { "plan": {
                    "edition": 7, "now": 2.0, "mode": "running",
                    "changes": [{ "at": 1, "by": "me@ops", "what": "the operator has set 2", "intensity": 2.0 }],
                } },
            },
            "interceptors": [{ "address": "h:1", "connected": false, "last_error": "refused" }],
            "router_agents": [{ "address": "a:1", "held": true }],
            "cluster": {
                "cluster": "web",
                "doubt": "Consul is away",
                "copiers": [
                    { "id": "live1", "node": "n1", "standing": "well", "said": "copying", "share": "1 of 64", "version": "1" },
                    { "id": "live2", "node": "n2", "standing": "silent", "said": "", "share": "", "version": "1" },
                ],
            },
        });
        let screen = Screen {
            status: &status,
            admin: None,
        };
        let text = screen.to_string();
        let mut lines = text.lines();
        assert_eq!(
            lines.next(),
            Some("not copying: no interceptor is connected")
        );
        assert_eq!(lines.next(), Some("  next: start one"));
        for words in [
            "also: 1 of 2 links",
            "2.5/s; 50 captured",
            "refused: 9 sources, 3 memory",
            "0.750000 since the start, 0.500000 in the last 10 s",
            "lag 0.10 / 1.50 ms",
            "interceptors 0 of 1 connected, router-agents 1 of 1 hold, targets 0 of 1 open",
            "interceptor h:1: down: refused",
            "target 198.18.2.20:80: failed: lost",
            "cluster     web: 2 copiers, 1 without a word; as it was known last: Consul is away",
            "copier  live1 on n1, share 1 of 64: copying",
            "copier  live2 on n2, share not known: no word for 15 s: ",
            "plan        edition 7: 200%, running",
            "me@ops: the operator has set 2",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
