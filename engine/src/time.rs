//! Time as the engine sees it: a number that its owner hands in.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, in microseconds since an origin that the owner chooses.
///
/// The origin should be a wall-clock epoch: TCP timestamps and initial sequence numbers are taken
/// from it, and a process that starts again must go on where the last one stopped, or a target
/// with connections in TIME-WAIT would refuse the new ones (RFC 6191).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u64);

impl Time {
    /// Later than every other time; stands for "never" in a deadline.
    pub const NEVER: Self = Self(u64::MAX);

    /// The origin itself, before everything; stands for "not yet".
    pub(crate) const ORIGIN: Self = Self(0);

    /// A time from microseconds since the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long before this time `earlier` was; zero when it was not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// As [`Time::since`], in microseconds that saturate at about 71 minutes.
    pub(crate) fn micros_since(self, earlier: Self) -> u32 {
        u32::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(u32::MAX)
    }

    /// This time or the next multiple of 1,024 µs: at such ticks whatever need not be exact is done together. Each moment of
    /// its own would wake the host once.
    pub(crate) const fn next_tick(self) -> Self {
        const WITHIN: u64 = (1 << 10) - 1;
        match self.0.checked_add(WITHIN) {
            Some(past) => Self(past & !WITHIN),
            None => self,
        }
    }

    /// This time and `micros` more.
    pub(crate) const fn plus_micros(self, micros: u32) -> Self {
        Self(self.0.saturating_add(micros as u64))
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Time {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NEVER {
            return f.write_str("never");
        }
        write!(f, "{}.{:06}s", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
