//! How a ramp is written.
//!
//! ```text
//! ramp  = stage { "," stage }
//! stage = LEVEL                           a step to LEVEL
//!       | LEVEL "/" TIME                  a slope from where it stands to LEVEL
//!       | LEVEL ".." LEVEL "/" TIME       a slope from one to the other
//!       | "hold" ":" TIME                 stay
//! LEVEL = a number from 0 to 1023, or percent: 0.5, 50%
//! TIME  = a number with ms, s, m or h: 30s, 1.5m
//! ```
//! A ramp begins with a LEVEL, or at 0 with a slope to one. Blanks around a comma do not count.

use std::str::FromStr;
use std::time::Duration;

use millrace_engine::Intensity;

use super::{Ramp, Stage};
use millrace_notation::units;

/// What is wrong with a ramp, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RampError {
    /// The character, from 1.
    position: usize,
    message: String,
}

impl std::fmt::Display for RampError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at character {}: {}", self.position, self.message)
    }
}

impl std::error::Error for RampError {}

impl FromStr for Ramp {
    type Err = RampError;

    fn from_str(text: &str) -> Result<Self, RampError> {
        let mut stages = Vec::new();
        let mut level = Intensity::ZERO;
        let mut position = 1;
        for item in text.split(',') {
            let blanks = item.chars().take_while(|c| c.is_whitespace()).count();
            let at = position + blanks;
            let stage = stage(item.trim(), level, at, stages.is_empty())?;
            level = stage.to;
            stages.push(stage);
            position += item.chars().count() + 1;
        }
        Ok(Self { stages })
    }
}

fn stage(text: &str, level: Intensity, at: usize, is_first: bool) -> Result<Stage, RampError> {
    let fail = |position: usize, message: String| RampError { position, message };
    if text.is_empty() {
        return Err(fail(
            at,
            "a stage is missing: write a level (50%), a slope (10%..100%/5m) or hold:TIME"
                .to_owned(),
        ));
    }
    if let Some(rest) = text.strip_prefix("hold") {
        let time = rest
            .strip_prefix(':')
            .ok_or_else(|| fail(at + 4, "expected ':' and a time, as in hold:10m".to_owned()))?;
        if is_first {
            let message = "a ramp begins with a level, such as 10%, before it can hold".to_owned();
            return Err(fail(at, message));
        }
        let over = time_at(time, at + 5)?;
        return Ok(Stage {
            from: level,
            to: level,
            over,
        });
    }
    let (levels, time) = match text.split_once('/') {
        Some((levels, time)) => (levels, Some((time, at + levels.chars().count() + 1))),
        None => (text, None),
    };
    let over = time.map(|(time, at)| time_at(time, at)).transpose()?;
    let Some((from, to)) = levels.split_once("..") else {
        let to = level_at(levels, at)?;
        // The first level is where it begins, unless it is the end of a slope from nothing.
        let from = if is_first && over.is_none() {
            to
        } else {
            level
        };
        return Ok(Stage {
            from,
            to,
            over: over.unwrap_or_default(),
        });
    };
    let to_at = at + from.chars().count() + 2;
    let (from, to) = (level_at(from, at)?, level_at(to, to_at)?);
    let over = over.ok_or_else(|| {
        let end = at + text.chars().count();
        fail(
            end,
            "expected '/' and a time, as in 10%..100%/5m".to_owned(),
        )
    })?;
    Ok(Stage { from, to, over })
}

fn level_at(text: &str, position: usize) -> Result<Intensity, RampError> {
    text.parse()
        .map_err(|error: millrace_engine::NotAnIntensity| RampError {
            position,
            message: error.to_string(),
        })
}

fn time_at(text: &str, position: usize) -> Result<Duration, RampError> {
    units::duration(text).map_err(|message| RampError { position, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_shown_again() {
        for (text, shown) in [
            ("10%..100%/5m,hold:10m,300%/0s", "0.1..1/5m,hold:10m,3"),
            ("100%/10s", "0..1/10s"),
            ("0.5", "0.5"),
            ("10% , hold:1s , 2", "0.1,hold:1s,2"),
            ("1..0/250ms", "1..0/250ms"),
            ("50%,10%..10%/5m", "0.5,0.1..0.1/5m"),
            ("50%,50%..50%/5m", "0.5,hold:5m"),
            ("10%..10%/5m", "0.1..0.1/5m"),
        ] {
            let ramp: Ramp = text.parse().unwrap();
            assert_eq!(ramp.to_string(), shown);
            assert_eq!(shown.parse::<Ramp>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn errors_say_where_and_what_is_expected() {
        for (text, position, message) in [
            ("", 1, "a stage is missing"),
            ("10%,", 5, "a stage is missing"),
            ("10%,,20%", 5, "a stage is missing"),
            ("hold:5m", 1, "begins with a level"),
            ("10%,hold", 9, "expected ':'"),
            ("10%,hold:soon", 10, "'soon' is not a time"),
            ("10%..100%", 10, "expected '/' and a time"),
            ("10%..100%/", 11, "'' is not a time"),
            ("10%..x/5m", 6, "'x' is not an intensity"),
            ("10%-100%/5m", 1, "'10%-100%' is not an intensity"),
            ("10%, fast", 6, "'fast' is not an intensity"),
            ("2000", 1, "from 0 to 1023"),
            ("10%..100%/5", 11, "'5' is not a time"),
        ] {
            let error = text.parse::<Ramp>().unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
            assert_eq!(error.position, position, "{text}: {error}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("at character {position}:"))
            );
        }
    }
}
