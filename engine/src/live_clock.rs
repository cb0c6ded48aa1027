//! The clock of the live side: the present where traffic is captured as it happens, the time that packets bear where a
//! recording is replayed.

use std::time::Duration;

use millrace_wire::Endpoint;

use crate::recorded::{Recorded, RecordedClock};
use crate::time::Time;
use crate::turns::Waited;

/// Recorders of the two directions are further apart by mistake; what one ring captures is hardly apart at all.
const MOST_AHEAD: Duration = Duration::from_secs(600);
const MOST_AHEAD_LIVE: Duration = Duration::from_secs(1);

/// What time it is on the live side, and how far what is captured there lies apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveClock {
    /// How the recording is replayed, if it is one.
    recorded: Option<Recorded>,
    /// How far it was taken in.
    progress: RecordedClock,
    /// By how much acknowledgements of the live server were captured before what they acknowledge, at most.
    ahead: Duration,
    /// How long ago what is taken in was due.
    waited: Duration,
}

impl LiveClock {
    pub(crate) fn new(recorded: Option<Recorded>) -> Self {
        Self {
            recorded,
            progress: RecordedClock::default(),
            ahead: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    /// Whether the live side is a recording: it waits for whoever reads it.
    #[inline]
    pub(crate) const fn is_recorded(&self) -> bool {
        self.recorded.is_some()
    }

    /// A segment was captured at this time; gives when that was on this clock.
    #[inline]
    pub(crate) fn see(&mut self, now: Time, at: Time) -> Time {
        match self.recorded {
            Some(_) => self.progress.meet(at),
            None => at.min(now),
        }
    }

    /// The present on the live side.
    #[inline]
    pub(crate) const fn now(&self, now: Time) -> Time {
        match self.recorded {
            Some(_) => self.progress.now(),
            None => now,
        }
    }

    /// A replica's think time for that of its client, both in microseconds.
    #[inline]
    pub(crate) fn think(&self, micros: u32) -> u32 {
        self.recorded
            .map_or(micros, |recorded| recorded.think(micros))
    }

    /// What is taken in was due so long ago.
    pub(crate) const fn set_waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// How long ago what is taken in was due.
    #[inline]
    pub(crate) fn waited(&self) -> Waited {
        Waited::new(self.waited)
    }

    /// The live server's acknowledgement was captured so long before what it acknowledges.
    pub(crate) fn note_ahead(&mut self, ahead: Duration) {
        let most = match self.recorded {
            Some(_) => MOST_AHEAD,
            None => MOST_AHEAD_LIVE,
        };
        self.ahead = self.ahead.max(ahead.min(most));
    }

    /// How long what is missing is waited for, where it would be waited for `grace` if both directions were captured at
    /// once.
    #[inline]
    pub(crate) fn grace(&self, grace: Duration) -> Duration {
        grace + 2 * self.ahead
    }

    /// The recording ends here; what follows is another round.
    pub(crate) const fn end_round(&mut self) {
        self.progress.end_round();
    }

    /// Nothing follows what was taken in of the recording.
    pub(crate) const fn is_over(&self) -> bool {
        self.progress.over
    }

    /// A client as its replicas are to seem in this round of the recording.
    pub(crate) const fn in_this_round(&self, client: Endpoint) -> Endpoint {
        self.progress.in_this_round(client)
    }
}
