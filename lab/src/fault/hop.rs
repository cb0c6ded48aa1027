//! The thread that carries frames between two devices and does to them what the faults say.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::Fault;
use super::line::Line;
use crate::error::{Doing, Error, Result};
use crate::frames::{self, Device};
use crate::host::move_this_thread;

/// The largest frame: 64 KB of IP behind an Ethernet header with two VLAN tags.
const LARGEST_FRAME: usize = 65_536 + 22;
/// Frames taken from one device before the other has its turn.
const BATCH: usize = 256;
/// How often the thread looks around when no frame comes.
const IDLE: Duration = Duration::from_millis(200);

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DirectionCounts {
    /// Packets that came in.
    pub packets: u64,
    /// Lost on purpose.
    pub lost: u64,
    /// Sent twice on purpose.
    pub duplicated: u64,
    /// Held back on purpose.
    pub reordered: u64,
    /// Lost against its will: refused by the kernel, too many waiting, or arrived faster than it could read.
    pub dropped_by_hop: u64,
}

/// What became of all packets of a hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// From the first device to the second: on a link of a lab, what came from the host.
    pub forth: DirectionCounts,
    /// From the second device to the first: on a link of a lab, what went to the host.
    pub back: DirectionCounts,
}

/// A running hop; it stops when dropped.
#[derive(Debug)]
pub struct Hop {
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    faults: Mutex<(Fault, Fault)>,
    counts: Mutex<Counts>,
    changed: AtomicBool,
    stopping: AtomicBool,
}

impl Hop {
    /// Starts one between two devices of a namespace (as `ip netns` lists it), without faults.
    ///
    /// # Errors
    /// When the namespace cannot be entered or a device cannot be opened.
    pub fn start(namespace: &str, first: &str, second: &str, seed: u64) -> Result<Self> {
        let (namespace, first, second) =
            (namespace.to_owned(), first.to_owned(), second.to_owned());
        Self::start_with(seed, move || {
            move_this_thread(&namespace)?;
            Ok((Device::open(&first)?, Device::open(&second)?))
        })
    }

    /// As [`Hop::start`], between two devices of the namespace that this process is in.
    ///
    /// # Errors
    /// When a device cannot be opened.
    pub fn start_here(first: &str, second: &str, seed: u64) -> Result<Self> {
        let (first, second) = (first.to_owned(), second.to_owned());
        Self::start_with(seed, move || {
            Ok((Device::open(&first)?, Device::open(&second)?))
        })
    }

    fn start_with(
        seed: u64,
        open: impl FnOnce() -> Result<(Device, Device)> + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            faults: Mutex::default(),
            counts: Mutex::default(),
            changed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        });
        let (wake, woken) =
            UnixStream::pair().doing(|| "making a hop's wake-up socket".to_owned())?;
        woken
            .set_nonblocking(true)
            .doing(|| "making a hop's wake-up socket".to_owned())?;
        let carried = Arc::clone(&shared);
        let work = move |(first, second)| Carrier::new(first, second, seed, carried, woken).run();
        let thread = frames::start_thread("hop", open, work)?;
        Ok(Self {
            shared,
            wake,
            thread: Some(thread),
        })
    }

    /// Changes what happens from now on, from the first to the second device and back.
    pub fn set(&self, forth: Fault, back: Fault) {
        *self.shared.faults.lock() = (forth, back);
        self.shared.changed.store(true, Ordering::Release);
        self.wake();
    }

    /// What it has counted, at most a fifth of a second ago.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.shared.counts.lock()
    }

    /// Stops it; what still waited is lost.
    #[must_use]
    pub fn stop(mut self) -> Counts {
        self.end();
        self.counts()
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }

    fn wake(&self) {
        // A full socket wakes as well as one more byte in it.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.end();
    }
}

/// All that the thread owns.
struct Carrier {
    first: Device,
    second: Device,
    forth: Line,
    back: Line,
    shared: Arc<Shared>,
    woken: UnixStream,
    /// What the kernel had counted on each device before.
    base: (u64, u64),
}

