//! The plan of a cluster: how much all its copiers copy together. One record, which whoever may write replaces as a whole
//! and only if nobody has changed it meanwhile, so that it never has two opinions.
//!
//! Its ramp has no clock to go by, since those of several hosts differ: copiers move it on by the time that passes for
//! them ([`FleetPlan::pass`]), and each is told where it is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::course::{Course, Wanted};
use crate::guard::Guards;
use crate::judge::Demand;
use crate::status::{Change, Mode};

/// Changes that are kept.
const CHANGES: usize = 50;
/// A longer record is no plan of ours.
const MAX_SIZE: usize = 64 << 10;
/// Longer words of a change are cut.
const MAX_WORDS: usize = 300;

/// A plan.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetPlan {
    course: Course,
    guards: Guards,
    /// Counts what was decided: what is found under one edition says nothing of the next.
    edition: u64,
    /// While held: how long no copier has seen a broken guard.
    good: Duration,
    changes: Vec<Change>,
}

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// An operator or a copier.
    pub by: &'a str,
    /// Seconds since 1970.
    pub at: u64,
}

/// Why a record is no plan, or a wish cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlanError(String);

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Record {
    edition: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    intensity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ramp: Option<String>,
    mode: Mode,
    #[serde(default)]
    position_seconds: f64,
    #[serde(default = "whole")]
    scale: f64,
    #[serde(default)]
    good_seconds: f64,
    #[serde(default)]
    guards: String,
    #[serde(default)]
    changes: Vec<Change>,
}

const fn whole() -> f64 {
    1.0
}

impl FleetPlan {
    /// The first plan of a cluster.
    ///
    /// # Errors
    /// The command does not say how much.
    pub fn begin(command: Command, signed: Signed<'_>) -> Result<Self, PlanError> {
        let wanted = match command {
            Command::Set(intensity) => Wanted::Level(intensity),
            Command::Follow(ramp) => Wanted::Ramp(ramp),
            Command::Pause | Command::Resume | Command::Stop => {
                return Err(PlanError(
                    "the cluster has no plan yet: begin with `ctl intensity` or `ctl ramp`"
                        .to_owned(),
                ));
            }
        };
        let what = format!("the operator has begun with {wanted}");
        let mut plan = Self {
            course: Course::new(wanted),
            guards: Guards(Vec::new()),
            edition: 0,
            good: Duration::ZERO,
            changes: Vec::new(),
        };
        plan.decide(what, signed);
        Ok(plan)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Why it is no plan.
    pub fn parse(record: &[u8]) -> Result<Self, PlanError> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| {
            PlanError(format!("that is no plan: {what}: {error}"))
        };
        if record.len() > MAX_SIZE {
            return Err(wrong("record", &format_args!("{} bytes", record.len())));
        }
        let record: Record =
            serde_json::from_slice(record).map_err(|error| wrong("record", &error))?;
        let wanted = match (&record.intensity, &record.ramp) {
            (Some(level), None) => {
                let level = level.parse().map_err(|error| wrong("intensity", &error))?;
                Wanted::Level(level)
            }
            (None, Some(ramp)) => {
                Wanted::Ramp(ramp.parse().map_err(|error| wrong("ramp", &error))?)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(wrong("record", &"either an intensity or a ramp is needed"));
            }
        };
        let guards = match record.guards.as_str() {
            "" => Guards(Vec::new()),
            text => text.parse().map_err(|error| wrong("guards", &error))?,
        };
        let time = |what, seconds| {
            Duration::try_from_secs_f64(seconds).map_err(|error| wrong(what, &error))
        };
        if !(record.scale > 0.0 && record.scale <= 1.0) {
            return Err(wrong("scale", &record.scale));
        }
        Ok(Self {
            course: Course {
                wanted,
                mode: record.mode,
                position: time("position_seconds", record.position_seconds)?,
                scale: record.scale,
            },
            guards,
            edition: record.edition,
            good: time("good_seconds", record.good_seconds)?,
            changes: record.changes,
        })
    }

    /// The record of it.
    pub fn record(&self) -> Vec<u8> {
        let (intensity, ramp) = match &self.course.wanted {
            Wanted::Level(level) => (Some(level.to_string()), None),
            Wanted::Ramp(ramp) => (None, Some(ramp.to_string())),
        };
        let record = Record {
            edition: self.edition,
            intensity,
            ramp,
            mode: self.course.mode,
            position_seconds: self.course.position.as_secs_f64(),
            scale: self.course.scale,
            good_seconds: self.good.as_secs_f64(),
            guards: self.guards.to_string(),
            changes: self.changes.clone(),
        };
        // Strings, numbers and lists of them can always be written.
        serde_json::to_vec_pretty(&record).unwrap_or_default()
    }

