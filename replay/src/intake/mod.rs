//! Capture apart from the rest: a thread that does nothing but empty the ring.
//!
//! What capture drops is lost for good, while everything else can wait. So the reader decodes
//! packets as they come, and hands them to the shard in batches, through a queue that is bounded
//! in bytes. When the queue is full, packets stay in the ring; only when that is full too, the
//! kernel drops some, and counts them.
//!
//! - `batch`: packets, decoded, with their payload.
//! - `queue`: what waits for the shard.
//! - `reader`: the thread.

mod batch;
mod queue;
mod reader;

use std::sync::Arc;

use millrace_capture::{Census, RingStatistics, Tap, Waker};
use millrace_daemon::exit::ExitError;
use millrace_daemon::service_manager::Heart;
use millrace_wire::{DecodeCounters, Tunnels};

pub(crate) use batch::Batch;
use queue::Queue;

use crate::whereabouts::News;

/// What the reader has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// By the kernel.
    pub(crate) ring: RingStatistics,
    /// By the decoder.
    pub(crate) decode: DecodeCounters,
    /// SYNs of clients that passed and were not captured.
    pub(crate) syns_lost: u64,
    /// How many eighths of the ring's slots were full when they were looked at.
    pub(crate) eighths_full: usize,
}

/// The shard's end of the queue. When it goes, the reader ends.
#[derive(Debug)]
pub struct Intake {
    queue: Arc<Queue>,
    waker: Waker,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Intake {
    /// Starts the reader; the census counts SYNs to the live services, and these tunnels are looked into. At most
    /// `limit` bytes wait for the shard, which keeps less of them while it needs memory itself. The heart shows that
    /// the reader lives.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        tap: Tap,
        census: Option<Census>,
        tunnels: Tunnels,
        limit: u64,
        heart: Heart,
    ) -> Result<Self, ExitError> {
        let waker =
            || Waker::new().map_err(|error| ExitError::caused("cannot make a waker", &error));
        let (waker, for_reader) = (waker()?, waker()?);
        let queue = Arc::new(Queue::new(limit, waker.clone(), for_reader));
        let thread = reader::start(tap, census, tunnels, queue.clone(), heart)
            .map_err(|error| ExitError::caused("cannot start the capture thread", &error))?;
        Ok(Self {
            queue,
            waker,
            thread: Some(thread),
        })
    }

    /// The next batch, oldest first, in place of `done`, which is used again.
    pub(crate) fn next(&self, done: &mut Batch) -> bool {
        self.queue.take(done)
    }

    /// What becomes readable when a batch has come; to be cleared before the queue is looked at.
    pub(crate) const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// From now on live services are captured where this says.
    pub(crate) fn follow(&self, news: News) {
        self.queue.put_news(news);
    }

    /// Says how much of the limit the shard uses itself, in bytes.
    pub(crate) fn note_memory(&self, bytes: u64) {
        self.queue.note_memory(bytes);
    }

    /// Whether any batch waits.
    pub(crate) fn has_more(&self) -> bool {
        self.queue.has_more()
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> u64 {
        self.queue.waiting()
    }

    /// What was counted.
    pub(crate) fn counts(&self) -> Counts {
        self.queue.counts()
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // It has nothing to say that was not logged.
            let _ = thread.join();
        }
    }
}
