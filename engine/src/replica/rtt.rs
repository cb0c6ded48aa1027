//! Round-trip time and retransmission time-out (RFC 6298).

/// Before the first measurement (RFC 6298 (2.1)), in microseconds.
const INITIAL_RTO: u32 = 1_000_000;
/// Lower bound. RFC 6298 (2.4) says 1 s; every deployed stack uses less, and 200 ms is Linux's
/// value, which clears its delayed acknowledgements (40 ms).
const MIN_RTO: u32 = 200_000;
/// A lost tail is not suspected sooner: below this, batches of headers and a busy target look like loss.
const MIN_PROBE_TIMEOUT: u32 = 20_000;
/// Upper bound (RFC 6298 (2.5)).
const MAX_RTO: u32 = 60_000_000;
/// Clock granularity G of RFC 6298 (2.2), in microseconds: headers come in batches.
const GRANULARITY: u32 = 1_000;

/// The estimator of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rtt {
    srtt: u32,
    rttvar: u32,
    backoff: u8,
    measured: bool,
}

impl Rtt {
    pub(crate) const fn new() -> Self {
        Self {
            srtt: 0,
            rttvar: 0,
            backoff: 0,
            measured: false,
        }
    }

    /// Takes a measurement in microseconds (RFC 6298 (2.2), (2.3)).
    pub(crate) fn sample(&mut self, rtt: u32) {
        let rtt = rtt.min(MAX_RTO);
        if self.measured {
            let error = self.srtt.abs_diff(rtt);
            self.rttvar = self.rttvar - self.rttvar / 4 + error / 4;
            self.srtt = self.srtt - self.srtt / 8 + rtt / 8;
        } else {
            self.srtt = rtt;
            self.rttvar = rtt / 2;
            self.measured = true;
        }
    }

    /// The current time-out in microseconds, backed off (RFC 6298 (5.5)).
    pub(crate) fn rto(&self) -> u32 {
        let base = if self.measured {
            // RFC 6298 (2.3): RTO = SRTT + max(G, 4 * RTTVAR).
            (self.srtt + (4 * self.rttvar).max(GRANULARITY)).clamp(MIN_RTO, MAX_RTO)
        } else {
            INITIAL_RTO
        };
        base.saturating_mul(1 << self.backoff.min(8)).min(MAX_RTO)
    }

    /// After this many microseconds without a word a lost tail is suspected (RFC 8985 7.2, PTO); nothing before the first
    /// measurement. A target that delays its acknowledgements makes it longer, since they are measured.
    pub(crate) fn probe_timeout(&self) -> Option<u32> {
        let twice = self.srtt.saturating_mul(2);
        Some(self.estimate()?.max(twice).max(MIN_PROBE_TIMEOUT))
    }

    /// Within this many microseconds nearly all answers come; nothing before the first measurement.
    pub(crate) fn estimate(&self) -> Option<u32> {
        let estimate = self.srtt.saturating_add(self.rttvar.saturating_mul(4));
        self.measured.then_some(estimate)
    }

    /// Doubles the time-out (RFC 6298 (5.5)).
    pub(crate) const fn back_off(&mut self) {
        self.backoff = self.backoff.saturating_add(1);
    }

    /// New data was acknowledged, or the way is known to be open again: back to the estimate.
    pub(crate) const fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// How many time-outs there were in a row.
    pub(crate) const fn backoff(&self) -> u8 {
        self.backoff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.rto(), 1_000_000);
        rtt.sample(400_000);
        assert_eq!(rtt.rto(), 400_000 + 4 * 200_000);
        for _ in 0..100 {
            rtt.sample(400_000);
        }
        assert!(rtt.rto() < 410_000, "variance decays: {}", rtt.rto());
        for _ in 0..3 {
            rtt.back_off();
        }
        assert!(rtt.rto() > 3_200_000 && rtt.rto() < 3_300_000);
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.rto(), MAX_RTO);
    }
}
