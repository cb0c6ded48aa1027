//! A link as an operator sees it: at /status and in metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::queue::Sent;
use super::{Epoch, LinkConfig};
use parking_lot::Mutex;

/// The state of one link. Counts are since the process started.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct LinkStatus {
    /// Where the interceptor is.
    pub address: String,
    /// Number of the link.
    pub link: u32,
    /// Whether the stream is open.
    pub connected: bool,
    /// Seconds since the stream opened, or since it was lost.
    pub since_seconds: u64,
    /// The interceptor's name, once known.
    pub interceptor_id: String,
    /// The epoch now, or the last one; 0 before the first.
    pub epoch: Epoch,
    /// Attempts to connect.
    pub attempts: u64,
    /// Why the stream was last lost or could not be opened; empty if never.
    pub last_error: String,
    /// Round trip of the last Ping. Microseconds.
    pub rtt_us: u64,
    /// Messages sent.
    pub messages_out: u64,
    /// Messages received.
    pub messages_in: u64,
    /// Bytes of packed records and ids sent.
    pub bytes_out: u64,
    /// Bytes of packed records received.
    pub bytes_in: u64,
    /// Response headers received.
    pub headers_in: u64,
    /// Response headers that the interceptor dropped because this side read too slowly.
    pub headers_dropped: u64,
    /// Copies that were connected by answers that came over this link: those that the interceptor's real server got, or
    /// those behind its assistant.
    pub copies_connected: u64,
    /// Bytes that wait to be sent.
    pub queued_bytes: usize,
    /// Batches refused because the queue was full.
    pub overflows: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    attempts: AtomicU64,
    rtt_us: AtomicU64,
    pub(super) sent: Arc<Sent>,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    headers_in: AtomicU64,
    headers_dropped: AtomicU64,
    copies_connected: AtomicU64,
    overflows: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connected: bool,
    since: Instant,
    epoch: Epoch,
    interceptor_id: String,
    last_error: String,
    dropped_this_epoch: u64,
}

impl Default for State {
    fn default() -> Self {
        State {
            connected: false,
            since: Instant::now(),
            epoch: 0,
            interceptor_id: String::new(),
            last_error: String::new(),
            dropped_this_epoch: 0,
        }
    }
}

impl Counters {
    pub(super) fn attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn overflow(&self) {
        self.overflows.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self, copies: u64) {
        self.copies_connected.fetch_add(copies, Ordering::Relaxed);
    }

    pub(super) fn rtt(&self, rtt: Duration) {
        let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
        self.rtt_us.store(micros, Ordering::Relaxed);
    }

    pub(super) fn received(&self) {
        self.messages_in.fetch_add(1, Ordering::Relaxed);
    }

    /// `dropped` is cumulative within the epoch.
    pub(super) fn headers(&self, bytes: usize, count: u32, dropped: u64) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
        self.headers_in.fetch_add(count.into(), Ordering::Relaxed);
        if dropped > 0 {
            let mut state = self.state.lock();
            let fresh = dropped.saturating_sub(state.dropped_this_epoch);
            state.dropped_this_epoch = dropped;
            self.headers_dropped.fetch_add(fresh, Ordering::Relaxed);
        }
    }

    /// The next epoch begins; returns it.
    pub(super) fn up(&self, interceptor_id: &str) -> Epoch {
        let mut state = self.state.lock();
        state.connected = true;
        state.since = Instant::now();
        state.epoch += 1;
        state.dropped_this_epoch = 0;
        interceptor_id.clone_into(&mut state.interceptor_id);
        state.epoch
    }

    pub(super) fn down(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.connected {
            state.connected = false;
            state.since = Instant::now();
        }
        reason.clone_into(&mut state.last_error);
    }

    pub(super) fn messages_in(&self) -> u64 {
        self.messages_in.load(Ordering::Relaxed)
    }

    pub(super) fn status(&self, config: &LinkConfig, queued_bytes: usize) -> LinkStatus {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.state.lock();
        LinkStatus {
            address: config.peer.address.to_string(),
            link: config.link,
            connected: state.connected,
            since_seconds: state.since.elapsed().as_secs(),
            interceptor_id: state.interceptor_id.clone(),
            epoch: state.epoch,
            attempts: load(&self.attempts),
            last_error: state.last_error.clone(),
            rtt_us: load(&self.rtt_us),
            messages_out: load(&self.sent.messages),
            messages_in: self.messages_in(),
            bytes_out: load(&self.sent.bytes),
            bytes_in: load(&self.bytes_in),
            headers_in: load(&self.headers_in),
            headers_dropped: load(&self.headers_dropped),
            copies_connected: load(&self.copies_connected),
            queued_bytes,
            overflows: load(&self.overflows),
        }
    }
}
