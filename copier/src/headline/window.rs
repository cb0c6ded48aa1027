//! What happened within the last minute: the difference between two reports.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::report::{Counts, Report};

/// How far it looks back, in seconds.
const SPAN: f64 = 60.0;
/// The least time between two samples, in seconds.
const APART: f64 = 5.0;

/// What happened in so many seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recent {
    /// So many.
    pub seconds: f64,
    /// Segments of clients.
    pub client_segments: u64,
    /// Sessions captured.
    pub sessions: u64,
    /// Bytes of clients captured.
    pub captured_bytes: u64,
    /// Bytes that targets should get, and got.
    pub wanted_bytes: u64,
    /// See `wanted_bytes`.
    pub delivered_bytes: u64,
    /// Copied connections opened, and connected.
    pub opened: u64,
    /// See `opened`.
    pub established: u64,
    /// Copied connections that ended otherwise than the client's, by reason.
    pub aborted: BTreeMap<String, u64>,
    /// Sessions and copied connections that were refused, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Connections whose handshake was not completed in what was captured.
    pub unopened: u64,
    /// Connections that the intensity left out.
    pub unchosen: u64,
    /// Frames that capture dropped.
    pub dropped: u64,
    /// Copied connections that went on with smaller packets alone.
    #[serde(default)]
    pub black_holes: u64,
    /// Sessions that began with TLS.
    pub encrypted: u64,
    /// For so long targets have acknowledged nothing of what they should get, in seconds.
    pub stalled_seconds: f64,
}

/// Samples of the last minute, oldest first.
#[derive(Debug, Default)]
pub(super) struct Window(VecDeque<Report>);

impl Window {
    /// Takes a report in.
    pub(super) fn sample(&mut self, report: &Report) {
        let latest = self.0.back().map(|it| it.duration_seconds);
        if latest.is_some_and(|at| report.duration_seconds - at < APART) {
            return;
        }
        let too_old = |old: &Report| report.duration_seconds - old.duration_seconds > SPAN;
        while self.0.front().is_some_and(too_old) {
            self.0.pop_front();
        }
        self.0.push_back(report.clone());
    }

    /// For how long more has been wanted than targets have acknowledged since, in seconds.
    fn stalled(&self, now: &Report) -> f64 {
        let same = |old: &&Report| old.bytes.delivered == now.bytes.delivered;
        let quiet: Vec<&Report> = self.0.iter().rev().take_while(same).collect();
        let Some(oldest) = quiet.last().filter(|_| now.replicas.open > 0) else {
            return 0.0;
        };
        let asked = |sample: &&&Report| sample.bytes.wanted > oldest.bytes.wanted;
        let since = quiet.iter().rev().find(asked);
        since.map_or(0.0, |since| now.duration_seconds - since.duration_seconds)
    }

    /// What happened from the oldest sample to this report.
    pub(super) fn recent(&self, now: &Report) -> Recent {
        let nothing = Report::default();
        let before = self.0.front().unwrap_or(&nothing);
        let since = |now: u64, before: u64| now.saturating_sub(before);
        Recent {
            seconds: (now.duration_seconds - before.duration_seconds).max(0.0),
            client_segments: since(now.packets.client_segments, before.packets.client_segments),
            sessions: since(now.sessions.captured, before.sessions.captured),
            captured_bytes: since(now.bytes.captured, before.bytes.captured),
            wanted_bytes: since(now.bytes.wanted, before.bytes.wanted),
            delivered_bytes: since(now.bytes.delivered, before.bytes.delivered),
            opened: since(now.replicas.opened, before.replicas.opened),
            established: since(now.replicas.established, before.replicas.established),
            aborted: grown(&[&now.replicas.aborted], &[&before.replicas.aborted]),
            refused: grown(
                &[&now.sessions.refused, &now.replicas.refused],
                &[&before.sessions.refused, &before.replicas.refused],
            ),
            unopened: since(now.sessions.unopened, before.sessions.unopened),
            unchosen: since(now.sessions.unchosen, before.sessions.unchosen),
            dropped: since(now.capture.dropped, before.capture.dropped),
            black_holes: since(now.packets.black_holes, before.packets.black_holes),
            encrypted: since(now.sessions.encrypted, before.sessions.encrypted),
            stalled_seconds: self.stalled(now),
        }
    }
}

/// By how much counts have grown, where they have.
fn grown(now: &[&Counts], before: &[&Counts]) -> BTreeMap<String, u64> {
    let sum = |all: &[&Counts], reason: &str| -> u64 {
        all.iter().filter_map(|counts| counts.get(reason)).sum()
    };
    let reasons = now.iter().flat_map(|counts| counts.keys());
    reasons
        .map(|reason| {
            (
                *reason,
                sum(now, reason).saturating_sub(sum(before, reason)),
            )
        })
        .filter(|(_, grown)| *grown > 0)
        .map(|(reason, grown)| (reason.to_owned(), grown))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seconds: f64, sessions: u64, refused: u64) -> Report {
        let mut report = Report {
            duration_seconds: seconds,
            ..Report::default()
        };
        report.sessions.captured = sessions;
        report.replicas.aborted = Counts::from([("refused", refused)]);
        report
    }

    #[test]
    fn the_last_minute_is_what_happened_since_a_minute_ago() {
        let mut window = Window::default();
        assert_eq!(window.recent(&report(3.0, 7, 0)).sessions, 7);
        for second in 0..200u64 {
            window.sample(&report(second as f64, second * 10, 0));
        }
        assert!(window.0.len() < 16);
        let recent = window.recent(&report(200.0, 2000, 3));
        assert!((55.0..=65.0).contains(&recent.seconds), "{recent:?}");
        assert_eq!(recent.sessions, recent.seconds as u64 * 10);
        assert_eq!(recent.aborted.get("refused"), Some(&3));
    }

    #[test]
    fn targets_that_acknowledge_nothing_have_stalled() {
        let report = |seconds: u64, delivered, wanted| {
            let mut report = report(seconds as f64, 1, 0);
            (report.bytes.delivered, report.bytes.wanted) = (delivered, wanted);
            report.replicas.open = 1;
            report
        };
        let mut window = Window::default();
        for second in 0..40 {
            window.sample(&report(second, 100 * second.min(20), 100 * second));
        }
        let stalled = window.recent(&report(40, 2000, 4000)).stalled_seconds;
        assert!((15.0..=20.0).contains(&stalled), "{stalled}");
        assert_eq!(window.recent(&report(40, 2100, 4000)).stalled_seconds, 0.0);
        // What is asked after a long quiet has not stalled for that long.
        let mut window = Window::default();
        for second in 0..40 {
            window.sample(&report(second, 100, if second < 36 { 100 } else { 200 }));
        }
        assert!(window.recent(&report(40, 100, 200)).stalled_seconds < 6.0);
        // Nothing more is wanted.
        let mut window = Window::default();
        for second in 0..40 {
            window.sample(&report(second, 100, 100));
        }
        assert_eq!(window.recent(&report(40, 100, 100)).stalled_seconds, 0.0);
    }
}
