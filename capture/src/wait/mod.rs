//! Sleeping until something is to be done: on a thread that has nothing else to do ([`wait`]), and on one that serves streams
//! besides ([`Rest`]).

mod rest;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

pub use rest::Rest;

/// How many sources one [`wait`] may watch.
pub const MAX_SOURCES: usize = 32;

/// Which sources of a [`wait`] have something to read (or an error to report).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Readiness {
    readable: u32,
    failed: u32,
}

impl Readiness {
    /// Whether the source at this position is readable, or has failed.
    pub fn is_ready(self, position: usize) -> bool {
        (self.readable | self.failed) & bit(position) != 0
    }

    /// Whether the source at this position reports an error: for a ring, see
    /// [`Ring::take_error`](crate::Ring::take_error).
    pub fn is_failed(self, position: usize) -> bool {
        self.failed & bit(position) != 0
    }

    /// Whether nothing is ready: the time-out is over.
    pub fn is_empty(self) -> bool {
        self.readable | self.failed == 0
    }

    fn note(&mut self, position: usize, readable: bool, failed: bool) {
        let bit = |wanted| if wanted { bit(position) } else { 0 };
        self.readable |= bit(readable);
        self.failed |= bit(failed);
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

fn bit(position: usize) -> u32 {
    u32::try_from(position)
        .ok()
        .and_then(|shift| 1u32.checked_shl(shift))
        .unwrap_or(0)
}

/// Sleeps until one of the sources (rings, wakers, any descriptor) is readable or the time-out is
/// over; `None` waits without end. A signal ends the wait early, with nothing ready.
///
/// The time-out has the precision of `ppoll(2)`, nanoseconds, less the system's timer slack.
///
/// # Errors
/// `InvalidInput` for more than [`MAX_SOURCES`] sources; else what `ppoll(2)` says.
pub fn wait(sources: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<Readiness> {
    if sources.len() > MAX_SOURCES {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let timeout = timeout.map(timespec);
    let Some(first) = sources.first() else {
        return match poll(&mut [], timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(Readiness::default()),
            Err(error) => Err(error.into()),
        };
    };
    // An array on the stack: this is called for every batch of packets.
    let mut fds: [PollFd<'_>; MAX_SOURCES] = std::array::from_fn(|i| {
        PollFd::from_borrowed_fd(*sources.get(i).unwrap_or(first), PollFlags::IN)
    });
    let watched = fds.get_mut(..sources.len()).unwrap_or_default();
    match poll(watched, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Readiness::default()),
        Err(error) => return Err(error.into()),
    }
    let mut readiness = Readiness::default();
    for (position, fd) in watched.iter().enumerate() {
        let events = fd.revents();
        let failures = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
        let failed = events.intersects(failures);
        readiness.note(position, events.contains(PollFlags::IN), failed);
    }
    Ok(readiness)
}

/// Ends the [`wait`] of another thread. Clones wake the same sleeper.
#[derive(Clone, Debug)]
pub struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    /// A new waker (an `eventfd(2)`).
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event: Arc::new(event),
        })
    }

    /// Makes the waker readable. Never blocks; wakes that are not yet seen add up to one.
    pub fn wake(&self) {
        // The only error is a counter that is full, and then the sleeper is woken anyway.
        let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
    }

    /// Makes the waker unreadable again: for the sleeper, before it looks at what it was woken for. Says whether it was.
    pub fn clear(&self) -> bool {
        // The only error is that nobody called `wake`.
        rustix::io::read(&self.event, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn another_thread_ends_the_wait() {
        let waker = Waker::new().unwrap();
        let quiet = Waker::new().unwrap();
        let remote = waker.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            remote.wake();
            remote.wake();
        });
        let sources = [quiet.as_fd(), waker.as_fd()];
        let ready = wait(&sources, Some(Duration::from_secs(10))).unwrap();
        assert!(!ready.is_ready(0) && ready.is_ready(1) && !ready.is_failed(1));
        thread.join().unwrap();
        waker.clear();
        assert!(wait(&sources, Some(Duration::ZERO)).unwrap().is_empty());
    }

    #[test]
    fn a_wait_ends_after_its_time() {
        let waker = Waker::new().unwrap();
        let start = Instant::now();
        let ready = wait(&[waker.as_fd()], Some(Duration::from_micros(1500))).unwrap();
        assert!(ready.is_empty());
        assert!(start.elapsed() >= Duration::from_micros(1500));
        assert!(
            wait(&[], Some(Duration::from_millis(1)))
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn too_many_sources_are_refused() {
        let waker = Waker::new().unwrap();
        let sources = vec![waker.as_fd(); MAX_SOURCES + 1];
        assert!(wait(&sources, Some(Duration::ZERO)).is_err());
    }
}
