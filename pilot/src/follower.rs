//! What one copier makes of its cluster's plan: how much it copies, and what it sees that the others must know.

use std::time::Duration;

use millrace_engine::Intensity;

use crate::course::Course;
use crate::judge::{Demand, Judge, JudgeConfig};
use crate::observed::Observed;
use crate::sight::View;
use crate::status::{Mode, PlanStatus};

/// Between two words of the plan a ramp is taken to go on for so long.
const GUESS: Duration = Duration::from_millis(1500);

/// What the cluster's plan is to know of this copier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The edition under which this was seen; 0: none is known.
    pub edition: u64,
    /// Something can be sent, and guards can judge what comes of it.
    pub free: bool,
    /// Some guard of the plan is broken here.
    pub broken: bool,
    /// What it demands.
    pub demand: Option<Demand>,
    /// The time that guards look back on.
    pub window: Duration,
}

/// Follows a plan.
#[derive(Debug)]
pub(crate) struct Follower {
    judge: Judge,
    min_sample: u64,
    /// What it says of this moment; none is known before the first.
    course: Option<Course>,
    shown: PlanStatus,
}

impl Follower {
    /// One that knows no plan yet. Its guards look back on `window`, and judge no less than `min_sample` events.
    pub(crate) fn new(window: Duration, min_sample: u64) -> Self {
        Self {
            judge: Judge::new(JudgeConfig {
                guards: Vec::new(),
                window,
                min_sample,
            }),
            min_sample,
            course: None,
            shown: PlanStatus::default(),
        }
    }

    /// Whether the plan has guards.
    pub(crate) const fn has_guards(&self) -> bool {
        self.judge.has_guards()
    }

    /// How things stand.
    pub(crate) fn mode(&self) -> Mode {
        self.course.as_ref().map_or(Mode::Paused, Course::mode)
    }

    /// How much is to be copied now; without a plan nothing.
    pub(crate) fn intensity(&self) -> Intensity {
        let course = self.course.as_ref();
        course.map_or(Intensity::ZERO, Course::intensity)
    }

    /// Time has come to `now`. Says whether all replicas must end, and what the plan is to know.
    pub(crate) fn tick(&mut self, now: Duration, observed: &Observed) -> (bool, Note) {
        let Some((plan, age)) = &observed.plan else {
            // There was one: nothing new begins, as with a pause.
            self.course = None;
            self.shown = PlanStatus::default();
            return (false, Note::default());
        };
        let mut stop = false;
        if self.shown.edition != plan.edition() || self.course.is_none() {
            if self.judge.guards() != plan.guards().0.as_slice() {
                self.judge = Judge::new(JudgeConfig {
                    guards: plan.guards().0.clone(),
                    window: self.judge.window(),
                    min_sample: self.min_sample,
                });
            }
            self.judge.forget();
            if let Some(change) = plan.changes().last() {
                tracing::info!(
                    "the cluster's plan, edition {}: {} ({})",
                    plan.edition(),
                    change.what,
                    change.by
                );
            }
            stop = plan.course().mode() == Mode::Stopped && self.mode() != Mode::Stopped;
        }
        let mut course = plan.course().clone();
        course.advance((*age).min(GUESS));
        self.course = Some(course);
        let blind = self.has_guards() && matches!(observed.view, View::Blind(_));
        let mode = plan.course().mode();
        let sample = observed.sample.clone().filter(|_| self.judge.has_guards());
        let finding = sample.and_then(|it| self.judge.look(now, observed.view, it, mode));
        let finding = finding.unwrap_or_default();
        let free = observed.flowing && !blind;
        self.shown = PlanStatus {
            edition: plan.edition(),
            now: plan.course().intensity().as_ratio(),
            mode,
            ramp: plan.course().ramp_status(!free),
            guards: self.judge.seen().to_vec(),
            changes: plan.changes().to_vec(),
        };
        let note = Note {
            edition: plan.edition(),
            free,
            broken: finding.broken,
            demand: finding.demand,
            window: self.judge.window(),
        };
        (stop, note)
    }

    /// What operators are shown.
    pub(crate) fn status(&self) -> PlanStatus {
        self.shown.clone()
    }
}
