//! The plan of a cluster: how much all its copiers copy together. One record, which whoever may write replaces as a whole
//! and only if nobody has changed it meanwhile, so that it never has two opinions.
//!
//! Its ramp has no clock to go by, since those of several hosts differ: copiers move it on by the time that passes for
//! them ([`FleetPlan::pass`]), and each is told where it is.

use std::ops::RangeInclusive;
use std::time::Duration;

use millrace_engine::Intensity;
use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::course::{Course, Wanted};
use crate::guard::{Action, Guard, Guards};
use crate::judge::Demand;
use crate::status::{Change, Mode};

/// Changes that are kept.
const CHANGES: usize = 50;
/// A longer record is no plan of ours.
const MAX_SIZE: usize = 128 << 10;
/// Longer words of a change are cut, in bytes.
const MAX_WORDS: usize = 400;
/// The form of the record that this program writes. It lets one alone whose form is newer.
const FORMAT: u32 = 1;
/// What guards look back on, and how many events they judge, unless the operator says otherwise.
const WINDOW: Duration = Duration::from_secs(10);
const SAMPLE: u64 = 50;
/// Windows of other lengths are no operator's.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// An edition beyond this is no count (RFC 8259, section 6: what every reader of JSON can hold).
const MAX_EDITION: u64 = 1 << 53;

/// A plan.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetPlan {
    course: Course,
    guards: FleetGuards,
    /// How often everything was stopped.
    stops: u64,
    /// Counts what was decided: what is found under one edition says nothing of the next.
    edition: u64,
    /// While held: how long no copier has seen a broken guard.
    good: Duration,
    changes: Vec<Change>,
}

/// What must not happen at the targets of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct FleetGuards {
    rules: Guards,
    /// As the operator wrote them.
    written: String,
    /// The time that they look back on.
    pub window: Duration,
    /// Figures from fewer events are not judged.
    pub sample: u64,
}

impl Default for FleetGuards {
    /// No rule.
    fn default() -> Self {
        Self {
            rules: Guards(Vec::new()),
            written: String::new(),
            window: WINDOW,
            sample: SAMPLE,
        }
    }
}

impl FleetGuards {
    /// Reads rules as `--guard` has them; an empty text is none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(written: &str) -> Result<Self, PlanError> {
        if written.is_empty() {
            return Ok(Self::default());
        }
        let rules: Result<Guards, _> = written.parse();
        Ok(Self {
            rules: rules.map_err(|error| PlanError(printable(&error.to_string())))?,
            written: written.to_owned(),
            ..Self::default()
        })
    }

    /// The rules.
    pub fn rules(&self) -> &[Guard] {
        &self.rules.0
    }
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

impl PlanError {
    fn in_record(what: &str, error: &dyn std::fmt::Display) -> Self {
        Self(printable(&format!("that is no plan: {what}: {error}")))
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default = "first_format")]
    format: u32,
    edition: u64,
    #[serde(default)]
    stops: u64,
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
    #[serde(default = "window_seconds")]
    guard_window_seconds: f64,
    #[serde(default = "sample")]
    guard_sample: u64,
    #[serde(default)]
    changes: Vec<Change>,
}

const fn whole() -> f64 {
    1.0
}

const fn first_format() -> u32 {
    1
}

const fn window_seconds() -> f64 {
    WINDOW.as_secs_f64()
}

