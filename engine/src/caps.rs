//! Bounds on what targets get: new sessions a second, sessions at a time, bytes a second.
//!
//! A session that is over a bound is refused as a whole, never cut. Bytes are shaped: above the
//! rate nothing is sent for a moment, and the copied connections simply become slower, as on a
//! slow line. What waits meanwhile is kept; once more than a second's worth waits, new sessions
//! are refused until it has become less.

use crate::stats::RefusalReason;
use crate::time::Time;

/// Tokens are counted in millionths, so that time in microseconds times a rate is exact.
const TOKEN: i64 = 1_000_000;
/// A bucket holds this part of a second's tokens: what may come at once.
const BURST_PARTS: u64 = 20;
/// A bucket of bytes holds at least the largest packet.
const LEAST_BYTES: u64 = 65_536;

/// Bounds; `None` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Sessions begun in a second.
    pub new_sessions: Option<u32>,
    /// Sessions that are copied at the same time.
    pub open_sessions: Option<u32>,
    /// Payload bytes sent to targets in a second, retransmissions included.
    pub bandwidth: Option<u64>,
}

/// Watches over the bounds on sessions.
#[derive(Debug)]
pub(crate) struct SessionMeter {
    caps: Caps,
    begun: Option<Bucket>,
}

impl SessionMeter {
    pub(crate) fn new(caps: Caps) -> Self {
        let rate = caps.new_sessions.map(u64::from);
        Self {
            caps,
            begun: rate.map(|rate| Bucket::new(rate, rate / BURST_PARTS)),
        }
    }

    /// Whether a session may begin now, with `open` others that are copied and `backlog` bytes
    /// that wait; counts it if so.
    ///
    /// # Errors
    /// Which bound stands against it.
    pub(crate) fn admit(
        &mut self,
        now: Time,
        open: usize,
        backlog: u64,
    ) -> Result<(), RefusalReason> {
        if self
            .caps
            .open_sessions
            .is_some_and(|most| open >= most as usize)
        {
            return Err(RefusalReason::MaxOpen);
        }
        if self.caps.bandwidth.is_some_and(|rate| backlog > rate) {
            return Err(RefusalReason::MaxBandwidth);
        }
        if let Some(bucket) = &mut self.begun {
            if !bucket.has_tokens(now) {
                return Err(RefusalReason::MaxNewSessions);
            }
            bucket.take(1);
        }
        Ok(())
    }
}

/// Shapes what is sent.
#[derive(Debug)]
pub(crate) struct Shaper {
    bytes: Option<Bucket>,
}

impl Shaper {
    pub(crate) fn new(caps: Caps) -> Self {
        let bucket = |rate: u64| Bucket::new(rate, (rate / BURST_PARTS).max(LEAST_BYTES));
        Self {
            bytes: caps.bandwidth.map(bucket),
        }
    }

    /// Whether packets may be sent now.
    pub(crate) fn may_send(&mut self, now: Time) -> bool {
        self.bytes
            .as_mut()
            .is_none_or(|bucket| bucket.has_tokens(now))
    }

    /// Notes payload that was sent.
    pub(crate) fn sent(&mut self, bytes: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.take(bytes);
        }
    }

    /// When what waits for the bandwidth may be sent; [`Time::NEVER`] if nothing is bounded.
    pub(crate) fn sends_at(&self) -> Time {
        self.bytes.as_ref().map_or(Time::NEVER, Bucket::opens_at)
    }
}

/// A token bucket that may be overdrawn once.
#[derive(Debug)]
struct Bucket {
    /// Tokens a second.
    rate: u64,
    most: i64,
    /// Millionths of tokens.
    level: i64,
    at: Time,
}

impl Bucket {
    fn new(rate: u64, burst: u64) -> Self {
        let most = i64::try_from(burst.max(1)).unwrap_or(i64::MAX);
        let most = most.saturating_mul(TOKEN);
        Self {
            rate: rate.max(1),
            most,
            level: most,
            at: Time::ORIGIN,
        }
    }

    fn has_tokens(&mut self, now: Time) -> bool {
        let micros = now.as_micros().saturating_sub(self.at.as_micros());
        let more = i64::try_from(micros.saturating_mul(self.rate)).unwrap_or(i64::MAX);
        self.level = self.level.saturating_add(more).min(self.most);
        self.at = self.at.max(now);
        // One whole token at least, so that a rate of one a second is not two.
        self.level >= TOKEN
    }

    fn take(&mut self, tokens: u64) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.level = self.level.saturating_sub(tokens.saturating_mul(TOKEN));
    }

    fn opens_at(&self) -> Time {
        let missing = u64::try_from(TOKEN.saturating_sub(self.level)).unwrap_or(0);
        if missing == 0 {
            return Time::ORIGIN;
        }
        Time::from_micros(
            self.at
                .as_micros()
                .saturating_add(missing.div_ceil(self.rate)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(micros: u64) -> Time {
        Time::from_micros(1_700_000_000_000_000 + micros)
    }

    #[test]
    fn each_bound_refuses_under_its_own_name() {
        let mut meter = SessionMeter::new(Caps {
            new_sessions: Some(1),
            open_sessions: Some(10),
            bandwidth: Some(1000),
        });
        assert_eq!(meter.admit(at(0), 10, 0), Err(RefusalReason::MaxOpen));
        assert_eq!(
            meter.admit(at(0), 0, 1001),
            Err(RefusalReason::MaxBandwidth)
        );
        assert_eq!(meter.admit(at(0), 0, 0), Ok(()));
        assert_eq!(
            meter.admit(at(999_999), 0, 0),
            Err(RefusalReason::MaxNewSessions)
        );
        assert_eq!(meter.admit(at(1_000_000), 0, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn a_bucket_gives_its_rate_and_no_more(
            rate in 1..100_000u64, steps in proptest::collection::vec(1..200_000u64, 1..200)
        ) {
            let mut bucket = Bucket::new(rate, rate / BURST_PARTS);
            let (mut now, mut given) = (0, 0u64);
            bucket.has_tokens(at(0));
            for step in steps {
                now += step;
                while bucket.has_tokens(at(now)) {
                    bucket.take(1);
                    given += 1;
                }
                prop_assert!(bucket.opens_at() > at(now));
                let most = rate * now / 1_000_000 + (rate / BURST_PARTS).max(1);
                prop_assert!(given <= most, "{given} of {most}");
            }
        }
    }
}
