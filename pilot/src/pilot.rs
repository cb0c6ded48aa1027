//! The decisions, as a function of time and samples: no clock, no engine, no I/O.

use std::collections::VecDeque;
use std::time::Duration;

use millrace_engine::Intensity;

use crate::command::Command;
use crate::guard::{Action, Figure, Guard, Recent, Sample, Window};
use crate::ramp::Ramp;
use crate::sight::{Blindness, View};
use crate::status::{Decision, GuardStatus, IntensityStatus, Mode, RampStatus};

/// Decisions that are kept for the report.
const DECISIONS: usize = 100;
/// What a step back leaves where there is no rise to go back on.
const STEP_BACK: f64 = 0.5;
/// A rule that stops acts once this part of a window is seen, others after a whole one: what happens
/// within a moment after the start or a change is no measure of the target.
const LEAST_TO_STOP: u32 = 2;

/// What a pilot is told at its start.
#[derive(Debug, Clone)]
pub struct PilotConfig {
    /// How much is copied without a ramp.
    pub intensity: Intensity,
    /// How many replicas each chosen session gets for one.
    pub factor: u16,
    /// The ramp to follow.
    pub ramp: Option<Ramp>,
    /// The rules; of those with the same action the first that is broken acts.
    pub guards: Vec<Guard>,
    /// The time that they look back on.
    pub window: Duration,
    /// Figures from fewer events are not judged.
    pub min_sample: u64,
}

