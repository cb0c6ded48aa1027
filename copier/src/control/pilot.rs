//! The decisions, as a function of time and samples: no clock, no engine, no I/O.

use std::collections::VecDeque;
use std::time::Duration;

use millrace_engine::Intensity;

use super::command::Command;
use super::status::{Decision, GuardStatus, IntensityStatus, Mode, RampStatus};
use crate::guard::{Action, Figure, Guard, Recent, Sample, Window};
use crate::ramp::Ramp;

/// Decisions that are kept for the report.
const DECISIONS: usize = 100;
/// What a step back leaves where there is no rise to go back on.
const STEP_BACK: f64 = 0.5;

/// What a pilot is told at its start.
#[derive(Debug, Clone)]
pub struct PilotConfig {
    /// How much is copied without a ramp.
    pub intensity: Intensity,
    /// The ramp to follow.
    pub ramp: Option<Ramp>,
    /// The rules, most important first.
    pub guards: Vec<Guard>,
    /// The time that they look back on.
    pub window: Duration,
    /// Figures from fewer events are not judged.
    pub min_sample: u64,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Replicas per session that begins now.
    pub intensity: Intensity,
    /// All replicas are to be ended.
    pub stop: bool,
}

/// Decides how much is copied.
#[derive(Debug)]
pub struct Pilot {
    config: PilotConfig,
    mode: Mode,
    /// How far the ramp has come.
    position: Duration,
    /// What steps back without a rise have left.
    scale: f64,
    window: Window,
    now: Duration,
    /// While held: since when no guard was broken.
    good_since: Option<Duration>,
    seen: Vec<GuardStatus>,
    decisions: VecDeque<Decision>,
}

impl Pilot {
    /// A pilot that begins at time zero.
    pub fn new(config: PilotConfig) -> Self {
        let mut pilot = Self {
            window: Window::new(config.window),
            mode: Mode::Running,
            position: Duration::ZERO,
            scale: 1.0,
            now: Duration::ZERO,
            good_since: None,
            seen: Vec::new(),
            decisions: VecDeque::new(),
            config,
        };
        pilot.seen = pilot
            .config
            .guards
            .iter()
            .map(|guard| unseen(*guard))
            .collect();
        if let Some(ramp) = &pilot.config.ramp {
            let what = format!("following the ramp {ramp}");
            pilot.decide(what);
        }
        pilot
    }

