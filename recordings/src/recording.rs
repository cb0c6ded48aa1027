//! What the report says of a recording that is replayed.

use std::fmt;

use serde::Serialize;

use millrace_notation::units::shown;

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
    /// Packets that the recorder lost, as far as the files say.
    pub dropped: u64,
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
    /// Bytes delivered of all that clients sent in the recording, those included that it lacks and
    /// those of sessions that could not be replayed: 1 is everything; 0 when nothing was replayed.
    pub delivered: f64,
    /// It was told to end before the recording's end.
    pub interrupted: bool,
    /// Files that could not be read to their end.
    pub problems: Vec<String>,
}

impl Recording {
    /// Notes how many packets the recorder lost by what was read so far. Every round says the same.
    pub fn note_dropped(&mut self, dropped: u64) {
        if dropped > 0 && self.dropped == 0 {
            tracing::warn!(
                "the recorder says that it lost packets: connections of which it saw nothing are in no \
                 count; `millrace-copier inspect` says where"
            );
        }
        self.dropped = self.dropped.max(dropped);
    }

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
            "  recording {} packets of {} files in {} of {} rounds, {:.1} s of traffic; {} of its bytes \
             delivered",
            self.packets,
            self.files,
            self.rounds_done,
            self.rounds,
            self.recorded_seconds,
            shown(self.delivered)
        )?;
        if self.foreign > 0 {
            writeln!(
                f,
                "            {} packets left out: their link type is not understood",
                self.foreign
            )?;
        }
        if self.dropped > 0 {
            writeln!(
                f,
                "            {} packets lost by the recorder, as it says",
                self.dropped
            )?;
        }
        for problem in &self.problems {
            writeln!(f, "            {problem}")?;
        }
        Ok(())
    }
}
