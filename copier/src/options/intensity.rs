//! How much is copied, and as what.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use millrace_engine::{Intensity, Share};

use millrace_notation::units;
use millrace_pilot::guard::Guards;
use millrace_pilot::ramp::Ramp;

/// How much is copied.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Intensity")]
pub struct IntensityOptions {
    /// Copied connections for each session: how much is copied as a whole number. 1 if nothing else
    /// says how much. With -r, of each session that -r chooses.
    #[arg(short = 'n', long, value_name = "N",
          value_parser = RangedU64ValueParser::<u16>::new().range(1..=1023))]
    pub replicas: Option<u16>,

    /// Copy this percentage of the sessions: -r 20 is an intensity of 0.2.
    #[arg(
        short = 'r',
        long,
        value_name = "PERCENT",
        allow_negative_numbers = true
    )]
    pub percent: Option<Percent>,

    /// How much is copied as one number, 0 to 1023: 0.2 is a fifth of the sessions, 2.5 two copies of
    /// each and a third of every second one.
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub intensity: Option<Intensity>,

    /// What is chosen at an intensity below 1 depends on this text: copiers with the same one choose
    /// the same sessions, and clients that do not know it cannot choose to be copied.
    #[arg(long, value_name = "TEXT")]
    pub intensity_key: Option<String>,

    /// Rise from nothing by one percent a second, to what -n, -r or --intensity says.
    #[arg(short = 'g', long)]
    pub gradual: bool,

    /// Rise in steps and slopes: 10%..100%/5m is a slope from 10% to 100% in five minutes, hold:10m
    /// stays, 300% is a step to three times as much. Stages are separated by commas.
    #[arg(long, value_name = "STAGES")]
    pub ramp: Option<Ramp>,

    /// What must not happen at the target, and what is done then: connect-failures>5%:stop,
    /// resets>2%:step-back, unanswered>10%:stop, latency-p99>3x:hold.
    #[arg(long = "guard", value_name = "RULES")]
    pub guards: Option<Guards>,

    /// Guards judge what happened within this time.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = guard_window)]
    pub guard_window: Duration,

    /// Guards judge only what has happened so many times within the window.
    #[arg(long, value_name = "N", default_value_t = 50,
          value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    pub guard_sample: u32,

    /// Use share K of N of the source addresses and ports (K from 0; without /N one of 1024), so that
    /// several copiers of one target never use the same. One copier may go without: it uses what the
    /// others leave. auto: one of 64 (of N) that no other copier of the cluster has, by a lock in Consul.
    #[arg(
        short = 'f',
        long,
        visible_alias = "pool-share",
        value_name = "K[/N]|auto[/N]"
    )]
    pub share: Option<ShareOption>,

    /// Begin the copies of one session apart, up to this many milliseconds, and keep them apart; 0:
    /// all at once.
    #[arg(long, value_name = "MS", default_value_t = 10,
          value_parser = RangedU64ValueParser::<u64>::new().range(0..=10_000))]
    pub spread: u64,

    /// Let a source port rest this many seconds before it is used again, where there are others.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
          value_parser = RangedU64ValueParser::<u64>::new().range(0..=3600))]
    pub port_rest: u64,
}

/// A time that guards look back on.
pub(crate) fn guard_window(text: &str) -> Result<Duration, String> {
    let window = units::duration(text)?;
    let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
    match bounds.contains(&window) {
        true => Ok(window),
        false => Err(format!("'{text}': write 1s to 1h")),
    }
}

/// `-r`: a percentage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// As an intensity.
    pub fn intensity(self) -> Intensity {
        Intensity::from_ratio(self.0 / 100.0)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = units::plain_number(text.strip_suffix('%').unwrap_or(text));
        match number {
            Some(0.0) => Err(format!(
                "'{text}' copies nothing: to begin with nothing and raise it by `millrace-copier ctl intensity`, write \
                 --intensity 0; to rise by itself, --ramp 0..100%/5m"
            )),
            Some(percent) if percent <= 100.0 => Ok(Self(percent)),
            Some(_) | None => Err(format!(
                "'{text}' is not a percentage of at most 100, such as 20; more than all is --intensity or -n"
            )),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// `-f`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareOption {
    /// K of N, or TCPCopy's K alone: an instance, see [`Share::instance`].
    Given(Share),
    /// One of so many that nobody else has.
    Auto(u16),
}

/// Shares of `-f auto`: each has 1008 ports of each address.
const AUTO: u16 = 64;

impl ShareOption {
    /// The share, or one like it where it is not known yet.
    pub fn share(self) -> Option<Share> {
        match self {
            Self::Given(share) => Some(share),
            Self::Auto(of) => Share::new(0, of),
        }
    }
}

impl FromStr for ShareOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u16>().ok()).flatten()
        };
        if text == "auto" {
            return Ok(Self::Auto(AUTO));
        }
        if let Some(of) = text.strip_prefix("auto/") {
            let of = number(of).filter(|of| Share::new(0, *of).is_some());
            return of.map(Self::Auto).ok_or_else(|| {
                format!("'{text}': write auto/N with N from 1 to 1024, the same in all copiers")
            });
        }
        let share = match text.split_once('/') {
            Some((index, of)) => {
                let parts = number(index).zip(number(of));
                parts.and_then(|(index, of)| Share::new(index, of))
            }
            None => number(text).and_then(Share::instance),
        };
        share
            .map(Self::Given)
            .ok_or_else(|| {
                format!(
                    "'{text}' is not a share: write K/N with K below N and N at most 1024, such as \
                     0/4 for the first of four copiers and 3/4 for the last, K alone for 0 to 1023, or auto"
                )
            })
    }
}

impl fmt::Display for ShareOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(share) => write!(f, "{}/{}", share.index(), share.of()),
            Self::Auto(of) => write!(f, "auto/{of}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_percentages_are_read_and_nonsense_is_not() {
        for (text, shown) in [
            ("0", "0/1024"),
            ("1023", "1023/1024"),
            ("3/4", "3/4"),
            ("0/1", "0/1"),
        ] {
            assert_eq!(text.parse::<ShareOption>().unwrap().to_string(), shown);
        }
        for text in ["", "1024", "4/4", "1/0", "-1", "a", "1/2/3", "1/1025", "+1"] {
            assert!(text.parse::<ShareOption>().is_err(), "{text}");
        }
        for (text, ratio) in [("20", 0.2), ("20%", 0.2), ("0.5", 0.005), ("100", 1.0)] {
            let intensity = text.parse::<Percent>().unwrap().intensity();
            assert_eq!(intensity, Intensity::from_ratio(ratio), "{text}");
        }
        for text in ["", "abc", "101", "-3", "NaN", "0", "0%"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