    /// Whether it wants samples.
    pub fn is_guarded(&self) -> bool {
        !self.config.guards.is_empty()
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

    /// Takes what an operator wants.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Set(intensity) => {
                self.config.intensity = intensity;
                self.config.ramp = None;
                self.begin_anew();
                self.decide(format!("the operator has set {intensity}"));
            }
            Command::Follow(ramp) => {
                let what = format!("the operator has begun the ramp {ramp}");
                self.config.ramp = Some(ramp);
                self.begin_anew();
                self.decide(what);
            }
            Command::Pause if self.mode == Mode::Paused => {}
            Command::Pause => {
                self.mode = Mode::Paused;
                self.decide("paused by the operator: open sessions go on".to_owned());
            }
            Command::Resume if self.mode == Mode::Running => {}
            Command::Resume => {
                self.set_mode(Mode::Running);
                self.decide("resumed by the operator".to_owned());
            }
        }
    }

    /// Time has come to `now`, since the start; `sample` is what was counted until then.
    pub fn tick(&mut self, now: Duration, sample: Option<Sample>) -> Tick {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let recent = sample.and_then(|sample| self.window.slide(now, sample));
        if let Some(ramp) = &self.config.ramp
            && self.mode == Mode::Running
        {
            let before = self.position;
            self.position = (self.position + passed).min(ramp.length());
            if before < ramp.length() && self.position == ramp.length() {
                self.decide("the ramp has come to its end".to_owned());
            }
        }
        let mut stop = false;
        if let Some(recent) = recent {
            stop = self.judge(&recent);
        }
        Tick {
            intensity: self.intensity(),
            stop,
        }
    }

    /// What operators are shown.
    pub fn status(&self) -> IntensityStatus {
        IntensityStatus {
            now: self.intensity().as_ratio(),
            mode: self.mode,
            ramp: self.config.ramp.as_ref().map(|ramp| RampStatus {
                stages: ramp.to_string(),
                position_seconds: self.position.as_secs_f64(),
                length_seconds: ramp.length().as_secs_f64(),
            }),
            guards: self.seen.clone(),
            decisions: self.decisions.iter().cloned().collect(),
        }
    }

    /// Lets the guards look; says whether all replicas must end.
    fn judge(&mut self, recent: &Recent) -> bool {
        let mut broken = None;
        self.seen.clear();
        for guard in &self.config.guards {
            let figure = guard.figure(recent);
            let judged = figure.filter(|figure| figure.count >= self.config.min_sample);
            let breaks = judged.filter(|figure| guard.is_broken_by(figure));
            self.seen.push(GuardStatus {
                value: figure.map(|figure| figure.value),
                count: figure.map_or(0, |figure| figure.count),
                broken: breaks.is_some(),
                ..unseen(*guard)
            });
            broken = broken.or(breaks.map(|figure| (*guard, figure)));
        }
        match (self.mode, broken) {
            (Mode::Running, Some((guard, figure))) => self.act(guard, &figure, recent.span),
            (Mode::Held, Some((guard, figure))) => {
                self.good_since = None;
                // A hold that does not help may be followed by more, each on a fresh window.
                let more = guard.action != Action::Hold;
                more && self.act(guard, &figure, recent.span)
            }
            (Mode::Held, None) => {
                let since = *self.good_since.get_or_insert(self.now);
                if self.now.saturating_sub(since) >= self.config.window {
                    self.set_mode(Mode::Running);
                    self.decide("no guard was broken for a whole window: going on".to_owned());
                }
                false
            }
            (Mode::Running | Mode::Paused | Mode::Stopped, _) => false,
        }
    }

    /// Does what a broken guard demands; says whether all replicas must end.
    fn act(&mut self, guard: Guard, figure: &Figure, span: Duration) -> bool {
        let figures = guard.describe(figure, span);
        let done = match guard.action {
            Action::Hold => {
                self.set_mode(Mode::Held);
                "holding".to_owned()
            }
            Action::StepBack => {
                let before = self.intensity();
                self.step_back();
                self.set_mode(Mode::Held);
                format!("stepping back from {before} to {}", self.intensity())
            }
            Action::Stop => {
                self.set_mode(Mode::Stopped);
                "stopped: nothing is copied until `ctl resume` or `ctl intensity`".to_owned()
            }
        };
        self.decide(format!("guard {guard}: {figures}; {done}"));
        guard.action == Action::Stop
    }

    fn step_back(&mut self) {
        let ramp = self.config.ramp.as_ref();
        match ramp.and_then(|ramp| ramp.step_back(self.position)) {
            Some(position) => self.position = position,
            None => self.scale *= STEP_BACK,
        }
    }

    fn level(&self) -> Intensity {
        let level = match &self.config.ramp {
            Some(ramp) => ramp.level_at(self.position),
            None => self.config.intensity,
        };
        Intensity::from_ratio(level.as_ratio() * self.scale)
    }

    fn begin_anew(&mut self) {
        self.position = Duration::ZERO;
        self.scale = 1.0;
        self.set_mode(Mode::Running);
    }

    /// What happened under another mode says nothing about what happens under this one.
    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        self.good_since = None;
        self.window.clear();
    }

    fn decide(&mut self, what: String) {
        let intensity = self.intensity().as_ratio();
        tracing::info!("intensity {intensity}: {what}");
        if self.decisions.len() >= DECISIONS {
            self.decisions.pop_front();
        }
        self.decisions.push_back(Decision {
            at_seconds: self.now.as_secs_f64(),
            what,
            intensity,
        });
    }
}

/// A guard that has seen nothing yet.
fn unseen(guard: Guard) -> GuardStatus {
    GuardStatus {
        rule: guard.to_string(),
        value: None,
        count: 0,
        broken: false,
    }
}

#[cfg(test)]
#[path = "pilot_tests.rs"]
mod tests;