    /// How much, and how far it has come.
    pub const fn course(&self) -> &Course {
        &self.course
    }

    /// What must not happen at the targets.
    pub const fn guards(&self) -> &Guards {
        &self.guards
    }

    /// Counts what was decided.
    pub const fn edition(&self) -> u64 {
        self.edition
    }

    /// What was decided, oldest first.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Takes what an operator wants. Says whether anything has changed by that.
    pub fn command(&mut self, command: Command, signed: Signed<'_>) -> bool {
        let done = self.course.command(command);
        let changed = done.is_some();
        if let Some(what) = done {
            self.decide(what, signed);
        }
        changed
    }

    /// Takes other guards in place of those that there are.
    pub fn guard(&mut self, guards: Guards, signed: Signed<'_>) {
        let what = match guards.0.is_empty() {
            true => "the operator has taken the guards away".to_owned(),
            false => format!("the operator has set the guards {guards}"),
        };
        self.guards = guards;
        self.decide(what, signed);
    }

    /// Whether time has to pass for it: a ramp goes on, or a hold may end.
    pub fn needs_time(&self) -> bool {
        self.course.is_rising() || self.course.mode() == Mode::Held
    }

    /// Lets so much time pass. A hold ends when no guard was broken for a `window`.
    pub fn pass(&mut self, passed: Duration, window: Duration, signed: Signed<'_>) {
        if self.course.mode() == Mode::Held {
            self.good += passed;
            if self.good >= window {
                self.course.release();
                let what = "no guard was broken for a whole window: going on";
                self.decide(what.to_owned(), signed);
            }
        } else if self.course.advance(passed) {
            self.decide("the ramp has come to its end".to_owned(), signed);
        }
    }

    /// While held: a copier sees a broken guard. Says whether that is news.
    pub fn doubt(&mut self) -> bool {
        !std::mem::take(&mut self.good).is_zero()
    }

    /// Does what a guard demands that was broken under an edition of the plan. Says whether it did: under another edition
    /// that means nothing.
    pub fn restrain(&mut self, edition: u64, demand: &Demand, signed: Signed<'_>) -> bool {
        let is_this = self.edition == edition;
        if is_this {
            let done = self.course.restrain(demand.action);
            self.decide(format!("{}; {done}", demand.why), signed);
        }
        is_this
    }

