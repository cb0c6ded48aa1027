//! The target's answers, captured on this host.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use millrace_capture::{RingStatistics, Tap};
use millrace_engine::{Engine, FlowRef, Time};
use millrace_wire::{Decoder, Verify};

use super::setup::Local;

/// Frames taken from one ring before others get their turn.
const FRAMES_IN_A_ROW: usize = 1024;
/// How often it is looked whether what was set up is still there: a system call.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// Rings on the devices on which answers arrive.
pub struct Answers {
    taps: Vec<Tap>,
    decoder: Decoder,
    local: Local,
    check_at: Time,
    lost: bool,
}

impl Answers {
    /// Answers that these rings see, as long as what was set up is there.
    pub(super) fn new(taps: Vec<Tap>, local: Local) -> Self {
        Self {
            taps,
            decoder: Decoder::new(),
            local,
            check_at: Time::from_micros(0),
            lost: false,
        }
    }

    /// Whether this host's own TCP gets the answers too, so that nothing may be sent any more.
    pub(crate) const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Hands the engine what has come. Says whether there is more.
    pub(crate) fn take(&mut self, now: Time, engine: &mut Engine) -> bool {
        if now >= self.check_at {
            self.check_at = now + CHECK_INTERVAL;
            if let Err(error) = self.local.check() {
                tracing::error!("{error}");
                self.lost = true;
            }
        }
        let mut more = false;
        for tap in &mut self.taps {
            more |= take_from(tap, &mut self.decoder, now, engine);
        }
        more
    }

    /// What to sleep on.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.taps.iter().filter_map(Tap::fd)
    }

    /// Has failed rings found.
    pub(crate) fn suspect(&mut self) {
        for tap in &mut self.taps {
            tap.suspect();
        }
    }

    /// What the rings counted, summed.
    pub(crate) fn statistics(&mut self) -> RingStatistics {
        let mut sum = RingStatistics::default();
        for tap in &mut self.taps {
            sum += tap.statistics();
        }
        sum
    }
}

fn take_from(tap: &mut Tap, decoder: &mut Decoder, now: Time, engine: &mut Engine) -> bool {
    let taken = tap.read(FRAMES_IN_A_ROW, |link, frame| {
        let length = frame.original_len as usize;
        let decoded = decoder.decode(frame.timestamp, link, frame.data, length, Verify::Nothing);
        if let Ok(packet) = decoded {
            // A frame in memory is shorter than 4 GB.
            let len = packet.payload_len as u32;
            let flow = FlowRef::Tuple(packet.tuple.reversed());
            engine.target_segment(now, flow, &packet.header, packet.payload, len);
        }
    });
    taken == FRAMES_IN_A_ROW
}
