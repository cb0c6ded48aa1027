//! The decisions, as a function of time and samples: no clock, no engine, no I/O.

use std::collections::VecDeque;
use std::time::Duration;

use millrace_engine::Intensity;

use crate::command::Command;
use crate::course::{Course, Wanted};
use crate::follower::{Follower, Note};
use crate::guard::{Action, Guard, Sample};
use crate::judge::{Demand, Judge, JudgeConfig};
use crate::observed::Observed;
use crate::ramp::Ramp;
use crate::sight::View;
use crate::status::{Decision, IntensityStatus, Mode};

/// Decisions that are kept for the report.
const DECISIONS: usize = 100;

/// What a pilot is told at its start.
#[derive(Debug, Clone)]
pub struct PilotConfig {
    /// How much is copied without a ramp; with a cluster's plan the most of it that is.
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
    /// Whether a cluster's plan is followed: no more is copied than it says, and nothing until it is known.
    pub follows_plan: bool,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tick {
    /// Replicas per session that begins now.
    pub intensity: Intensity,
    /// All replicas are to be ended.
    pub stop: bool,
    /// What the cluster's plan is to know; none without one.
    pub note: Option<Note>,
}

/// Decides how much is copied.
#[derive(Debug)]
pub struct Pilot {
    course: Course,
    judge: Judge,
    factor: u16,
    follower: Option<Follower>,
    now: Duration,
    /// While held: since when no guard was broken.
    good_since: Option<Duration>,
    /// Nothing can be sent, or guards cannot judge.
    waiting: bool,
    decisions: VecDeque<Decision>,
}

impl Pilot {
    /// A pilot that begins at time zero.
    pub fn new(config: PilotConfig) -> Self {
        let judge = JudgeConfig {
            guards: config.guards,
            window: config.window,
            min_sample: config.min_sample,
        };
        let follower = config.follows_plan.then(Follower::new);
        let wanted = match config.ramp {
            Some(ramp) => Wanted::Ramp(ramp),
            None => Wanted::Level(config.intensity),
        };
        let mut pilot = Self {
            course: Course::new(wanted),
            judge: Judge::new(judge),
            factor: config.factor,
            follower,
            now: Duration::ZERO,
            good_since: None,
            waiting: false,
            decisions: VecDeque::new(),
        };
        if let Some(ramp) = pilot.course.ramp() {
            let what = format!("following the ramp {ramp}");
            pilot.decide(what);
        }
        pilot
    }

    /// Whether it wants samples.
    pub fn is_guarded(&self) -> bool {
        self.judge.has_guards() || self.follower.as_ref().is_some_and(Follower::has_guards)
    }

    /// How things stand.
    pub fn mode(&self) -> Mode {
        match (self.course.mode(), self.follower.as_ref()) {
            (Mode::Running, Some(follower)) => follower.mode(),
            (own, _) => own,
        }
    }

    /// How much is to be copied now.
    pub fn intensity(&self) -> Intensity {
        let own = self.course.intensity();
        let followed = self.follower.as_ref();
        followed.map_or(own, |it| it.intensity().min(own))
    }

    /// Takes what an operator wants of this copier.
    pub fn command(&mut self, command: Command) {
        if let Some(what) = self.course.command(command) {
            self.forget();
            self.decide(what);
        }
    }

    /// Time has come to `now`, since the start; `observed` is what was seen until then.
    pub fn tick(&mut self, now: Duration, observed: Observed) -> Tick {
        let passed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        let blind = self.judge.has_guards() && matches!(observed.view, View::Blind(_));
        self.go_on(passed, observed.flowing && !blind);
        let mut stop = false;
        if self.judge.has_guards()
            && let Some(sample) = observed.sample.clone()
        {
            stop = self.judge_own(observed.view, sample);
        }
        let followed = self.follower.as_mut().map(|it| it.tick(now, &observed));
        if let Some(followed) = &followed {
            stop |= followed.stop;
            stop |= followed
                .undelivered
                .as_ref()
                .is_some_and(|it| self.act_alone(it));
        }
        Tick {
            intensity: self.intensity(),
            stop,
            note: followed.map(|it| it.note),
        }
    }

    /// The ramp goes on, while something can be sent and its guards can judge what comes of it.
    fn go_on(&mut self, passed: Duration, free: bool) {
        let Some(length) = self.course.ramp().map(Ramp::length) else {
            return;
        };
        let position = self.course.position;
        let begun = !position.is_zero() && position < length;
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
        if free && self.course.advance(passed) {
            self.decide("the ramp has come to its end".to_owned());
        }
    }

    /// What operators are shown.
    pub fn status(&self) -> IntensityStatus {
        IntensityStatus {
            now: self.intensity().as_ratio(),
            factor: self.factor,
            mode: self.course.mode(),
            ramp: self.course.ramp_status(self.waiting),
            scale: self.course.scale(),
            blind: self.judge.blind().map(|why| why.name().to_owned()),
            guards: self.judge.seen().to_vec(),
            decisions: self.decisions.iter().cloned().collect(),
            plan: self.follower.as_ref().map(Follower::status),
        }
    }

    /// Lets the guards look; says whether all replicas must end.
    fn judge_own(&mut self, view: View, sample: Sample) -> bool {
        let (now, mode) = (self.now, self.course.mode());
        let Some(finding) = self.judge.look(now, view, sample, mode) else {
            if self.judge.blind().is_some() {
                self.good_since = None;
            }
            return false;
        };
        match (mode, finding.broken) {
            (Mode::Held, false) => {
                let since = *self.good_since.get_or_insert(now);
                if now.saturating_sub(since) >= self.judge.window() {
                    self.course.release();
                    self.forget();
                    self.decide("no guard was broken for a whole window: going on".to_owned());
                }
            }
            (Mode::Held, true) => self.good_since = None,
            (Mode::Running | Mode::Paused | Mode::Stopped, _) => {}
        }
        finding.demand.is_some_and(|demand| self.obey(&demand))
    }

    /// Does what a broken guard demands; says whether all replicas must end.
    fn obey(&mut self, demand: &Demand) -> bool {
        let done = self.course.restrain(demand.action);
        self.forget();
        self.decide(format!("{}; {done}", demand.why));
        demand.action == Action::Stop
    }

    /// The cluster's plan does not take what one of its guards demands: this copier stops by itself.
    fn act_alone(&mut self, demand: &Demand) -> bool {
        if self.course.mode() == Mode::Stopped {
            return false;
        }
        let done = self.course.restrain(Action::Stop);
        self.decide(format!(
            "{}; the cluster's plan does not take it: this copier alone is {done}",
            demand.why
        ));
        true
    }

    /// What happened under another mode says nothing about what happens under this one.
    fn forget(&mut self) {
        self.good_since = None;
        self.judge.forget();
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

#[cfg(test)]
#[path = "pilot_tests.rs"]
mod tests;
