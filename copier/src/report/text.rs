//! The report for people.

use std::fmt;

use super::{Counts, Percentiles, Protocols, Report};
use millrace_notation::units::shown;

impl Report {
    /// The fidelity in words: what capture dropped makes it a bound.
    pub fn fidelity(&self) -> String {
        let at_most = shown(self.fidelity);
        match self.capture.dropped {
            0 => format!("fidelity {at_most}"),
            dropped => format!(
                "fidelity {at_most} at most, about {} if the {dropped} frames that capture dropped were \
                 like the others",
                shown(self.fidelity_low)
            ),
        }
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.failed.is_empty() {
            let why = list(&self.failed);
            writeln!(f, "            what stopped protocol modules: {why}")?;
        }
        match self.left_out {
            0 => Ok(()),
            count => writeln!(f, "            {count} requests left out on purpose"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            sessions,
            replicas,
            bytes,
            packets,
            capture,
            send,
            latency,
            turn_lag,
            ..
        } = self;
        writeln!(f, "report after {:.1} s", self.duration_seconds)?;
        for line in self.intensity.to_string().lines() {
            writeln!(f, "  {line}")?;
        }
        if let Some(recording) = &self.recording {
            write!(f, "{recording}")?;
        }
        writeln!(
            f,
            "  sessions  {} captured ({} met midway, {} cut at the end), {} open, {} left out, refused: \
             {}; {} never opened, {} begun before capture and not picked up",
            sessions.captured,
            sessions.midway,
            sessions.cut,
            sessions.open,
            sessions.unchosen,
            list(&sessions.refused),
            sessions.unopened,
            sessions.unpicked
        )?;
        writeln!(
            f,
            "  replicas  {} opened, {} completed, {} open, aborted: {}, refused: {}",
            replicas.opened,
            replicas.completed,
            replicas.open,
            list(&replicas.aborted),
            list(&replicas.refused)
        )?;
        if !replicas.timed_out.is_empty() {
            writeln!(
                f,
                "            what targets owed when their time was over: {}",
                list(&replicas.timed_out)
            )?;
        }
        write!(f, "{}", self.protocols)?;
        if sessions.resumed + sessions.set_aside > 0 {
            writeln!(
                f,
                "            {} set aside under pressure, {} taken up again at a turn",
                sessions.set_aside, sessions.resumed
            )?;
        }
        writeln!(
            f,
            "  bytes     {} captured, {} sent, {} delivered; {}",
            bytes.captured,
            bytes.sent,
            bytes.delivered,
            self.fidelity()
        )?;
        if bytes.missing > 0 {
            writeln!(
                f,
                "            {} missing from what was captured",
                bytes.missing
            )?;
        }
        writeln!(
            f,
            "  packets   {} sent, {} of them again; {} response headers",
            packets.sent, packets.retransmitted, packets.response_headers
        )?;
        writeln!(
            f,
            "  capture   {} frames, {} dropped, among them {} SYNs; send errors: {}",
            capture.received,
            capture.dropped,
            capture.syns_lost,
            list(&send.errors)
        )?;
        writeln!(f, "  latency   microseconds, p50 / p90 / p99 / max")?;
        for (name, sides) in [
            ("first byte", &latency.first_byte),
            ("last byte", &latency.last_byte),
        ] {
            writeln!(
                f,
                "    {name:<11} live {}   target {}",
                sides.live, sides.target
            )?;
        }
        if turn_lag.count > 0 {
            writeln!(f, "    lag of the copier itself {turn_lag}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} / {} / {} / {}",
            self.p50, self.p90, self.p99, self.max
        )
    }
}

fn list(counts: &Counts) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let items: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    items.join(", ")
}