    fn decide(&mut self, what: String, signed: Signed<'_>) {
        self.edition += 1;
        self.good = Duration::ZERO;
        let surplus = (self.changes.len() + 1).saturating_sub(CHANGES);
        self.changes.drain(..surplus);
        self.changes.push(Change {
            at: signed.at,
            by: signed.by.chars().take(MAX_WORDS).collect(),
            what: what.chars().take(MAX_WORDS).collect(),
            intensity: self.course.intensity().as_ratio(),
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::Action;

    const OPERATOR: Signed<'_> = Signed {
        by: "me@here",
        at: 7,
    };
    const WINDOW: Duration = Duration::from_secs(10);

    fn begin(ramp: &str) -> FleetPlan {
        FleetPlan::begin(Command::Follow(ramp.parse().unwrap()), OPERATOR).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn time_moves_a_ramp_to_its_end_and_every_decision_bears_a_name() {
        let mut plan = begin("0..100%/10s,300%");
        assert!(plan.needs_time());
        plan.pass(seconds(5), WINDOW, OPERATOR);
        assert_eq!(plan.course().intensity().as_ratio(), 0.5);
        let copier = Signed { by: "live1", at: 9 };
        plan.pass(seconds(500), WINDOW, copier);
        assert_eq!(plan.course().intensity().as_ratio(), 3.0);
        assert!(!plan.needs_time());
        assert!(plan.command(Command::Stop, OPERATOR));
        assert!(!plan.command(Command::Stop, OPERATOR), "it is so already");
        assert_eq!(plan.course().intensity().as_ratio(), 0.0);
        let said: Vec<_> = plan
            .changes()
            .iter()
            .map(|it| (it.by.as_str(), it.at))
            .collect();
        assert_eq!(said, [("me@here", 7), ("live1", 9), ("me@here", 7)]);
        assert_eq!(plan.edition(), 3);
    }

    #[test]
    fn a_guard_acts_once_for_all_and_a_hold_ends_when_nobody_sees_it_broken() {
        let mut plan = begin("10%,hold:60s,50%,hold:60s");
        plan.pass(seconds(70), WINDOW, OPERATOR);
        let demand = Demand {
            action: Action::StepBack,
            why: "guard x".to_owned(),
        };
        let edition = plan.edition();
        assert!(plan.restrain(edition, &demand, OPERATOR));
        assert!(
            !plan.restrain(edition, &demand, OPERATOR),
            "of two copiers one"
        );
        assert_eq!(plan.course().intensity().as_ratio(), 0.1);
        assert_eq!(plan.course().mode(), Mode::Held);
        plan.pass(seconds(9), WINDOW, OPERATOR);
        assert!(plan.doubt());
        assert!(!plan.doubt());
        plan.pass(seconds(9), WINDOW, OPERATOR);
        assert_eq!(plan.course().mode(), Mode::Held);
        plan.pass(seconds(1), WINDOW, OPERATOR);
        assert_eq!(plan.course().mode(), Mode::Running);
    }

    #[test]
    fn a_cluster_without_a_plan_has_nothing_to_pause() {
        for command in [Command::Pause, Command::Resume, Command::Stop] {
            let refused = FleetPlan::begin(command, OPERATOR).unwrap_err();
            assert!(refused.to_string().contains("no plan yet"), "{refused}");
        }
    }

    #[test]
    fn changes_are_bounded() {
        let mut plan = begin("1");
        let long = "x".repeat(5000);
        for at in 0..200u64 {
            let signed = Signed { by: &long, at };
            let command = Command::Set(millrace_engine::Intensity::from_ratio(at as f64));
            assert!(plan.command(command, signed));
        }
        assert_eq!(plan.changes().len(), CHANGES);
        assert_eq!(plan.changes().last().unwrap().at, 199);
        assert_eq!(FleetPlan::parse(&plan.record()).unwrap(), plan);
    }

    #[test]
    fn what_is_no_plan_is_refused_in_words() {
        for (record, why) in [
            ("", "record"),
            ("[]", "record"),
            (
                r#"{"edition":1,"mode":"running"}"#,
                "either an intensity or a ramp",
            ),
            (
                r#"{"edition":1,"mode":"running","intensity":"1","ramp":"1"}"#,
                "either",
            ),
            (
                r#"{"edition":1,"mode":"running","intensity":"-1"}"#,
                "intensity",
            ),
            (r#"{"edition":1,"mode":"asleep","intensity":"1"}"#, "record"),
            (
                r#"{"edition":-1,"mode":"running","intensity":"1"}"#,
                "record",
            ),
            (
                r#"{"edition":1,"mode":"running","intensity":"1","scale":0}"#,
                "scale",
            ),
            (
                r#"{"edition":1,"mode":"running","intensity":"1","scale":2}"#,
                "scale",
            ),
            (r#"{"edition":1,"mode":"running","ramp":"x"}"#, "ramp"),
            (
                r#"{"edition":1,"mode":"running","ramp":"1","position_seconds":-1}"#,
                "position",
            ),
            (
                r#"{"edition":1,"mode":"running","ramp":"1","position_seconds":1e300}"#,
                "position",
            ),
            (
                r#"{"edition":1,"mode":"running","intensity":"1","guards":"x"}"#,
                "guards",
            ),
        ] {
            let refused = FleetPlan::parse(record.as_bytes()).unwrap_err().to_string();
            assert!(refused.contains(why), "{record}: {refused}");
        }
        assert!(FleetPlan::parse(&vec![b' '; MAX_SIZE + 1]).is_err());
        let least = br#"{"edition":1,"mode":"running","intensity":"200%","more":[]}"#;
        let least = FleetPlan::parse(least).unwrap();
        assert_eq!(least.course().intensity().as_ratio(), 2.0);
    }

    proptest! {
        #[test]
        fn a_record_is_read_as_it_was_written(
            ratio in 0.0..1023.0f64,
            position in 0.0..1e6f64,
            slopes in prop::collection::vec((0.0..1000.0f64, 0..10_000u64), 1..5),
            is_ramp: bool,
        ) {
            let level = millrace_engine::Intensity::from_ratio(ratio);
            let stages = slopes.iter().map(|(to, over)| format!("{}..{to}/{over}s", to / 2.0));
            let ramp: Result<crate::ramp::Ramp, _> = stages.collect::<Vec<_>>().join(",").parse();
            let command = match (is_ramp, ramp) {
                (true, Ok(ramp)) => Command::Follow(ramp),
                _ => Command::Set(level),
            };
            let mut plan = FleetPlan::begin(command, OPERATOR).unwrap();
            plan.pass(Duration::from_secs_f64(position), WINDOW, OPERATOR);
            plan.guard("resets>2.5%:step-back,latency-p99>3x:hold".parse().unwrap(), OPERATOR);
            let read = FleetPlan::parse(&plan.record()).unwrap();
            prop_assert_eq!(read.record(), plan.record());
        }

        #[test]
        fn whatever_is_written_there_nothing_crashes(record: Vec<u8>, text in "\\PC{0,200}") {
            drop(FleetPlan::parse(&record));
            drop(FleetPlan::parse(text.as_bytes()));
        }
    }
}
