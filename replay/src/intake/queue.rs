//! Batches that wait for the shard, bounded in bytes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use millrace_capture::Waker;
use parking_lot::{Mutex, MutexGuard};

use super::{Batch, Counts};
use crate::whereabouts::News;

/// This part of the limit is the queue's however much memory the shard needs: what it takes in may
/// be what frees memory.
const LEAST_PARTS: u64 = 8;
/// Batches that are kept to be used again.
const SPARE: usize = 4;
/// Older than this no packet is when it comes here, unless the host's clock was set meanwhile: a thread that is kept from
/// running for longer is behind by more than gathering.
const LONGEST_GATHERING: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Batch>,
    bytes: u64,
    /// What the shard needs of the limit.
    memory: u64,
    spare: Vec<Batch>,
    counts: Counts,
    /// What the reader has not heard yet of where live services are.
    news: Vec<News>,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    limit: u64,
    for_shard: Waker,
    for_reader: Waker,
}

impl Queue {
    /// An empty queue for so many bytes; the shard, which takes from it, and the reader, which fills it, sleep on these.
    pub(super) fn new(limit: u64, for_shard: Waker, for_reader: Waker) -> Self {
        Self {
            state: Mutex::default(),
            limit,
            for_shard,
            for_reader,
        }
    }

    /// What becomes readable when the reader is told something; to be cleared before it is looked at.
    pub(super) const fn for_reader(&self) -> &Waker {
        &self.for_reader
    }

    /// Tells the reader where live services are. Of what is told twice the last holds.
    pub(super) fn put_news(&self, news: News) {
        let mut state = self.lock();
        let kind = std::mem::discriminant(&news);
        state.news.retain(|it| std::mem::discriminant(it) != kind);
        state.news.push(news);
        drop(state);
        self.for_reader.wake();
    }

    /// What the reader has not heard yet.
    pub(super) fn take_news(&self) -> Vec<News> {
        std::mem::take(&mut self.lock().news)
    }

    /// Whether another batch must wait where it is.
    pub(super) fn is_full(&self) -> bool {
        let state = self.lock();
        let room = self.limit.saturating_sub(state.memory);
        state.bytes >= room.max(self.limit / LEAST_PARTS)
    }

    /// Puts a batch in, and an empty one in its place.
    pub(super) fn put(&self, batch: &mut Batch) {
        let mut state = self.lock();
        let empty = state.spare.pop().unwrap_or_default();
        let mut full = std::mem::replace(batch, empty);
        let now = Instant::now();
        full.captured_at = now.checked_sub(full.age(LONGEST_GATHERING)).or(Some(now));
        state.bytes += full.size() as u64;
        state.batches.push_back(full);
        let was_empty = state.batches.len() == 1;
        drop(state);
        if was_empty {
            self.for_shard.wake();
        }
    }

    /// Takes the oldest batch in place of `done`. Says whether there was one.
    pub(super) fn take(&self, done: &mut Batch) -> bool {
        done.clear();
        let mut state = self.lock();
        let Some(batch) = state.batches.pop_front() else {
            return false;
        };
        state.bytes = state.bytes.saturating_sub(batch.size() as u64);
        let done = std::mem::replace(done, batch);
        if state.spare.len() < SPARE {
            state.spare.push(done);
        }
        true
    }

    /// Whether any batch waits.
    pub(super) fn has_more(&self) -> bool {
        !self.lock().batches.is_empty()
    }

    pub(super) fn note_memory(&self, bytes: u64) {
        self.lock().memory = bytes;
    }

    pub(super) fn waiting(&self) -> u64 {
        self.lock().bytes
    }

    pub(super) fn set_counts(&self, counts: Counts) {
        self.lock().counts = counts;
    }

    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// Nobody takes anything any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.for_reader.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reader_is_told_ends_its_sleep() {
        let waker = || Waker::new().unwrap();
        let queue = Queue::new(1000, waker(), waker());
        let is_told = || queue.for_reader().clear();
        assert!(!is_told());
        queue.put_news(News::Host(Vec::new()));
        assert!(is_told());
        assert_eq!(queue.take_news().len(), 1);
        assert!(!is_told());
        queue.close();
        assert!(is_told());
        assert!(queue.is_closed());
    }
}
