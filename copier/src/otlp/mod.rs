//! Traces of sampled sessions, for a collector of OpenTelemetry.
//!
//! The shard hands over what it is told without waiting; one task sends it. What finds no room is dropped and counted, so
//! that a collector which is away, or slow, costs the copy nothing.
//!
//! - `spans`: what was told as spans.
//! - `collector`: where it is, and what it says.

mod collector;
mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millrace_engine::{Service, Told};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use self::collector::Collector;
use self::collector::{Failure, send};
use self::spans::Spans;

/// What waits to be sent, at most: about a megabyte.
const QUEUE: usize = 2048;
/// Spans of one request, at most.
const BATCH: usize = 256;
/// For so long spans are gathered for a request.
const GATHER: Duration = Duration::from_secs(1);
/// Between two attempts, at first and at most.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Spans that were not taken after so many attempts are dropped: the collector may stumble over just these.
const ATTEMPTS: u32 = 8;
/// How long the last spans are waited for at the end.
const LAST: Duration = Duration::from_secs(3);

/// What spans say of clients' addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Clients {
    /// Nothing.
    #[default]
    None,
    /// A hash of the address.
    Hashed,
    /// Address and port.
    Plain,
}

/// What traces are to say, and to whom.
#[derive(Clone, Debug)]
pub struct TracePlan {
    /// Where they go.
    pub collector: Collector,
    /// What is said of clients.
    pub clients: Clients,
}

/// What became of spans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceFigures {
    /// Taken by the collector.
    pub exported: u64,
    /// Not sent: too many waited, or the copier ended first.
    pub dropped: u64,
    /// Sent, and refused by the collector.
    pub rejected: u64,
}

#[derive(Debug, Default)]
struct Counts {
    handed_over: AtomicU64,
    exported: AtomicU64,
    dropped: AtomicU64,
    rejected: AtomicU64,
}

/// The task that sends spans, and its queue.
#[derive(Debug)]
pub struct Exporter {
    task: JoinHandle<()>,
    told: mpsc::Sender<Told>,
    counts: Arc<Counts>,
    ending: CancellationToken,
}

impl Exporter {
    /// Sends spans from now on.
    pub fn start(plan: &TracePlan, id: &str, services: &[Service], runtime: &Handle) -> Self {
        let (told, queue) = mpsc::channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let ending = CancellationToken::new();
        let spans = Spans::new(id, services, plan.clients);
        let task = Task {
            collector: plan.collector.clone(),
            spans,
            counts: counts.clone(),
            ending: ending.clone(),
            state: State::Untried,
        };
        Self {
            task: runtime.spawn(task.run(queue)),
            told,
            counts,
            ending,
        }
    }

    /// Takes what is told. It never waits.
    pub fn tell(&self) -> impl Fn(Told) + Send + 'static {
        let (told, counts) = (self.told.clone(), self.counts.clone());
        move |one| {
            counts.handed_over.fetch_add(1, Ordering::Relaxed);
            if told.try_send(one).is_err() {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What became of spans so far.
    pub fn figures(&self) -> impl Fn() -> TraceFigures + Send + 'static {
        let counts = self.counts.clone();
        move || counts.figures()
    }

    /// Waits for the last spans, for a moment: nobody tells any more. What is not sent by then is dropped.
    pub fn finish(self, runtime: &Handle) -> TraceFigures {
        let Self {
            task,
            told,
            counts,
            ending,
        } = self;
        drop(told);
        ending.cancel();
        let ended = runtime.block_on(async { timeout(LAST, task).await });
        let figures = counts.figures();
        let settled = figures.exported + figures.rejected + figures.dropped;
        let handed_over = counts.handed_over.load(Ordering::Relaxed);
        let left = handed_over.saturating_sub(settled);
        if ended.is_err() && left > 0 {
            tracing::warn!("{left} spans were not sent: the collector did not take them in time");
        }
        TraceFigures {
            dropped: figures.dropped + left,
            ..figures
        }
    }
}

impl Counts {
    fn figures(&self) -> TraceFigures {
        TraceFigures {
            exported: self.exported.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
        }
    }
}

/// How the collector was last met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Untried,
    Takes,
    Away,
    Refuses,
}

struct Task {
    collector: Collector,
    spans: Spans,
    counts: Arc<Counts>,
    ending: CancellationToken,
    state: State,
}

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Told>) {
        let mut client = self.collector.client();
        let mut batch = Vec::with_capacity(BATCH);
        while gather(&mut queue, &mut batch).await {
            let count = batch.len() as u64;
            let request = self.spans.request(&batch);
            batch.clear();
            let mut pause = BACK_OFF.0;
            for attempt in 1..=ATTEMPTS {
                match send(&mut client, request.clone()).await {
                    Ok((refused, why)) => {
                        let refused = refused.min(count);
                        self.counts.rejected.fetch_add(refused, Ordering::Relaxed);
                        let taken = count - refused;
                        self.counts.exported.fetch_add(taken, Ordering::Relaxed);
                        match refused == count {
                            true => self.met(State::Refuses, &why),
                            false => self.met(State::Takes, ""),
                        }
                        break;
                    }
                    Err(Failure::Final(why)) => {
                        self.counts.rejected.fetch_add(count, Ordering::Relaxed);
                        self.met(State::Refuses, &why);
                        break;
                    }
                    Err(Failure::Passing(why)) => {
                        self.met(State::Away, &why);
                        // In the end nothing is gained by waiting: what waits is tried once more.
                        if attempt == ATTEMPTS || self.ending.is_cancelled() {
                            self.counts.dropped.fetch_add(count, Ordering::Relaxed);
                            break;
                        }
                        let _ = timeout(pause, self.ending.cancelled()).await;
                        pause = (pause * 2).min(BACK_OFF.1);
                    }
                }
            }
        }
    }

    /// Says so when the collector does something else than before.
    fn met(&mut self, state: State, why: &str) {
        if std::mem::replace(&mut self.state, state) == state {
            return;
        }
        let url = self.collector.url();
        match state {
            State::Untried => {}
            State::Takes => tracing::info!("the collector at {url} takes spans"),
            State::Away => tracing::warn!(
                "the collector at {url} (--otlp-endpoint) takes no spans: {why}; it is tried again, \
                 and spans that find no room until then are dropped"
            ),
            State::Refuses => tracing::warn!(
                "the collector at {url} (--otlp-endpoint) refuses spans: {why}; they are dropped. \
                 Does it take traces by OTLP over gRPC there?"
            ),
        }
    }
}

/// Gathers what is told for a request. Says whether there is any: in the end there is not.
async fn gather(queue: &mut mpsc::Receiver<Told>, batch: &mut Vec<Told>) -> bool {
    if queue.recv_many(batch, BATCH).await == 0 {
        return false;
    }
    let until = Instant::now() + GATHER;
    while batch.len() < BATCH {
        let more = queue.recv_many(batch, BATCH - batch.len());
        match timeout_at(until, more).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
    }
    true
}
