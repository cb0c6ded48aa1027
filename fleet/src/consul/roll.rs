//! The copiers of a cluster, as they are registered, for people to read.

use std::time::Duration;

use millrace_channel::tls::Role;
use millrace_daemon::status::printable;
use serde::{Deserialize, Serialize};

use super::client::{Client, Failure, Request};
use super::health::{Check, Entry, entries};
use super::members::service_name;
use crate::peers::Cluster;

/// More are not shown.
const MOST: usize = 1024;
/// Longer words are cut.
const WORDS: usize = 500;

/// What Consul has of a copier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Consul has had no word of it for 15 s: it has ended, stands still, or has lost Consul.
    Silent,
    /// It says that something keeps it from its work.
    NotWorking,
    /// It says that it is well.
    Well,
}

/// A copier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its name (`--id`).
    pub id: String,
    /// The node whose agent knows it.
    pub node: String,
    /// How it stands.
    pub standing: Standing,
    /// What it has said last, or Consul of it.
    pub said: String,
    /// Its share of the sources; empty: it has not said.
    pub share: String,
    /// Its version.
    pub version: String,
}

/// The copiers of a cluster by Consul's word.
///
/// # Errors
/// Why they are not known.
pub async fn roll(
    client: &Client,
    cluster: &Cluster,
    patience: Duration,
) -> Result<Vec<Enrolled>, Failure> {
    let name = service_name(Role::Copier, cluster);
    let question = Request::get(&["health", "service", &name]).with("stale", None);
    let answer = client.send(question.patience(patience)).await?;
    read(&answer.body).map_err(Failure::Unreadable)
}

fn read(body: &[u8]) -> Result<Vec<Enrolled>, String> {
    let mut all: Vec<Enrolled> = entries(body)?
        .into_iter()
        .take(MOST)
        .map(enrolled)
        .collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

fn enrolled(entry: Entry) -> Enrolled {
    let meta = entry.service.meta.unwrap_or_default();
    let word = |name: &str| meta.get(name).map(|it| shown(it)).unwrap_or_default();
    let is = |status: &str| entry.checks.iter().any(|check| check.status == status);
    let own = |check: &&Check| check.service_id == entry.service.id;
    let said = entry.checks.iter().find(own).map(|check| &check.output);
    Enrolled {
        id: match meta.get("id") {
            Some(id) => shown(id),
            None => shown(&entry.service.id),
        },
        node: shown(&entry.node.node),
        standing: match (is("critical"), is("warning")) {
            (true, _) => Standing::Silent,
            (false, true) => Standing::NotWorking,
            (false, false) => Standing::Well,
        },
        said: said.map(|it| shown(it)).unwrap_or_default(),
        share: word("share"),
        version: word("version"),
    }
}

fn shown(text: &str) -> String {
    printable(text).chars().take(WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copiers_are_listed_by_name_with_what_they_said() {
        let body = br#"[
            {"Node":{"Node":"n2"},"Service":{"ID":"s2","Meta":{"id":"live2","share":"3 of 64"}},
             "Checks":[{"Status":"passing","Output":"node","ServiceID":""},
                       {"Status":"critical","Output":"TTL expired","ServiceID":"s2"}]},
            {"Node":{"Node":"n1"},"Service":{"ID":"s1","Meta":{"id":"live1\u001b[1m","version":"1"}},
             "Checks":[{"Status":"warning","Output":"not copying: x\ny","ServiceID":"s1"}]},
            {"Node":{},"Service":{"ID":"s3","Meta":null},"More":1}]"#;
        let all = read(body).unwrap();
        let shown: Vec<_> = all
            .iter()
            .map(|it| (it.id.as_str(), it.standing, it.said.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("live1 [1m", Standing::NotWorking, "not copying: x\ny"),
                ("live2", Standing::Silent, "TTL expired"),
                ("s3", Standing::Well, ""),
            ]
        );
        assert_eq!(
            (all[1].share.as_str(), all[0].version.as_str()),
            ("3 of 64", "1")
        );
        for wrong in [&b""[..], b"{}", b"[1]", b"null"] {
            assert!(read(wrong).is_err());
        }
    }
}
