//! A mirror port: what passes one device of a host leaves another one too.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::error::Result;
use crate::frames::{self, Device};
use crate::host::{Host, move_this_thread};

/// The largest frame that is mirrored: jumbo frames with what a tunnel adds.
const LARGEST_FRAME: usize = 10_000;
/// How often the thread looks whether it is to end.
const IDLE: Duration = Duration::from_millis(50);

/// A mirror; it ends when it is dropped.
#[derive(Debug)]
pub struct Mirror {
    stopping: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Sends what `wrap` makes of each frame that passes the device `from`, both ways, from the device `to` of the same
    /// host. Neither may leave checksums or segmentation to the device behind it.
    ///
    /// # Errors
    /// When a device cannot be opened.
    pub fn start(
        host: &Host,
        from: &str,
        to: &str,
        wrap: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let (stopping, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (end, lost) = (Arc::clone(&stopping), Arc::clone(&refused));
        let (namespace, from, to) = (host.namespace().to_owned(), from.to_owned(), to.to_owned());
        let open = move || {
            move_this_thread(&namespace)?;
            Ok((Device::open(&from)?, Device::open(&to)?))
        };
        let work = move |(from, to): (Device, Device)| carry(&from, &to, wrap, &end, &lost);
        let thread = frames::start_thread("mirror", open, work)?;
        Ok(Self {
            stopping,
            refused,
            thread: Some(thread),
        })
    }

    /// Frames that could not be mirrored: the kernel did not take them.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Acquire)
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn carry(
    from: &Device,
    to: &Device,
    mut wrap: impl FnMut(&[u8]) -> Vec<Vec<u8>>,
    stopping: &AtomicBool,
    refused: &AtomicU64,
) {
    let mut buffer = vec![0; LARGEST_FRAME];
    let idle = Timespec {
        tv_sec: 0,
        tv_nsec: IDLE.as_nanos() as i64,
    };
    while !stopping.load(Ordering::Acquire) {
        loop {
            let length = match from.receive(&mut buffer) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                // The device is gone for good.
                Err(_) => return,
            };
            for frame in wrap(buffer.get(..length).unwrap_or_default()) {
                refused.fetch_add(u64::from(!to.send(&frame)), Ordering::Release);
            }
        }
        // In vain is as good as a time-out.
        let _ = poll(
            &mut [PollFd::new(&from.as_fd(), PollFlags::IN)],
            Some(&idle),
        );
    }
}