impl Carrier {
    fn new(
        first: Device,
        second: Device,
        seed: u64,
        shared: Arc<Shared>,
        woken: UnixStream,
    ) -> Self {
        let base = (first.received_by_kernel(), second.received_by_kernel());
        Self {
            first,
            second,
            forth: Line::new(seed),
            back: Line::new(!seed),
            shared,
            woken,
            base,
        }
    }

    fn run(mut self) {
        let mut buffer = vec![0; LARGEST_FRAME];
        let mut published = Instant::now();
        while !self.shared.stopping.load(Ordering::Acquire) {
            if self.shared.changed.swap(false, Ordering::AcqRel) {
                let faults = *self.shared.faults.lock();
                self.forth.set(faults.0);
                self.back.set(faults.1);
            }
            let forth = carry(&self.first, &self.second, &mut self.forth, &mut buffer);
            let back = carry(&self.second, &self.first, &mut self.back, &mut buffer);
            let (Ok(forth), Ok(back)) = (forth, back) else {
                // The devices are gone: the lab is being taken down.
                break;
            };
            if published.elapsed() >= IDLE / 2 {
                self.publish();
                published = Instant::now();
            }
            if !forth && !back && self.wait().is_err() {
                break;
            }
        }
        self.count_missed();
        self.publish();
    }

    /// Compares with the kernel's own count, once, after all that waited has been read.
    fn count_missed(&mut self) {
        let mut scrap = [0; 64];
        let mut unread = (0, 0);
        while matches!(self.first.receive(&mut scrap), Ok(Some(_))) {
            unread.0 += 1;
        }
        while matches!(self.second.receive(&mut scrap), Ok(Some(_))) {
            unread.1 += 1;
        }
        let missed = |device: &Device, base: u64, unread: u64, line: &Line| {
            let seen = line.counts().packets + unread;
            device
                .received_by_kernel()
                .saturating_sub(base)
                .saturating_sub(seen)
        };
        let forth = missed(&self.first, self.base.0, unread.0, &self.forth);
        let back = missed(&self.second, self.base.1, unread.1, &self.back);
        self.forth.missed(forth);
        self.back.missed(back);
    }

    /// Until a frame comes, a waiting one is due, or somebody calls.
    fn wait(&mut self) -> Result<()> {
        let now = Instant::now();
        let due = [self.forth.next_due(), self.back.next_due()]
            .into_iter()
            .flatten()
            .min();
        let idle = due.map_or(IDLE, |due| due.saturating_duration_since(now).min(IDLE));
        let timeout = Timespec::try_from(idle)
            .map_err(|_| Error::Unsupported("a wait too long for the kernel".to_owned()))?;
        let mut descriptors = [
            PollFd::new(&self.first, PollFlags::IN),
            PollFd::new(&self.second, PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).doing(|| "waiting for frames".to_owned()),
        }
        // Empties the wake-up socket; it may as well hold nothing.
        let mut scrap = [0; 16];
        let _ = std::io::Read::read(&mut &self.woken, &mut scrap);
        Ok(())
    }

    fn publish(&mut self) {
        let counts = Counts {
            forth: self.forth.counts(),
            back: self.back.counts(),
        };
        *self.shared.counts.lock() = counts;
    }
}

/// Moves one batch in one direction; whether there may be more.
fn carry(from: &Device, to: &Device, line: &mut Line, buffer: &mut [u8]) -> Result<bool> {
    let now = Instant::now();
    while let Some(frame) = line.poll(now) {
        if !to.send(&frame) {
            line.send_failed();
        }
    }
    for _ in 0..BATCH {
        let Some(length) = from.receive(buffer)? else {
            return Ok(false);
        };
        let Some(frame) = buffer.get(..length) else {
            continue;
        };
        // Not the time before it was read: this thread may have stood still, and a delay would be too short.
        for _ in 0..line.arrive(Instant::now(), frame) {
            if !to.send(frame) {
                line.send_failed();
            }
        }
    }
    Ok(true)
}
