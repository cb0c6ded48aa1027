//! How much is copied over time, and what has become of it: the same for one copier and for a cluster's plan.

use std::fmt;
use std::time::Duration;

use millrace_engine::Intensity;

use crate::command::Command;
use crate::guard::Action;
use crate::ramp::Ramp;
use crate::status::{Mode, RampStatus};

/// What a step back leaves where there is no rise to go back on.
const STEP_BACK: f64 = 0.5;
/// Steps back leave no less than this: a thousandth of what is wanted.
const LEAST_SCALE: f64 = 0.001;

/// How much is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// This much, all the time.
    Level(Intensity),
    /// What a ramp says.
    Ramp(Ramp),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(intensity) => write!(f, "{intensity}"),
            Self::Ramp(ramp) => write!(f, "the ramp {ramp}"),
        }
    }
}

/// How much is wanted, and how far it has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    pub(crate) wanted: Wanted,
    pub(crate) mode: Mode,
    /// How far a ramp has come.
    pub(crate) position: Duration,
    /// What steps back without a rise have left.
    pub(crate) scale: f64,
}

impl Course {
    /// One that begins.
    pub const fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            mode: Mode::Running,
            position: Duration::ZERO,
            scale: 1.0,
        }
    }

    /// How things stand.
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// How much is to be copied now.
    pub fn intensity(&self) -> Intensity {
        match self.mode {
            Mode::Paused | Mode::Stopped => Intensity::ZERO,
            Mode::Running | Mode::Held => self.level(),
        }
    }

    fn level(&self) -> Intensity {
        let level = match &self.wanted {
            Wanted::Ramp(ramp) => ramp.level_at(self.position),
            Wanted::Level(intensity) => *intensity,
        };
        Intensity::from_ratio(level.as_ratio() * self.scale)
    }

    /// The ramp that is followed.
    pub const fn ramp(&self) -> Option<&Ramp> {
        match &self.wanted {
            Wanted::Ramp(ramp) => Some(ramp),
            Wanted::Level(_) => None,
        }
    }

    /// Where a ramp stands, if one is followed. It `stalls` while nothing can be sent or judged.
    pub fn ramp_status(&self, stalls: bool) -> Option<RampStatus> {
        self.ramp().map(|ramp| RampStatus {
            stages: ramp.to_string(),
            position_seconds: self.position.as_secs_f64(),
            length_seconds: ramp.length().as_secs_f64(),
            waiting: stalls && self.is_rising(),
        })
    }

    /// What guards that stepped back without a rise to go back on have left; None: all.
    pub fn scale(&self) -> Option<f64> {
        (self.scale < 1.0).then_some(self.scale)
    }

    /// Whether a ramp would go on: it is neither at its end nor held.
    pub fn is_rising(&self) -> bool {
        self.mode == Mode::Running
            && self
                .ramp()
                .is_some_and(|ramp| self.position < ramp.length())
    }

    /// Lets a ramp go on by so much time. Says whether it has come to its end by that.
    pub fn advance(&mut self, passed: Duration) -> bool {
        let length = self.ramp().map(Ramp::length).filter(|_| self.is_rising());
        let Some(length) = length else {
            return false;
        };
        self.position = self.position.saturating_add(passed).min(length);
        self.position == length
    }

    /// Takes what an operator wants. Gives what was done, in words; nothing if it is so already.
    pub fn command(&mut self, command: Command) -> Option<String> {
        Some(match command {
            Command::Set(intensity) => {
                *self = Self::new(Wanted::Level(intensity));
                format!("the operator has set {intensity}")
            }
            Command::Follow(ramp) => {
                let what = format!("the operator has begun the ramp {ramp}");
                *self = Self::new(Wanted::Ramp(ramp));
                what
            }
            Command::Pause if self.mode == Mode::Paused => return None,
            Command::Pause => {
                self.mode = Mode::Paused;
                "paused by the operator: open sessions go on".to_owned()
            }
            Command::Resume if self.mode == Mode::Running && self.scale >= 1.0 => return None,
            Command::Resume => {
                self.scale = 1.0;
                self.mode = Mode::Running;
                "resumed by the operator".to_owned()
            }
            Command::Stop if self.mode == Mode::Stopped => return None,
            Command::Stop => {
                self.mode = Mode::Stopped;
                "stopped by the operator: all copies end".to_owned()
            }
        })
    }

    /// Does what a broken guard demands. Gives what was done, in words.
    pub fn restrain(&mut self, action: Action) -> String {
        match action {
            Action::Hold => {
                self.mode = Mode::Held;
                "holding".to_owned()
            }
            Action::StepBack => {
                let before = self.intensity();
                match self.ramp().and_then(|ramp| ramp.step_back(self.position)) {
                    Some(position) => self.position = position,
                    None => self.scale = (self.scale * STEP_BACK).max(LEAST_SCALE),
                }
                self.mode = Mode::Held;
                format!("stepping back from {before} to {}", self.intensity())
            }
            Action::Stop => {
                self.mode = Mode::Stopped;
                "stopped: nothing is copied until an operator resumes it".to_owned()
            }
        }
    }

    /// Goes on after a hold.
    pub fn release(&mut self) {
        self.mode = Mode::Running;
    }
}
