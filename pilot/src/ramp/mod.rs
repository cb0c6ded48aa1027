//! A ramp: how the intensity changes over time, in steps and slopes.
//!
//! - `parse`: how it is written.
//!
//! Only the plan is here, as a function of time; who follows it is [`crate::Pilot`].

mod parse;

use std::fmt;
use std::time::Duration;

use millrace_engine::Intensity;

pub use parse::RampError;

use millrace_notation::units;

/// A part of a ramp: from one level to another, evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// The level at its beginning.
    pub from: Intensity,
    /// The level at its end.
    pub to: Intensity,
    /// How long it takes; zero: a step.
    pub over: Duration,
}

impl Stage {
    /// Whether it stays at the level at which the stage before it ended.
    pub fn stays(&self, before: Option<Self>) -> bool {
        let level = before.map(|before| before.to);
        !self.over.is_zero() && self.from == self.to && level == Some(self.from)
    }
}

/// A ramp: stages one after the other. After the last its level stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ramp {
    stages: Vec<Stage>,
}

impl Ramp {
    /// A slope from nothing to `to`, one percent of the traffic a second: TCPCopy's `-g`.
    pub fn gradual(to: Intensity) -> Self {
        let over = Duration::from_secs_f64(to.as_ratio() * 100.0);
        let from = Intensity::ZERO;
        Self {
            stages: vec![Stage { from, to, over }],
        }
    }

    /// The level after this much time.
    pub fn level_at(&self, elapsed: Duration) -> Intensity {
        let mut left = elapsed;
        let mut level = self
            .stages
            .first()
            .map_or(Intensity::ONE, |stage| stage.from);
        for stage in &self.stages {
            if left < stage.over {
                let part = left.as_secs_f64() / stage.over.as_secs_f64();
                let (from, to) = (stage.from.as_ratio(), stage.to.as_ratio());
                return Intensity::from_ratio(from + (to - from) * part);
            }
            left -= stage.over;
            level = stage.to;
        }
        level
    }

    /// How long it takes to the end of its last stage.
    pub fn length(&self) -> Duration {
        self.stages.iter().map(|stage| stage.over).sum()
    }

    /// The last level.
    pub fn end(&self) -> Intensity {
        self.stages.last().map_or(Intensity::ONE, |stage| stage.to)
    }

    /// Where the rise began that led to the level after `elapsed`: for a slope its beginning, for
    /// a step the moment before it. `None` when there was no rise.
    pub fn step_back(&self, elapsed: Duration) -> Option<Duration> {
        let level = self.level_at(elapsed);
        let mut start = Duration::ZERO;
        let mut back = None;
        for stage in &self.stages {
            if start > elapsed {
                break;
            }
            if stage.from < level {
                let before = start.checked_sub(Duration::from_nanos(1));
                back = if stage.over.is_zero() {
                    before
                } else {
                    Some(start)
                };
            }
            start += stage.over;
        }
        back
    }

    /// As it can be written to mean exactly this, while its form for people rounds times.
    pub fn exact(&self) -> String {
        let stage = |Stage { from, to, over }: &Stage| match over.is_zero() {
            true => to.to_string(),
            false => format!("{from}..{to}/{}ms", over.as_secs_f64() * 1e3),
        };
        let stages: Vec<String> = self.stages.iter().map(stage).collect();
        stages.join(",")
    }

    /// The stages.
    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = None;
        for stage in &self.stages {
            if before.is_some() {
                f.write_str(",")?;
            }
            let Stage { from, to, over } = stage;
            if stage.stays(before) {
                write!(f, "hold:{}", units::show(*over))?;
            } else if over.is_zero() {
                write!(f, "{to}")?;
            } else {
                write!(f, "{from}..{to}/{}", units::show(*over))?;
            }
            before = Some(*stage);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ramp: &str, seconds: f64) -> f64 {
        let ramp: Ramp = ramp.parse().unwrap();
        ramp.level_at(Duration::from_secs_f64(seconds)).as_ratio()
    }

    #[test]
    fn slopes_holds_and_steps_follow_each_other() {
        let ramp = "10%..100%/5m,hold:10m,300%";
        for (seconds, level) in [
            (0.0, 0.1),
            (150.0, 0.55),
            (300.0, 1.0),
            (600.0, 1.0),
            (899.0, 1.0),
            (900.0, 3.0),
            (1e6, 3.0),
        ] {
            assert!(
                (at(ramp, seconds) - level).abs() < 1e-6,
                "after {seconds} s"
            );
        }
        assert_eq!(
            ramp.parse::<Ramp>().unwrap().length(),
            Duration::from_secs(900)
        );
        // A slope may begin where the last stage ended, and go down.
        assert!((at("50%,100%/10s,0/10s", 5.0) - 0.75).abs() < 1e-6);
        assert!((at("50%,100%/10s,0/10s", 15.0) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn the_gradual_ramp_is_one_percent_a_second() {
        let ramp = Ramp::gradual(Intensity::replicas(3));
        assert_eq!(ramp.length(), Duration::from_secs(300));
        assert_eq!(
            ramp.level_at(Duration::from_secs(42)),
            Intensity::from_ratio(0.42)
        );
        assert_eq!(ramp.end(), Intensity::replicas(3));
    }

    #[test]
    fn stepping_back_leads_to_where_the_last_rise_began() {
        let ramp: Ramp = "10%..100%/100s,hold:100s,300%,hold:100s".parse().unwrap();
        let back = |seconds| ramp.step_back(Duration::from_secs(seconds));
        let level = |at: Option<Duration>| at.map(|at| ramp.level_at(at).as_ratio());
        assert_eq!(back(50), Some(Duration::ZERO));
        assert_eq!(back(150), Some(Duration::ZERO));
        assert_eq!(level(back(200)), Some(1.0), "before the step");
        assert_eq!(level(back(250)), Some(1.0));
        assert_eq!(back(0), None);
        assert_eq!(
            "50%".parse::<Ramp>().unwrap().step_back(Duration::ZERO),
            None
        );
    }

    proptest! {
        #[test]
        fn any_text_is_a_ramp_or_not(text in "[0-9.%/:a-z,]{0,40}") {
            if let Ok(ramp) = text.parse::<Ramp>() {
                prop_assert!(ramp.level_at(ramp.length()) == ramp.end());
                let back = ramp.step_back(ramp.length());
                prop_assert!(back.is_none_or(|at| ramp.level_at(at) <= ramp.end()));
            }
        }
    }
}
