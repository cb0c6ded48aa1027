//! What protocol modules did.

use std::collections::BTreeMap;

use millrace_engine::{FailureKind, Stats};
use millrace_protocols::Kind;
use millrace_protocols::writes::Ledger;
use serde::Serialize;

use super::Counts;

/// So many digests of each protocol are shown: those that were met most often.
const SHOWN: usize = 50;

/// Protocol modules.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Protocols {
    /// Copied connections that their module could not play on, by what stopped it.
    pub failed: Counts,
    /// Requests that were left out on purpose.
    pub left_out: u64,
    /// What writes, or was left out: by protocol, and by request without its values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub writes: BTreeMap<&'static str, BTreeMap<String, Requests>>,
}

/// Requests of one kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Requests {
    /// Sent, though they write.
    pub sent: u64,
    /// Left out.
    pub left_out: u64,
}

impl Protocols {
    pub(super) fn of(stats: &Stats) -> Self {
        let failed = FailureKind::ALL
            .into_iter()
            .map(|kind| (kind.name(), stats.conversations_failed.of(kind)));
        Self {
            failed: failed.filter(|(_, count)| *count > 0).collect(),
            left_out: stats.requests_left_out,
            writes: BTreeMap::new(),
        }
    }

    /// Adds what the modules noted of requests.
    pub fn note(&mut self, kind: Kind, ledger: &Ledger) {
        let mut all: Vec<_> = ledger.counts().into_iter().collect();
        all.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.sent + counts.left_out));
        let shown = all.into_iter().take(SHOWN).map(|(digest, counts)| {
            let requests = Requests {
                sent: counts.sent,
                left_out: counts.left_out,
            };
            (digest, requests)
        });
        let shown: BTreeMap<_, _> = shown.collect();
        if !shown.is_empty() {
            self.writes.insert(kind.name(), shown);
        }
    }
}
