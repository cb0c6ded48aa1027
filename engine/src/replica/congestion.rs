//! Slow start and congestion avoidance (RFC 5681).

/// Initial window in segments (RFC 6928 2).
const INITIAL_SEGMENTS: u32 = 10;
/// No window grows beyond this: the largest that window scaling can advertise.
const MAX_WINDOW: u32 = 1 << 30;

/// The congestion window of one connection, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Congestion {
    window: u32,
    threshold: u32,
}

impl Congestion {
    pub(crate) fn new(mss: u16) -> Self {
        Self {
            window: INITIAL_SEGMENTS * u32::from(mss),
            threshold: MAX_WINDOW,
        }
    }

    pub(crate) const fn window(&self) -> u32 {
        self.window
    }

    /// New data was acknowledged outside recovery.
    pub(crate) fn on_ack(&mut self, bytes: u64, mss: u16) {
        let mss = u32::from(mss);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let growth = if self.window < self.threshold {
            // RFC 5681 (2) caps growth at one segment per acknowledgement; targets that coalesce
            // acknowledge many segments at once, so growth follows the bytes (RFC 3465 2.2).
            bytes.min(self.window)
        } else {
            // RFC 5681 (3), spread over the window by bytes.
            let share = u64::from(mss) * u64::from(bytes) / u64::from(self.window.max(1));
            u32::try_from(share).unwrap_or(mss).min(mss).max(1)
        };
        self.window = self.window.saturating_add(growth).min(MAX_WINDOW);
    }

    /// Loss was found by duplicate acknowledgements (RFC 5681 (4), RFC 6675 5 (4.2)).
    pub(crate) fn on_fast_retransmit(&mut self, flight: u64, mss: u16) {
        self.halve(flight, mss);
        self.window = self.threshold;
    }

    /// The retransmission timer fired (RFC 5681 3.1): once per loss, `first` says whether the
    /// threshold is still to be set.
    pub(crate) fn on_timeout(&mut self, flight: u64, mss: u16, first: bool) {
        if first {
            self.halve(flight, mss);
        }
        self.window = u32::from(mss);
    }

    /// Nothing was sent for longer than a time-out (RFC 5681 4.1).
    pub(crate) fn on_idle_restart(&mut self, mss: u16) {
        self.window = self.window.min(INITIAL_SEGMENTS * u32::from(mss));
    }

    fn halve(&mut self, flight: u64, mss: u16) {
        let half = u32::try_from(flight / 2).unwrap_or(MAX_WINDOW);
        self.threshold = half.max(2 * u32::from(mss));
    }
}
