//! What guards see of what is copied, and which of them demands something.

use std::time::Duration;

use crate::guard::{Action, Figure, Guard, Recent, Sample, Window};
use crate::sight::{Blindness, View};
use crate::status::{GuardStatus, Mode};

/// A rule that stops acts once this part of a window is seen, others after a whole one: what happens
/// within a moment after the start or a change is no measure of the target.
const LEAST_TO_STOP: u32 = 2;

/// How guards judge.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JudgeConfig {
    /// The rules; of those with the same action the first that is broken acts.
    pub(crate) guards: Vec<Guard>,
    /// The time that they look back on.
    pub(crate) window: Duration,
    /// Figures from fewer events are not judged.
    pub(crate) min_sample: u64,
}

/// What was found at one look.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Finding {
    /// Some guard is broken at this moment.
    pub(crate) broken: bool,
    /// What a broken guard demands, and on which figures.
    pub(crate) demand: Option<Demand>,
}

/// What a broken guard demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// What is to be done.
    pub action: Action,
    /// The guard and its figures, in words.
    pub why: String,
}

/// Looks at what happens under one course.
#[derive(Debug)]
pub(crate) struct Judge {
    config: JudgeConfig,
    window: Window,
    /// Since when a guard is broken that would act. It acts when all interceptors were heard after
    /// that: one that hangs makes any target look dead.
    bad_since: Option<Duration>,
    blind: Option<Blindness>,
    /// What was said once is not said again.
    lack_said: bool,
    seen: Vec<GuardStatus>,
}

impl Judge {
    /// One that has seen nothing yet.
    pub(crate) fn new(config: JudgeConfig) -> Self {
        Self {
            window: Window::new(config.window),
            bad_since: None,
            blind: None,
            lack_said: false,
            seen: unseen(&config.guards),
            config,
        }
    }

    /// Whether it wants samples.
    pub(crate) const fn has_guards(&self) -> bool {
        !self.config.guards.is_empty()
    }

    /// The time that it looks back on.
    pub(crate) const fn window(&self) -> Duration {
        self.config.window
    }

    /// What the guards have seen last.
    pub(crate) fn seen(&self) -> &[GuardStatus] {
        &self.seen
    }

    /// Why they do not judge, while they do not.
    pub(crate) const fn blind(&self) -> Option<Blindness> {
        self.blind
    }

    /// What happened under another course says nothing about what happens under this one.
    pub(crate) fn forget(&mut self) {
        self.bad_since = None;
        self.window.clear();
    }

    /// Looks at the sums at `now`, while things stand like this. None: nothing can be judged yet.
    pub(crate) fn look(
        &mut self,
        now: Duration,
        view: View,
        sample: Sample,
        mode: Mode,
    ) -> Option<Finding> {
        let heard_at = match view {
            View::Blind(why) => {
                self.look_away(why);
                return None;
            }
            View::Clear { heard_at } => heard_at,
        };
        if self.blind.take().is_some() {
            tracing::info!("guards see the target's answers again");
        }
        let recent = self.window.slide(now, sample)?;
        let worst = self.measure(&recent);
        if matches!(mode, Mode::Paused | Mode::Stopped) {
            return None;
        }
        let broken = worst.is_some();
        let demand = self.demand(now, heard_at, &recent, worst, mode);
        Some(Finding { broken, demand })
    }

    fn demand(
        &mut self,
        now: Duration,
        heard_at: Duration,
        recent: &Recent,
        worst: Option<(Guard, Figure)>,
        mode: Mode,
    ) -> Option<Demand> {
        // A hold that does not help may be followed by more, each on a fresh window.
        let least = match mode {
            Mode::Held => Action::StepBack,
            Mode::Running | Mode::Paused | Mode::Stopped => Action::Hold,
        };
        let seen_enough = |action: Action| {
            let needed = match action {
                Action::Stop => self.config.window / LEAST_TO_STOP,
                Action::Hold | Action::StepBack => self.config.window,
            };
            recent.span >= needed
        };
        let Some((guard, figure)) =
            worst.filter(|(guard, _)| guard.action >= least && seen_enough(guard.action))
        else {
            self.bad_since = None;
            return None;
        };
        let bad_since = *self.bad_since.get_or_insert(now);
        (heard_at >= bad_since).then(|| Demand {
            action: guard.action,
            why: format!("guard {guard}: {}", guard.describe(&figure, recent.span)),
        })
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