/// What a pilot sees.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Whether anything can be sent: without, a ramp stands still.
    pub flowing: bool,
    /// Whether answers are seen: while they are not, guards do not judge, and a ramp that has guards
    /// stands still.
    pub view: View,
    /// What was counted; `None` without guards.
    pub sample: Option<Sample>,
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
    /// Since when a guard is broken that would act. It acts when all interceptors were heard after
    /// that: one that hangs makes any target look dead.
    bad_since: Option<Duration>,
    /// Nothing can be sent, or guards cannot judge.
    waiting: bool,
    blind: Option<Blindness>,
    /// What was said once is not said again.
    lack_said: bool,
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
            bad_since: None,
            waiting: false,
            blind: None,
            lack_said: false,
            seen: Vec::new(),
            decisions: VecDeque::new(),
            config,
        };
        pilot.seen = unseen(&pilot.config.guards);
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
            Command::Resume if self.mode == Mode::Running && self.scale >= 1.0 => {}
            Command::Resume => {
                self.scale = 1.0;
                self.set_mode(Mode::Running);
                self.decide("resumed by the operator".to_owned());
            }
        }
    }

    /// Time has come to `now`, since the start; `observed` is what was seen until then.
    pub fn tick(&mut self, now: Duration, observed: Observed) -> Tick {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let guarded = observed.sample.is_some();
        let blind = guarded && matches!(observed.view, View::Blind(_));
        self.go_on(passed, observed.flowing && !blind);
        let stop = match (observed.view, observed.sample) {
            (_, None) => false,
            (View::Blind(why), Some(_)) => {
                self.look_away(why);
                false
            }
            (View::Clear { heard_at }, Some(sample)) => {
                if self.blind.take().is_some() {
                    tracing::info!("guards see the target's answers again");
                }
                let recent = self.window.slide(now, sample);
                recent.is_some_and(|recent| self.judge(&recent, heard_at))
            }
        };
        Tick {
            intensity: self.intensity(),
            stop,
        }
    }

    /// The ramp goes on, while something can be sent and its guards can judge what comes of it.
    fn go_on(&mut self, passed: Duration, free: bool) {
        let Some(length) = self.config.ramp.as_ref().map(Ramp::length) else {
            return;
        };
        let begun = !self.position.is_zero() && self.position < length;
        if begun && self.waiting == free {
            tracing::info!(
                "{}",
                match free {
                    true => "the ramp goes on",
                    false =>
                        "the ramp stands still: nothing can be sent, or guards cannot judge \
                              (/status says why)",
                }
            );
        }
        self.waiting = !free;
        if free && self.mode == Mode::Running && self.position < length {
            self.position = (self.position + passed).min(length);
            if self.position == length {
                self.decide("the ramp has come to its end".to_owned());
            }
        }
    }

    /// What the guards could see is not all that happened: none of it counts.
    fn look_away(&mut self, why: Blindness) {
        if self.blind.is_none() {
            tracing::info!("guards do not judge for now: {}", why.name());
        }
        self.blind = Some(why);
        self.seen = unseen(&self.config.guards);
        self.forget();
    }

    /// What operators are shown.
    pub fn status(&self) -> IntensityStatus {
        IntensityStatus {
            now: self.intensity().as_ratio(),
            factor: self.config.factor,
            mode: self.mode,
            ramp: self.config.ramp.as_ref().map(|ramp| RampStatus {
                stages: ramp.to_string(),
                position_seconds: self.position.as_secs_f64(),
                length_seconds: ramp.length().as_secs_f64(),
                waiting: self.waiting
                    && self.mode == Mode::Running
                    && self.position < ramp.length(),
            }),
            scale: (self.scale < 1.0).then_some(self.scale),
            blind: self.blind.map(|why| why.name().to_owned()),
            guards: self.seen.clone(),
            decisions: self.decisions.iter().cloned().collect(),
        }
    }

    /// Lets the guards look; says whether all replicas must end.
    fn judge(&mut self, recent: &Recent, heard_at: Duration) -> bool {
        let worst = self.measure(recent);
        let (now, window) = (self.now, self.config.window);
        match (self.mode, &worst) {
            (Mode::Paused | Mode::Stopped, _) => return false,
            (Mode::Held, None) => {
                let since = *self.good_since.get_or_insert(now);
                if now.saturating_sub(since) >= window {
                    self.set_mode(Mode::Running);
                    self.decide("no guard was broken for a whole window: going on".to_owned());
                }
            }
            (Mode::Held, Some(_)) => self.good_since = None,
            (Mode::Running, _) => {}
        }
        // A hold that does not help may be followed by more, each on a fresh window.
        let least = match self.mode {
            Mode::Held => Action::StepBack,
            Mode::Running | Mode::Paused | Mode::Stopped => Action::Hold,
        };
        let seen_enough = |action: Action| {
            let needed = match action {
                Action::Stop => window / LEAST_TO_STOP,
                Action::Hold | Action::StepBack => window,
            };
            recent.span >= needed
        };
        let Some((guard, figure)) =
            worst.filter(|(guard, _)| guard.action >= least && seen_enough(guard.action))
        else {
            self.bad_since = None;
            return false;
        };
        let bad_since = *self.bad_since.get_or_insert(now);
        heard_at >= bad_since && self.act(guard, &figure, recent.span)
    }

    /// What each guard sees; gives the broken one that demands most.
    fn measure(&mut self, recent: &Recent) -> Option<(Guard, Figure)> {
        let mut worst: Option<(Guard, Figure)> = None;
        let least = self.config.min_sample;
        self.seen.clear();
        for guard in &self.config.guards {
            let figure = guard.figure(recent, least);
            let judged = figure.filter(|figure| figure.count >= least);
            let breaks = judged.filter(|figure| guard.is_broken_by(figure));
            let lacks_live = guard.lacks_live(recent, least);
            if lacks_live && recent.span >= self.config.window && !self.lack_said {
                self.lack_said = true;
                tracing::warn!(
                    "guard {guard} cannot judge: fewer than {least} answers of the live server \
                     (--guard-sample) are seen within {}; write a time, such as \
                     latency-p99>250ms, or check that its answers are captured",
                    millrace_notation::units::show(recent.span)
                );
            }
            self.seen.push(GuardStatus {
                rule: guard.to_string(),
                value: figure.map(|figure| figure.value),
                count: figure.map_or(0, |figure| figure.count),
                broken: breaks.is_some(),
                lacks_live,
            });
            if let Some(figure) = breaks
                && worst.is_none_or(|(other, _)| guard.action > other.action)
            {
                worst = Some((*guard, figure));
            }
        }
        worst
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
        self.forget();
    }

    fn forget(&mut self) {
        self.good_since = None;
        self.bad_since = None;
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

/// Guards that have seen nothing yet.
fn unseen(guards: &[Guard]) -> Vec<GuardStatus> {
    let unseen = |guard: &Guard| GuardStatus {
        rule: guard.to_string(),
        value: None,
        count: 0,
        broken: false,
        lacks_live: false,
    };
    guards.iter().map(unseen).collect()
}

#[cfg(test)]
#[path = "pilot_tests.rs"]
mod tests;
