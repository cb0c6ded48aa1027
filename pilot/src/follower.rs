//! What one copier makes of its cluster's plan: how much it copies, and what it sees that the others must know.

use std::sync::Arc;
use std::time::Duration;

use millrace_engine::Intensity;

use crate::course::Course;
use crate::fleet_plan::FleetPlan;
use crate::judge::{Demand, Judge, JudgeConfig};
use crate::observed::Observed;
use crate::sight::View;
use crate::status::{Mode, PlanStatus};

/// Between two words of the plan a ramp is taken to go on for so long.
const GUESS: Duration = Duration::from_millis(1500);
/// A demand that is not in the plan after so long is done here.
const DELIVERED: Duration = Duration::from_millis(1500);

/// What the cluster's plan is to know of this copier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// The edition under which this was seen; 0: none is known.
    pub edition: u64,
    /// Something can be sent, and guards can judge what comes of it.
    pub free: bool,
    /// Some guard of the plan is broken here; or, while copies are open, none can be judged here, so that nobody may take
    /// it for kept.
    pub broken: bool,
    /// What a broken guard demands.
    pub demand: Option<Demand>,
}

/// What comes of a look at the plan.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// All copies end.
    pub(crate) stop: bool,
    /// A demand that does not reach the plan.
    pub(crate) undelivered: Option<Demand>,
    /// What the plan is to know.
    pub(crate) note: Note,
}

/// Follows a plan.
#[derive(Debug)]
pub(crate) struct Follower {
    judge: Judge,
    plan: Option<Arc<FleetPlan>>,
    /// What it says of this moment; none is known before the first.
    course: Option<Course>,
    /// How often everything had been stopped, as far as this copier knows.
    stops: Option<u64>,
    demanded_since: Option<Duration>,
    stalls: bool,
}

