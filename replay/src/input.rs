//! Where the sessions come from: capture rings, or a recording.
//!
//! What rings capture cannot wait: it is taken in before anything else. A recording can: of it the engine gets what is due
//! once the answers that have come are taken in, since these make room for more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_capture::{Pace, Waker};
use millrace_engine::{Engine, Time};
use millrace_pilot::Mode;
use millrace_recordings::feed::{Feed, Step};
use millrace_recordings::recording::Recording;
use millrace_wire::NotTcp;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::intake::{Batch, Counts, Intake};
use crate::pressure::{Load, process_cpu_time};
use crate::whereabouts::News;

/// What was captured is taken in before sessions are refused: until nothing was found so many times, this far apart, and for
/// no longer than this.
const QUIET_LOOKS: u32 = 4;
const LOOK_AGAIN: Duration = Duration::from_millis(4);
const LONGEST_CATCH_UP: Duration = Duration::from_secs(2);

/// Bytes of payload in a batch from which on it is bulk.
const BULK: usize = 32 << 10;

/// What rings capture is decoded on their own thread, which keeps no account by kind.
static NONE: BTreeMap<NotTcp, u64> = BTreeMap::new();

/// Where the sessions come from.
pub enum Input {
    /// What is captured on the devices that carry the live services.
    Rings(Rings),
    /// A recording in its place.
    Recording(Box<Playback>),
}

/// The shard's end of the capture thread.
pub struct Rings {
    intake: Intake,
    batch: Batch,
    /// How long the last batch of captured packets had waited.
    lag: Duration,
    /// Whether the last one that came was bulk.
    is_bulk: bool,
}

/// A recording on its way to the engine.
pub struct Playback {
    feed: Feed,
    /// When its next packet is due.
    due: Time,
}

impl Input {
    /// What these rings capture.
    pub fn rings(intake: Intake) -> Self {
        Self::Rings(Rings {
            intake,
            batch: Batch::default(),
            lag: Duration::ZERO,
            is_bulk: false,
        })
    }

    /// This recording.
    pub fn recording(feed: Feed) -> Self {
        let due = Time::NEVER;
        Self::Recording(Box::new(Playback { feed, due }))
    }

    /// Hands the engine a batch of captured packets. Says whether there was one.
    pub(crate) fn capture(&mut self, clock: &Clock, engine: &mut Engine, pace: &mut Pace) -> bool {
        match self {
            Self::Rings(rings) => rings.capture(clock, engine, pace),
            Self::Recording(_) => false,
        }
    }

