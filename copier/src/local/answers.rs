//! The target's answers, captured on this host.

use std::os::fd::BorrowedFd;

use millrace_capture::{RingStatistics, Tap};
use millrace_engine::{Engine, FlowRef, Time};
use millrace_wire::{Decoder, Verify};

/// Blocks taken from one ring before others get their turn.
const BLOCKS_IN_A_ROW: usize = 16;

/// Rings on the devices on which answers arrive.
pub struct Answers {
    taps: Vec<Tap>,
    decoder: Decoder,
}

impl Answers {
    /// Answers that these rings see.
    pub fn new(taps: Vec<Tap>) -> Self {
        Self {
            taps,
            decoder: Decoder::new(),
        }
    }

    /// Hands the engine what has come. Says whether there is more.
    pub fn take(&mut self, now: Time, engine: &mut Engine) -> bool {
        let mut more = false;
        for tap in &mut self.taps {
            more |= take_from(tap, &mut self.decoder, now, engine);
        }
        more
    }

    /// What to sleep on.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.taps.iter().filter_map(Tap::fd)
    }

    /// Has failed rings found.
    pub fn suspect(&mut self) {
        for tap in &mut self.taps {
            tap.suspect();
        }
    }

    /// What the rings counted, summed.
    pub fn statistics(&mut self) -> RingStatistics {
        let mut sum = RingStatistics::default();
        for tap in &mut self.taps {
            sum += tap.statistics();
        }
        sum
    }
}

fn take_from(tap: &mut Tap, decoder: &mut Decoder, now: Time, engine: &mut Engine) -> bool {
    for _ in 0..BLOCKS_IN_A_ROW {
        let Some((link, block)) = tap.next_block() else {
            return false;
        };
        for frame in &block {
            let length = frame.original_len as usize;
            let decoded =
                decoder.decode(frame.timestamp, link, frame.data, length, Verify::Nothing);
            if let Ok(packet) = decoded {
                // A frame in memory is shorter than 4 GB.
                let payload = packet.payload_len as u32;
                let flow = FlowRef::Tuple(packet.tuple.reversed());
                engine.target_header(now, flow, &packet.header, payload);
            }
        }
    }
    true
}
