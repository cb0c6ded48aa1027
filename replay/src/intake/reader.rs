//! The thread that empties the ring.

use std::iter;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use millrace_capture::{
    CaptureError, Census, Filter, FilterSpec, Pace, Tap, sleep_precisely, wait,
};
use millrace_daemon::service_manager::Heart;
use millrace_wire::{Decoder, Flags, Tunnels, Verify};

use super::queue::Queue;
use super::{Batch, Counts};
use crate::whereabouts::News;

/// Frames in one batch, at most.
const FRAMES_IN_A_BATCH: usize = 512;
/// Packets that come soon after others are gathered for this long: what wakes two threads costs the live server more than the
/// packet does. (What targets answer is not gathered here: a turn may wait for it.)
const GATHER: Duration = Duration::from_millis(1);
/// Where so many were gathered, more may come than a small ring holds: it is emptied sooner.
const MANY: usize = FRAMES_IN_A_BATCH / 8;
const GATHER_MANY: Duration = Duration::from_micros(250);
/// How long the ring is left alone while the queue is full.
const FULL: Duration = Duration::from_millis(1);
/// Longest sleep, so that devices that come back are noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(250);
/// How often counters are shown while packets come, and how soon after the last.
const SHOW_INTERVAL: Duration = Duration::from_millis(50);

/// Starts the thread.
pub(super) fn start(
    tap: Tap,
    census: Option<Census>,
    tunnels: Tunnels,
    queue: Arc<Queue>,
    heart: Heart,
) -> std::io::Result<JoinHandle<()>> {
    let reader = Reader {
        tap,
        queue,
        decoder: Decoder::with_tunnels(tunnels),
        show_at: Instant::now(),
        is_shown: false,
        syns: Syns::new(census),
        heart,
    };
    Builder::new()
        .name("capture".to_owned())
        .spawn(move || reader.run())
}

struct Reader {
    tap: Tap,
    queue: Arc<Queue>,
    decoder: Decoder,
    show_at: Instant,
    /// Whether all that was counted is shown.
    is_shown: bool,
    syns: Syns,
    heart: Heart,
}

impl Reader {
    fn run(mut self) {
        sleep_precisely();
        let mut batch = Batch::default();
        let mut pace = Pace::default();
        while !self.queue.is_closed() {
            self.show();
            if self.queue.is_full() {
                sleep(FULL);
                continue;
            }
            let taken = self.fill(&mut batch);
            self.is_shown &= taken == 0;
            if !batch.is_empty() {
                self.queue.put(&mut batch);
            }
            if taken == FRAMES_IN_A_BATCH {
                continue;
            }
            let now = Instant::now();
            if taken > 0 {
                pace.looked(now);
            }
            let window = if taken < MANY { GATHER } else { GATHER_MANY };
            match pace.rest(now, window) {
                Some(rest) => sleep(rest),
                None => {
                    self.is_shown &= !self.syns.compare();
                    self.sleep();
                }
            }
        }
        self.show_now();
    }

    /// Takes in what has come, as much as fits a batch; gives the number of frames.
    fn fill(&mut self, batch: &mut Batch) -> usize {
        let Self {
            decoder, syns, tap, ..
        } = self;
        tap.read(FRAMES_IN_A_BATCH, |link, frame| {
            let verify = match frame.checksum_settled {
                true => Verify::Nothing,
                false => Verify::Checksum,
            };
            let wire_len = frame.original_len as usize;
            let decoded = decoder.decode(frame.timestamp, link, frame.data, wire_len, verify);
            if let Ok(packet) = decoded {
                syns.see(packet.header.flags);
                batch.push(frame, &packet);
            }
        })
    }

    fn sleep(&mut self) {
        let longest = match self.is_shown {
            true => LONGEST_SLEEP,
            false => self.show_at.saturating_duration_since(Instant::now()),
        };
        let told = self.queue.for_reader();
        let fds: Vec<BorrowedFd<'_>> = iter::once(told.as_fd()).chain(self.tap.fd()).collect();
        match wait(&fds, Some(longest)) {
            Ok(readiness) => {
                if readiness.is_ready(0) {
                    told.clear();
                    self.show_at = Instant::now();
                }
                if readiness.is_failed(1) {
                    self.tap.suspect();
                }
            }
            Err(error) => {
                tracing::error!("cannot wait for packets: {error}");
                sleep(LONGEST_SLEEP);
            }
        }
    }