impl Follower {
    /// One that knows no plan yet.
    pub(crate) fn new() -> Self {
        Self {
            judge: Judge::new(JudgeConfig {
                guards: Vec::new(),
                window: Duration::ZERO,
                min_sample: 0,
            }),
            plan: None,
            course: None,
            stops: None,
            demanded_since: None,
            stalls: false,
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

    /// Time has come to `now`.
    pub(crate) fn tick(&mut self, now: Duration, observed: &Observed) -> Followed {
        let Some((plan, age)) = &observed.plan else {
            // There was one: nothing new begins, as with a pause.
            (self.plan, self.course) = (None, None);
            return Followed::default();
        };
        self.learn(plan);
        let mut course = plan.course().clone();
        course.advance((*age).min(GUESS));
        self.course = Some(course);
        let blind = self.has_guards() && matches!(observed.view, View::Blind(_));
        let mode = plan.course().mode();
        let sample = observed.sample.clone().filter(|_| self.has_guards());
        let finding = sample.and_then(|it| self.judge.look(now, observed.view, it, mode));
        let unjudged = self.has_guards() && finding.is_none() && observed.open;
        let finding = finding.unwrap_or_default();
        let free = observed.flowing && !blind;
        self.stalls = !free;
        let stopped_before = self.stops.replace(plan.stops());
        let missed = stopped_before.is_some_and(|before| before != plan.stops());
        Followed {
            stop: mode == Mode::Stopped || missed,
            undelivered: self.overdue(now, finding.demand.as_ref()),
            note: Note {
                edition: plan.edition(),
                free,
                broken: finding.broken || unjudged,
                demand: finding.demand,
            },
        }
    }

    /// What happened under another plan says nothing about what happens under this one.
    fn learn(&mut self, plan: &Arc<FleetPlan>) {
        let before = self.plan.replace(plan.clone());
        let rules = before.as_ref().map(|it| it.guards());
        if rules != Some(plan.guards()) {
            self.judge = Judge::new(JudgeConfig {
                guards: plan.guards().rules().to_vec(),
                window: plan.guards().window,
                min_sample: plan.guards().sample,
            });
        }
        let level = |plan: &FleetPlan| {
            let course = plan.course();
            (course.wanted.clone(), course.mode, course.scale)
        };
        if before.as_ref().map(|it| level(it)) != Some(level(plan)) {
            self.judge.forget();
            self.demanded_since = None;
        }
        if before.is_none_or(|it| it.edition() != plan.edition())
            && let Some(change) = plan.changes().last()
        {
            let edition = plan.edition();
            tracing::info!(
                "the cluster's plan, edition {edition}: {} ({})",
                change.what,
                change.by
            );
        }
    }

    /// A demand that ought to be in the plan by now.
    fn overdue(&mut self, now: Duration, demand: Option<&Demand>) -> Option<Demand> {
        let Some(demand) = demand else {
            self.demanded_since = None;
            return None;
        };
        let since = *self.demanded_since.get_or_insert(now);
        let late = now.saturating_sub(since) >= DELIVERED;
        late.then(|| demand.clone())
    }

    /// What operators are shown.
    pub(crate) fn status(&self) -> PlanStatus {
        let (Some(plan), Some(course)) = (&self.plan, &self.course) else {
            return PlanStatus::default();
        };
        PlanStatus {
            edition: plan.edition(),
            now: course.intensity().as_ratio(),
            mode: course.mode(),
            scale: course.scale(),
            ramp: course.ramp_status(self.stalls),
            guards: self.judge.seen().to_vec(),
            changes: plan.changes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::fleet_plan::{FleetGuards, Signed};
    use crate::guard::Sample;

    const SIGNED: Signed<'_> = Signed { by: "x", at: 1 };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A plan of everything, with guards.
    fn plan() -> FleetPlan {
        let level = Command::Set(Intensity::ONE);
        let mut plan = FleetPlan::begin(level, SIGNED).unwrap();
        plan.guard(FleetGuards::parse("resets>5%:stop").unwrap(), SIGNED);
        plan
    }

    /// A hundred copies a second, of which so many were reset.
    fn observed(plan: &FleetPlan, now: u64, resets: u64) -> Observed {
        let engine = millrace_engine::Engine::new(Default::default());
        let mut sample = Sample::of(engine.stats());
        sample.connected = 100 * now;
        sample.ended = 100 * now;
        sample.resets = resets * now;
        Observed {
            flowing: true,
            open: true,
            view: View::Clear {
                heard_at: seconds(now),
            },
            sample: Some(sample),
            plan: Some((Arc::new(plan.clone()), Duration::ZERO)),
        }
    }

    #[test]
    fn without_a_plan_nothing_new_is_copied() {
        let mut follower = Follower::new();
        assert_eq!(follower.intensity(), Intensity::ZERO);
        let plan = plan();
        assert!(!follower.tick(seconds(1), &observed(&plan, 1, 0)).stop);
        assert_eq!(follower.intensity(), Intensity::ONE);
        let gone = Observed {
            plan: None,
            ..observed(&plan, 2, 0)
        };
        assert!(!follower.tick(seconds(2), &gone).stop, "open ones go on");
        assert_eq!(follower.intensity(), Intensity::ZERO);
    }

    #[test]
    fn a_stop_that_was_taken_back_at_once_ends_what_was_open_too() {
        let mut follower = Follower::new();
        let mut plan = plan();
        assert!(!follower.tick(seconds(1), &observed(&plan, 1, 0)).stop);
        plan.command(Command::Stop, SIGNED);
        plan.command(Command::Resume, SIGNED);
        assert!(follower.tick(seconds(2), &observed(&plan, 2, 0)).stop);
        assert!(!follower.tick(seconds(3), &observed(&plan, 3, 0)).stop);
        plan.command(Command::Stop, SIGNED);
        for now in 4..8 {
            assert!(follower.tick(seconds(now), &observed(&plan, now, 0)).stop);
        }
    }

    #[test]
    fn a_demand_that_does_not_reach_the_plan_is_done_here() {
        let mut follower = Follower::new();
        let plan = plan();
        let mut undelivered = None;
        for now in 1..20 {
            let followed = follower.tick(seconds(now), &observed(&plan, now, 50));
            if let Some(demand) = followed.undelivered {
                undelivered = Some((now, demand.action));
                break;
            }
        }
        let (at, action) = undelivered.unwrap();
        assert_eq!(action, crate::guard::Action::Stop);
        assert!((6..=10).contains(&at), "half a window, and a moment: {at}");
    }

    #[test]
    fn who_cannot_judge_lets_nobody_take_the_guards_for_kept() {
        let mut follower = Follower::new();
        let plan = plan();
        let blind = Observed {
            view: View::Blind(crate::sight::Blindness::Changed),
            ..observed(&plan, 1, 0)
        };
        assert!(follower.tick(seconds(1), &blind).note.broken);
        let idle = Observed {
            open: false,
            ..blind
        };
        assert!(!follower.tick(seconds(2), &idle).note.broken);
    }
}