    /// Whether more captured packets wait.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Rings(rings) => rings.intake.has_more(),
            Self::Recording(_) => false,
        }
    }

    /// Whether what was captured last is more than should wait: payload that has left the processor's nearest caches by the time
    /// it is taken in costs more than a look does.
    pub(crate) fn is_bulk(&self) -> bool {
        match self {
            Self::Rings(rings) => rings.is_bulk,
            Self::Recording(_) => false,
        }
    }

    /// Hands the engine what is due of a recording. Says whether there is more.
    pub(crate) fn feed(&mut self, now: Time, engine: &mut Engine, mode: Mode) -> bool {
        match self {
            Self::Rings(_) => false,
            Self::Recording(playback) => playback.feed(now, engine, mode),
        }
    }

    /// Takes in what waits in the queue now.
    pub(crate) async fn take_waiting(
        &mut self,
        clock: &Clock,
        engine: &mut Engine,
        pace: &mut Pace,
    ) {
        let Self::Rings(rings) = self else {
            return;
        };
        let deadline = Instant::now() + LONGEST_CATCH_UP;
        while rings.capture(clock, engine, pace) && Instant::now() < deadline {
            // The links go on.
            yield_now().await;
        }
    }

    /// Takes in what was captured until now: connections that began before the end was asked for are not new ones.
    pub(crate) async fn catch_up(&mut self, clock: &Clock, engine: &mut Engine, pace: &mut Pace) {
        let Self::Rings(rings) = self else {
            return;
        };
        let deadline = Instant::now() + LONGEST_CATCH_UP;
        let mut quiet = 0;
        while quiet < QUIET_LOOKS && Instant::now() < deadline {
            if rings.capture(clock, engine, pace) {
                quiet = 0;
                yield_now().await;
            } else {
                quiet += 1;
                sleep(LOOK_AGAIN).await;
            }
        }
    }

    /// Takes nothing more of a recording.
    pub(crate) fn interrupt(&mut self, now: Time, engine: &mut Engine) {
        match self {
            Self::Rings(_) => {}
            Self::Recording(playback) => playback.feed.interrupt(now, engine),
        }
    }

    /// Whether it has an end, and all that came of it is over.
    pub(crate) fn is_finished(&mut self, now: Time, engine: &Engine) -> bool {
        match self {
            Self::Rings(_) => false,
            Self::Recording(playback) => playback.feed.is_finished(now, engine),
        }
    }

    /// When there is more by the clock alone.
    pub(crate) const fn due(&self) -> Time {
        match self {
            Self::Rings(_) => Time::NEVER,
            Self::Recording(playback) => playback.due,
        }
    }

    /// What tells of captured packets. (The reader of a recording wakes the shard itself.)
    pub(crate) const fn waker(&self) -> Option<&Waker> {
        match self {
            Self::Rings(rings) => Some(rings.intake.waker()),
            Self::Recording(_) => None,
        }
    }

    /// From now on live services are captured here.
    pub(crate) fn follow(&self, news: &News) {
        match self {
            Self::Rings(rings) => rings.intake.follow(news.clone()),
            Self::Recording(_) => {}
        }
    }

    /// What presses, where it cannot wait, while the engine uses this `memory`.
    pub(crate) fn load(&self, memory: u64) -> Option<Load> {
        match self {
            Self::Rings(rings) => Some(rings.load(memory)),
            Self::Recording(_) => None,
        }
    }

    /// What was counted on the way.
    pub(crate) fn counts(&self) -> Counts {
        match self {
            Self::Rings(rings) => rings.intake.counts(),
            Self::Recording(playback) => Counts {
                decode: playback.feed.decoder().counters(),
                ..Counts::default()
            },
        }
    }

    /// What was met that is not TCP, of a recording.
    pub(crate) fn others(&self) -> &BTreeMap<NotTcp, u64> {
        match self {
            Self::Rings(_) => &NONE,
            Self::Recording(playback) => playback.feed.decoder().others(),
        }
    }

    /// What a report says of a recording.
    pub(crate) fn figures(&self) -> Option<Recording> {
        match self {
            Self::Rings(_) => None,
            Self::Recording(playback) => Some(playback.feed.recording()),
        }
    }

    /// Leaves the terminal, on which a recording shows how far it is, as it was.
    pub(crate) fn end_show(&mut self) {
        match self {
            Self::Rings(_) => {}
            Self::Recording(playback) => playback.feed.end_show(),
        }
    }
}

impl Rings {
    fn capture(&mut self, clock: &Clock, engine: &mut Engine, pace: &mut Pace) -> bool {
        if !self.intake.next(&mut self.batch) {
            self.lag = Duration::ZERO;
            return false;
        }
        pace.looked(Instant::now());
        self.lag = self.batch.waited();
        self.is_bulk = self.batch.payload_len() >= BULK;
        engine.set_waited(self.lag);
        let now = clock.now();
        for captured in self.batch.packets() {
            let at = Clock::stamp(now, captured.timestamp);
            engine.segment_with(now, at, &captured.packet, captured.payload);
        }
        true
    }

    fn load(&self, memory: u64) -> Load {
        let counts = self.intake.counts();
        self.intake.note_memory(memory);
        Load {
            lag: self.lag,
            memory: memory + self.intake.waiting(),
            ring_eighths: counts.eighths_full,
            dropped: counts.ring.dropped,
            cpu: process_cpu_time(),
        }
    }
}

impl Playback {
    fn feed(&mut self, now: Time, engine: &mut Engine, mode: Mode) -> bool {
        let step = self.feed.step(now, engine, mode);
        self.feed.show(engine);
        self.due = match step {
            Step::At(time) => time,
            Step::More | Step::Reading | Step::Waiting | Step::Over => Time::NEVER,
        };
        step == Step::More
    }
}
