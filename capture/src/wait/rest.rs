//! How a thread waits that works itself and serves streams besides: within its runtime, whose tasks go on meanwhile.
//!
//! One thread that does both hands a response on without waking another, which costs both hosts more than the response does.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use super::{MAX_SOURCES, Readiness, timespec};
use crate::sys::register::register;

/// How often the kernel is told of all sources: it forgets those that are closed, and their numbers are used again.
const TELL_AGAIN: Duration = Duration::from_millis(100);
/// What the timer is called among the sources.
const TIMER: u64 = u64::MAX;

/// What a thread waits with.
#[derive(Debug)]
pub struct Rest {
    /// All that is waited for: the runtime sees it as one, whatever comes and goes of it.
    epoll: AsyncFd<OwnedFd>,
    /// Tokio counts in milliseconds.
    timer: OwnedFd,
    /// When the timer ends, unless it has.
    armed: Option<Instant>,
    /// The sources as the kernel was told of them, and whether they are heeded; all of them at that time.
    told: Vec<(RawFd, bool)>,
    told_at: Instant,
}

impl Rest {
    /// Nothing is waited for yet.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Self {
            epoll: register(epoll)?,
            timer,
            armed: None,
            told: Vec::new(),
            told_at: Instant::now(),
        })
    }

    /// Lets the runtime's tasks go on until one of the sources is readable or has failed, or the time is over (to the
    /// microsecond). Of sources that are not `heeded` only failures count this time. May be dropped at any time.
    ///
    /// A source that is named as ready is not named again until more comes: it is to be read until it is empty. The sources
    /// of all calls are of one set, which shrinks only by those that were closed. One that is opened under the number of one
    /// that was closed may be waited for only a tenth of a second later.
    ///
    /// # Errors
    /// `InvalidInput` for more than [`MAX_SOURCES`] sources; else what `epoll_ctl(2)` says.
    pub async fn until(
        &mut self,
        sources: &[(BorrowedFd<'_>, bool)],
        timeout: Duration,
    ) -> io::Result<Readiness> {
        if sources.len() > MAX_SOURCES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let now = Instant::now();
        if now.saturating_duration_since(self.told_at) >= TELL_AGAIN {
            self.told.clear();
            self.told_at = now;
        }
        self.watch(sources)?;
        let deadline = now + timeout;
        self.set_timer(deadline)?;
        loop {
            let mut guard = self.epoll.readable().await?;
            // First, so that what comes from now on is not missed.
            guard.clear_ready();
            let (readiness, timer) = ready(self.epoll.get_ref(), sources.len())?;
            if timer {
                self.armed = None;
            }
            if !readiness.is_empty() {
                return Ok(readiness);
            }
            if timer {
                if Instant::now() >= deadline {
                    return Ok(readiness);
                }
                self.set_timer(deadline)?;
            }
        }
    }

    /// Tells the kernel what has changed of the sources.
    fn watch(&mut self, sources: &[(BorrowedFd<'_>, bool)]) -> io::Result<()> {
        self.told.truncate(sources.len());
        for (position, (source, heeded)) in sources.iter().enumerate() {
            let now = (source.as_raw_fd(), *heeded);
            if self.told.get(position) == Some(&now) {
                continue;
            }
            // What follows it is told anew if this fails.
            self.told.truncate(position);
            add(self.epoll.get_ref(), *source, position as u64, *heeded)?;
            self.told.push(now);
        }
        Ok(())
    }

    /// The timer ends by then; where it ends sooner already, it stays as it is.
    fn set_timer(&mut self, deadline: Instant) -> io::Result<()> {
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return Ok(());
        }
        // Zero would stop it.
        let left = deadline.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: timespec(left),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        self.armed = Some(deadline);
        Ok(())
    }
}

fn add(epoll: &OwnedFd, source: BorrowedFd<'_>, position: u64, heeded: bool) -> io::Result<()> {
    let data = EventData::new_u64(position);
    let flags = match heeded {
        true => EventFlags::IN,
        false => EventFlags::empty(),
    };
    match epoll::modify(epoll, source, data, flags) {
        // New, or opened anew under the number of one that was closed: the kernel has forgotten that one.
        Err(Errno::NOENT) => Ok(epoll::add(epoll, source, data, flags)?),
        other => Ok(other?),
    }
}

/// Which of so many sources are ready, and whether the timer has ended.
fn ready(epoll: &OwnedFd, sources: usize) -> io::Result<(Readiness, bool)> {
    let none = Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(TIMER),
    };
    let mut events = [none; MAX_SOURCES + 1];
    let found = epoll::wait(epoll, &mut events[..], Some(&Timespec::default()))?;
    let (mut readiness, mut timer) = (Readiness::default(), false);
    for event in events.iter().take(found) {
        // Copied: the kernel's layout is packed.
        let (flags, position) = (event.flags, event.data.u64());
        timer |= position == TIMER;
        let place = usize::try_from(position).unwrap_or(usize::MAX);
        if place < sources {
            let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
            readiness.note(place, flags.contains(EventFlags::IN), failed);
        }
    }
    Ok((readiness, timer))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use tokio::runtime::Builder;

    use super::*;
    use crate::Waker;

    fn in_runtime<T>(work: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(work)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn it_ends_for_a_source_that_is_heeded_and_names_it() {
        in_runtime(async {
            let mut rest = Rest::new().unwrap();
            let (one, two) = (Waker::new().unwrap(), Waker::new().unwrap());
            one.wake();
            two.wake();
            let sources = [(one.as_fd(), false), (two.as_fd(), true)];
            let ready = rest.until(&sources, LONG).await.unwrap();
            assert!(!ready.is_ready(0) && ready.is_ready(1));
            two.clear();
            let short = Duration::from_millis(2);
            let ready = rest.until(&sources, short).await.unwrap();
            assert!(ready.is_empty());
            let sources = [(one.as_fd(), true), (two.as_fd(), true)];
            let ready = rest.until(&sources, LONG).await.unwrap();
            assert!(ready.is_ready(0) && !ready.is_ready(1));
        });
    }

    #[test]
    fn tasks_go_on_and_other_threads_end_it() {
        in_runtime(async {
            let mut rest = Rest::new().unwrap();
            let waker = Waker::new().unwrap();
            let (of_task, of_thread) = (waker.clone(), waker.clone());
            let sources = [(waker.as_fd(), true)];
            tokio::spawn(async move { of_task.wake() });
            assert!(rest.until(&sources, LONG).await.unwrap().is_ready(0));
            waker.clear();
            let thread = std::thread::spawn(move || of_thread.wake());
            assert!(rest.until(&sources, LONG).await.unwrap().is_ready(0));
            thread.join().unwrap();
        });
    }

    #[test]
    fn the_time_is_exact_and_none_is_none() {
        in_runtime(async {
            let mut rest = Rest::new().unwrap();
            for micros in [0, 300, 1_700] {
                let (start, time) = (Instant::now(), Duration::from_micros(micros));
                assert!(rest.until(&[], time).await.unwrap().is_empty());
                assert!(start.elapsed() >= time);
            }
            // One whose time was over is forgotten.
            let waker = Waker::new().unwrap();
            rest.until(&[], Duration::ZERO).await.unwrap();
            waker.wake();
            let sources = [(waker.as_fd(), true)];
            assert!(rest.until(&sources, LONG).await.unwrap().is_ready(0));
        });
    }

    #[test]
    fn a_source_that_was_closed_is_followed_by_another_of_its_number() {
        in_runtime(async {
            let mut rest = Rest::new().unwrap();
            for _ in 0..3 {
                let waker = Waker::new().unwrap();
                waker.wake();
                let sources = [(waker.as_fd(), true)];
                // The last one's number is this one's.
                while !rest.until(&sources, TELL_AGAIN).await.unwrap().is_ready(0) {}
            }
        });
    }

    #[test]
    fn too_many_sources_are_refused() {
        in_runtime(async {
            let mut rest = Rest::new().unwrap();
            let waker = Waker::new().unwrap();
            let sources = [(waker.as_fd(), true); MAX_SOURCES + 1];
            assert!(rest.until(&sources, LONG).await.is_err());
        });
    }
}