    fn show(&mut self) {
        let now = Instant::now();
        if now >= self.show_at {
            self.show_at = now + SHOW_INTERVAL;
            self.is_shown = true;
            self.heart.beat();
            // A ring that fails while packets keep this thread from sleeping is found here.
            self.tap.suspect();
            for news in self.queue.take_news() {
                self.follow(news);
            }
            self.show_now();
        }
    }

    /// Captures live services where they are now.
    fn follow(&mut self, news: News) {
        let warn = |error: &CaptureError| {
            tracing::warn!("live services may not be captured where they are now: {error}");
        };
        if let News::Followed(followed) = &news {
            let of_ring = self.tap.set_devices(followed.devices.clone());
            let set = of_ring.and_then(|()| self.syns.set_devices(&followed.devices));
            // One that has gone meanwhile is no reason to leave the others out.
            set.unwrap_or_else(|error| warn(&error));
        }
        // An operator's own expression stays as it is.
        let Filter::Services(before) = self.tap.filter() else {
            return;
        };
        let mut spec = before.clone();
        match news {
            News::Host(addresses) => spec.local_addresses = addresses,
            News::Followed(followed) => {
                spec.services = followed.services;
                spec.whole_services = followed.whole_services;
            }
        }
        if spec == *before {
            return;
        }
        let set = self.set_filter(spec.clone()).or_else(|error| {
            // The shard knows the addresses, too: more packets than are wanted cost time, and nothing else.
            tracing::info!("live ports are captured whatever their addresses: {error}");
            self.set_filter(spec.of_any_address())
        });
        set.unwrap_or_else(|error| warn(&error));
    }

    fn set_filter(&mut self, spec: FilterSpec) -> Result<(), CaptureError> {
        self.tap.set_filter(Filter::Services(spec.clone()))?;
        self.syns.follow(spec)
    }

    fn show_now(&mut self) {
        self.syns.ask();
        let ring = self.tap.statistics();
        self.queue.set_counts(Counts {
            // Those with a wrong checksum were not seen either, but nothing was lost with them.
            syns_lost: self.syns.lost.min(ring.dropped),
            ring,
            decode: self.decoder.counters(),
            eighths_full: self.tap.eighths_full(),
        });
    }
}

/// Clients' SYNs that passed, and those that capture has seen.
struct Syns {
    census: Option<Census>,
    seen: u64,
    /// What the census said when it was asked last.
    passed: u64,
    lost: u64,
}

impl Syns {
    const fn new(census: Option<Census>) -> Self {
        Self {
            census,
            seen: 0,
            passed: 0,
            lost: 0,
        }
    }

    fn follow(&mut self, spec: FilterSpec) -> Result<(), CaptureError> {
        match &mut self.census {
            Some(census) => census.set_filter(&Filter::Connects(spec)),
            None => Ok(()),
        }
    }

    fn set_devices(&mut self, names: &[String]) -> Result<(), CaptureError> {
        match &mut self.census {
            Some(census) => census.set_devices(names),
            None => Ok(()),
        }
    }

    fn see(&mut self, flags: Flags) {
        self.seen += u64::from(flags.has(Flags::SYN) && !flags.has(Flags::ACK));
    }

    fn ask(&mut self) {
        match self.census.as_mut().map(Census::count) {
            Some(Ok(passed)) => self.passed = passed,
            Some(Err(error)) => {
                tracing::warn!("connections that capture loses are not counted any more: {error}");
                self.census = None;
            }
            None => {}
        }
    }

    /// The ring is empty: what passed before the census was asked was either seen or lost. Says whether more was lost than was
    /// known.
    fn compare(&mut self) -> bool {
        let known = self.lost;
        self.lost = known.max(self.passed.saturating_sub(self.seen));
        self.lost > known
    }
}
