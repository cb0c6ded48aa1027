//! What a replay amounts to, and whether that is enough.

use std::fmt;

use millrace_fleet::exit::ExitError;
use serde::Serialize;

use crate::probe::ProbeState;
use crate::report::Report;

/// Problems of files that are kept for the report; more are counted in the log alone.
const MOST_PROBLEMS: usize = 100;

/// The part of the report that only a replay has.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Recording {
    /// Files that were replayed.
    pub files: usize,
    /// Packets read, in all rounds.
    pub packets: u64,
    /// Of these, packets whose link type is not understood.
    pub foreign: u64,
    /// How often the files were to be replayed (`-T`).
    pub rounds: u32,
    /// How often they were.
    pub rounds_done: u32,
    /// Seconds from the first packet to the last, by the recording's own clock, in all rounds.
    pub recorded_seconds: f64,
    /// The longest pause between two packets, in seconds.
    pub longest_pause_seconds: f64,
    /// Seconds in which packets waited because the target could not take more, or because memory
    /// or the bound on open sessions was used up.
    pub held_back_seconds: f64,
    /// Bytes delivered of all that clients sent in the recording, those of sessions included that
    /// could not be replayed: 1 is everything.
    pub delivered: f64,
    /// It was told to end before the recording's end.
    pub interrupted: bool,
    /// Files that could not be read to their end.
    pub problems: Vec<String>,
}

impl Recording {
    /// Notes a file that could not be read to its end.
    pub fn note_problem(&mut self, problem: &dyn fmt::Display) {
        tracing::warn!("-i {problem}");
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem.to_string());
        }
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  recording {} packets of {} files in {} of {} rounds, {:.1} s of traffic; {:.6} of its \
             bytes delivered",
            self.packets,
            self.files,
            self.rounds_done,
            self.rounds,
            self.recorded_seconds,
            self.delivered
        )?;
        if self.foreign > 0 {
            writeln!(
                f,
                "            {} packets left out: their link type is not understood",
                self.foreign
            )?;
        }
        for problem in &self.problems {
            writeln!(f, "            {problem}")?;
        }
        Ok(())
    }
}

/// Whether a replay delivered as much as was asked for (`--min-fidelity`).
///
/// # Errors
/// Exit code 2 when it did not, with where to look.
pub fn judge(report: &Report, wanted: f64) -> Result<(), ExitError> {
    let Some(recording) = &report.recording else {
        return Ok(());
    };
    if recording.interrupted {
        return Err(ExitError::incomplete(format!(
            "interrupted: {:.6} of the bytes replayed until then were delivered",
            recording.delivered
        )));
    }
    if recording.delivered >= wanted {
        return Ok(());
    }
    let failed = report.targets.iter();
    let failed: Vec<&str> = failed
        .filter(|target| target.state == ProbeState::Failed)
        .map(|target| target.target.as_str())
        .collect();
    let unopened = match failed.is_empty() {
        true => String::new(),
        false => format!(
            "; nothing was sent to {}, since no probe came back: the log says which hop is missing",
            failed.join(", ")
        ),
    };
    let aborted: u64 = report.replicas.aborted.values().sum();
    let refused: u64 = report.sessions.refused.values().sum();
    Err(ExitError::incomplete(format!(
        "{:.6} of the recorded bytes were delivered, {wanted} were wanted (--min-fidelity): {aborted} \
         copied connections aborted, {refused} sessions refused, {} connections begun before the \
         recording; the report above names the reasons{unopened}",
        recording.delivered, report.sessions.unpicked
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(delivered: f64, interrupted: bool) -> Report {
        Report {
            recording: Some(Recording {
                delivered,
                interrupted,
                ..Recording::default()
            }),
            ..Report::default()
        }
    }

    #[test]
    fn a_target_that_was_never_opened_is_named() {
        let target = |target: &str, state| crate::probe::ProbeStatus {
            target: target.to_owned(),
            state,
            volleys: 2,
            finding: None,
        };
        let mut report = report(0.5, false);
        report.targets = vec![
            target("198.18.2.20:80", ProbeState::Open),
            target("198.18.2.20:81", ProbeState::Failed),
        ];
        let line = judge(&report, 1.0).unwrap_err().to_string();
        assert!(
            line.contains("nothing was sent to 198.18.2.20:81,"),
            "{line}"
        );
    }

    #[test]
    fn less_than_was_wanted_is_exit_code_2() {
        assert!(judge(&Report::default(), 1.0).is_ok());
        assert!(judge(&report(1.0, false), 1.0).is_ok());
        assert!(judge(&report(0.5, false), 0.5).is_ok());
        assert_eq!(judge(&report(0.999, false), 1.0).unwrap_err().code(), 2);
        assert_eq!(judge(&report(1.0, true), 0.0).unwrap_err().code(), 2);
    }
}