const fn sample() -> u64 {
    SAMPLE
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
            Command::Pause | Command::Resume | Command::Stop => return Err(Self::none_yet()),
        };
        let what = format!("the operator has begun with {wanted}");
        let mut plan = Self::of(wanted);
        plan.decide(what, signed);
        Ok(plan)
    }

    /// Why a wish cannot be done without a plan.
    pub fn none_yet() -> PlanError {
        let why = "the cluster has no plan yet: begin with `ctl intensity` or `ctl ramp`";
        PlanError(why.to_owned())
    }

    /// A stop in place of a record that cannot be read: nothing of that is known, and copies end everywhere.
    pub fn stopped(signed: Signed<'_>) -> Self {
        let mut plan = Self::of(Wanted::Level(Intensity::ZERO));
        // Time does not run back: these are other numbers than those of any plan before.
        plan.stops = signed.at;
        plan.edition = signed.at.min(MAX_EDITION - 1);
        plan.command(Command::Stop, signed);
        plan
    }

    fn of(wanted: Wanted) -> Self {
        Self {
            course: Course::new(wanted),
            guards: FleetGuards::default(),
            stops: 0,
            edition: 0,
            good: Duration::ZERO,
            changes: Vec::new(),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Why it is no plan.
    pub fn parse(record: &[u8]) -> Result<Self, PlanError> {
        let wrong = PlanError::in_record;
        if record.len() > MAX_SIZE {
            return Err(wrong("record", &format_args!("{} bytes", record.len())));
        }
        let record: Record =
            serde_json::from_slice(record).map_err(|error| wrong("record", &error))?;
        if record.format > FORMAT {
            let why = "a newer Millrace has written it: upgrade this one";
            return Err(wrong("format", &why));
        }
        if !(1..=MAX_EDITION).contains(&record.edition) {
            return Err(wrong("edition", &record.edition));
        }
        if !(record.scale > 0.0 && record.scale <= 1.0) {
            return Err(wrong("scale", &record.scale));
        }
        let time = |what, seconds| {
            Duration::try_from_secs_f64(seconds).map_err(|error| wrong(what, &error))
        };
        Ok(Self {
            course: Course {
                wanted: record.wanted()?,
                mode: record.mode,
                position: time("position_seconds", record.position_seconds)?,
                scale: record.scale,
            },
            guards: record.guards()?,
            edition: record.edition,
            stops: record.stops,
            good: time("good_seconds", record.good_seconds)?,
            changes: kept(record.changes),
        })
    }

    /// The record of it.
    ///
    /// # Errors
    /// It would not be read as what it is: too long a ramp, above all.
    pub fn record(&self) -> Result<Vec<u8>, PlanError> {
        let record = self.written();
        match Self::parse(&record) {
            Ok(read) if read.written() == record => Ok(record),
            Ok(_) => Err(PlanError("it cannot be kept exactly as it is".to_owned())),
            Err(error) => Err(PlanError(format!("it cannot be kept: {error}"))),
        }
    }

    fn written(&self) -> Vec<u8> {
        let (intensity, ramp) = match &self.course.wanted {
            Wanted::Level(level) => (Some(level.to_string()), None),
            Wanted::Ramp(ramp) => (None, Some(ramp.exact())),
        };
        let record = Record {
            format: FORMAT,
            edition: self.edition,
            stops: self.stops,
            intensity,
            ramp,
            mode: self.course.mode,
            position_seconds: self.course.position.as_secs_f64(),
            scale: self.course.scale,
            good_seconds: self.good.as_secs_f64(),
            guards: self.guards.written.clone(),
            guard_window_seconds: self.guards.window.as_secs_f64(),
            guard_sample: self.guards.sample,
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
    pub const fn guards(&self) -> &FleetGuards {
        &self.guards
    }

    /// How often everything was stopped: copies that began before end.
    pub const fn stops(&self) -> u64 {
        self.stops
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
        let stops = matches!(command, Command::Stop);
        let Some(what) = self.course.command(command) else {
            return false;
        };
        self.stops = self.stops.saturating_add(u64::from(stops));
        self.decide(what, signed);
        true
    }

    /// Takes other guards in place of those that there are.
    pub fn guard(&mut self, guards: FleetGuards, signed: Signed<'_>) {
        let what = match guards.rules().is_empty() {
            true => "the operator has taken the guards away".to_owned(),
            false => format!("the operator has set the guards {}", guards.written),
        };
        self.guards = guards;
        self.decide(what, signed);
    }

    /// Whether time has to pass for it: a ramp goes on, or a hold may end.
    pub fn needs_time(&self) -> bool {
        self.course.is_rising() || self.course.mode() == Mode::Held
    }

    /// Lets so much time pass. A hold ends when no guard was broken for a whole window.
    pub fn pass(&mut self, passed: Duration, signed: Signed<'_>) {
        if self.course.mode() == Mode::Held {
            self.good += passed;
            if self.good >= self.guards.window {
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
        if self.edition != edition {
            return false;
        }
        let done = self.course.restrain(demand.action);
        let stops = demand.action == Action::Stop;
        self.stops = self.stops.saturating_add(u64::from(stops));
        self.decide(format!("{}; {done}", demand.why), signed);
        if let Some(change) = self.changes.last_mut() {
            change.guard = true;
        }
        true
    }

    fn decide(&mut self, what: String, signed: Signed<'_>) {
        self.edition = (self.edition + 1).min(MAX_EDITION);
        self.good = Duration::ZERO;
        let surplus = (self.changes.len() + 1).saturating_sub(CHANGES);
        self.changes.drain(..surplus);
        self.changes.push(Change {
            at: signed.at,
            by: printable(signed.by),
            what: printable(&what),
            intensity: self.course.intensity().as_ratio(),
            guard: false,
        });
    }
}

impl Record {
    fn wanted(&self) -> Result<Wanted, PlanError> {
        let wrong = PlanError::in_record;
        match (&self.intensity, &self.ramp) {
            (Some(level), None) => {
                let level = level.parse().map_err(|error| wrong("intensity", &error))?;
                Ok(Wanted::Level(level))
            }
            (None, Some(ramp)) => {
                let ramp = ramp.parse().map_err(|error| wrong("ramp", &error))?;
                Ok(Wanted::Ramp(ramp))
            }
            (Some(_), Some(_)) | (None, None) => {
                Err(wrong("record", &"either an intensity or a ramp is needed"))
            }
        }
    }

    fn guards(&self) -> Result<FleetGuards, PlanError> {
        let wrong = PlanError::in_record;
        let seconds = self.guard_window_seconds;
        let window = Duration::try_from_secs_f64(seconds).ok();
        Ok(FleetGuards {
            window: window
                .filter(|window| WINDOWS.contains(window))
                .ok_or_else(|| wrong("guard_window_seconds", &seconds))?,
            sample: self.guard_sample.max(1),
            ..FleetGuards::parse(&self.guards).map_err(|error| wrong("guards", &error))?
        })
    }
}

/// What somebody else has written, for logs and terminals.
fn printable(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars().filter(|it| !it.is_control()) {
        if shown.len() + letter.len_utf8() > MAX_WORDS {
            break;
        }
        shown.push(letter);
    }
    shown
}

/// The last of many changes, fit to be shown.
fn kept(changes: Vec<Change>) -> Vec<Change> {
    let surplus = changes.len().saturating_sub(CHANGES);
    let last = changes.into_iter().skip(surplus);
    let shown = |change: Change| Change {
        by: printable(&change.by),
        what: printable(&change.what),
        ..change
    };
    last.map(shown).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPERATOR: Signed<'_> = Signed {
        by: "me@here",
        at: 7,
    };

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
        plan.pass(seconds(5), OPERATOR);
        assert_eq!(plan.course().intensity().as_ratio(), 0.5);
        let copier = Signed { by: "live1", at: 9 };
        plan.pass(seconds(500), copier);
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
        plan.pass(seconds(70), OPERATOR);
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
        plan.pass(seconds(9), OPERATOR);
        assert!(plan.doubt());
        assert!(!plan.doubt());
        plan.pass(seconds(9), OPERATOR);
        assert_eq!(plan.course().mode(), Mode::Held);
        plan.pass(seconds(1), OPERATOR);
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
        let long = "\u{10ffff}".repeat(5000);
        for at in 0..200u64 {
            let signed = Signed { by: &long, at };
            let command = Command::Set(millrace_engine::Intensity::from_ratio(at as f64));
            assert!(plan.command(command, signed));
        }
        assert_eq!(plan.changes().len(), CHANGES);
        assert_eq!(plan.changes().last().unwrap().at, 199);
        assert_eq!(FleetPlan::parse(&plan.record().unwrap()).unwrap(), plan);
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let long = vec!["10%..20%/1s"; 12_000].join(",");
        let refused = begin(&long).record().map(drop).unwrap_err().to_string();
        assert!(refused.contains("cannot be kept"), "{refused}");
        let mut plan = begin("0..100%/121m");
        for rules in ["latency-p99.9999>125s:hold", "resets>99.9999%:stop"] {
            plan.guard(FleetGuards::parse(rules).unwrap(), OPERATOR);
            let read = FleetPlan::parse(&plan.record().unwrap()).unwrap();
            assert_eq!(read, plan);
        }
    }

    #[test]
    fn steps_back_without_end_leave_something_to_come_back_to() {
        let mut plan = FleetPlan::begin(Command::Set(Intensity::ONE), OPERATOR).unwrap();
        for _ in 0..2000 {
            let demand = Demand {
                action: Action::StepBack,
                why: "x".to_owned(),
            };
            assert!(plan.restrain(plan.edition(), &demand, OPERATOR));
        }
        let read = FleetPlan::parse(&plan.record().unwrap()).unwrap();
        assert_eq!(read.course().intensity().as_ratio(), 0.001);
    }

    #[test]
    fn a_stop_is_counted_so_that_nobody_misses_one_that_was_taken_back() {
        let mut plan = begin("1");
        plan.command(Command::Stop, OPERATOR);
        plan.command(Command::Resume, OPERATOR);
        assert_eq!((plan.stops(), plan.course().mode()), (1, Mode::Running));
        let in_place = FleetPlan::stopped(OPERATOR);
        assert_eq!(in_place.course().mode(), Mode::Stopped);
        let read = FleetPlan::parse(&in_place.record().unwrap()).unwrap();
        assert_eq!(read, in_place);
    }

    #[test]
    fn what_is_no_plan_is_refused_in_words() {
        for (record, why) in [
            ("", "record"),
            ("[]", "record"),
            (
                r#"{"edition":0,"mode":"running","intensity":"1"}"#,
                "edition",
            ),
            (
                r#"{"edition":18446744073709551615,"mode":"running","intensity":"1"}"#,
                "edition",
            ),
            (
                r#"{"format":2,"edition":1,"mode":"running","intensity":"1"}"#,
                "newer Millrace",
            ),
            (
                r#"{"edition":1,"mode":"running","intensity":"1","guard_window_seconds":0}"#,
                "guard_window",
            ),
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
            plan.pass(Duration::from_secs_f64(position), OPERATOR);
            plan.guard(FleetGuards::parse("resets>2.5%:step-back,latency-p99>3x:hold").unwrap(), OPERATOR);
            let record = plan.record().unwrap();
            prop_assert_eq!(FleetPlan::parse(&record).unwrap().record().unwrap(), record);
        }

        #[test]
        fn whatever_is_written_there_nothing_crashes(record: Vec<u8>, text in "\\PC{0,200}") {
            drop(FleetPlan::parse(&record));
            drop(FleetPlan::parse(text.as_bytes()));
        }
    }
}
