//! Client traffic of several kinds, bounded in count and time, in which every answer is checked.
//!
//! No two requests are the same: each carries a number, so that a stream that is lost, mixed up or cut shows in
//! the records of the servers.

mod client;
mod http;
mod lines;
mod same_port;
mod summary;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

pub use lines::RESP_PASSWORD;
pub use summary::{Latency, Summary};

use client::{Client, Trouble};
use summary::Tally;

/// A kind of client traffic.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// One `GET` per connection, with `Connection: close`. The path gets a query with the request's number.
    OneRequest {
        /// Connections in all.
        count: u64,
        /// Connections per second; as fast as it goes if not given.
        rate: Option<f64>,
        /// What is asked for; `/bytes/N` is checked to the byte.
        path: String,
    },
    /// Requests one after the other on connections that stay; the last one is finished, then they are closed.
    KeepAlive {
        /// For how long.
        lasting: Duration,
        /// What a client waits before its next request; nothing for full speed.
        pause: Duration,
        /// What is asked for.
        path: String,
    },
    /// One `PUT` per connection.
    Upload {
        /// Bytes of each body.
        size: u64,
        /// Connections in all.
        count: u64,
    },
    /// One `GET` of a large body per connection.
    Download {
        /// Bytes of each body.
        size: u64,
        /// Connections in all.
        count: u64,
    },
    /// Redis commands, many in flight.
    Resp {
        /// Connections in all.
        count: u64,
        /// Batches on each connection.
        batches: u64,
        /// Commands sent before their answers are read.
        pipeline: u64,
    },
    /// A server that speaks first: lines, each answered, then QUIT.
    Greeting {
        /// Connections in all.
        count: u64,
        /// Lines on each.
        lines: u64,
    },
    /// A request, silence, another request on the same connection.
    Idle {
        /// Connections in all, all at once.
        count: u64,
        /// The silence.
        lasting: Duration,
    },
    /// Two connections at once from the same client port, to two services.
    SamePort {
        /// Pairs in all.
        count: u64,
        /// The second service, HTTP as the first.
        other: SocketAddr,
        /// The first client port; each pair uses the next.
        first_port: u16,
    },
}

/// What a load does.
#[derive(Clone, Debug)]
pub struct Load {
    /// What kind of traffic.
    pub kind: Kind,
    /// The service.
    pub to: SocketAddr,
    /// Client addresses, used in turn; the kernel's choice if empty.
    pub from: Vec<IpAddr>,
    /// Connections at a time, at least 1.
    pub concurrency: u64,
    /// How long one connection may take (beside `lasting` and idling) before it counts as an error.
    pub patience: Duration,
}

impl Load {
    /// With 16 connections at a time, from wherever the kernel chooses, 60 s for each.
    #[must_use]
    pub fn new(kind: Kind, to: SocketAddr) -> Self {
        Self {
            kind,
            to,
            from: Vec::new(),
            concurrency: 16,
            patience: Duration::from_secs(60),
        }
    }

    /// From these client addresses, in turn.
    #[must_use]
    pub fn from(mut self, addresses: &[IpAddr]) -> Self {
        self.from = addresses.to_vec();
        self
    }

    /// So many connections at a time.
    #[must_use]
    pub fn concurrency(mut self, connections: u64) -> Self {
        self.concurrency = connections;
        self
    }

    /// Runs it to its end. Never fails as a whole: what went wrong is counted in the summary.
    /// Needs a tokio runtime; a single thread will do (see [`crate::Host::enter_async`]).
    pub async fn run(self) -> Summary {
        let load = Arc::new(self);
        let start = Instant::now();
        let tally = match &load.kind {
            Kind::OneRequest { count, rate, .. } => {
                let pace = rate.filter(|rate| *rate > 0.0).map(|rate| (start, rate));
                each(&load, *count, pace, http::one_request).await
            }
            Kind::KeepAlive { .. } => each(&load, load.concurrency, None, http::keep_alive).await,
            Kind::Upload { count, .. } => each(&load, *count, None, http::upload).await,
            Kind::Download { count, .. } => each(&load, *count, None, http::one_request).await,
            Kind::Resp { count, .. } => each(&load, *count, None, lines::resp).await,
            Kind::Greeting { count, .. } => each(&load, *count, None, lines::greeting).await,
            Kind::Idle { count, .. } => each(&load, *count, None, http::idle).await,
            Kind::SamePort { count, .. } => each(&load, *count, None, same_port::pair).await,
        };
        tally.summary(start.elapsed())
    }

    /// The client address of session number `number`, of the family of the service.
    fn source(&self, number: u64) -> Option<IpAddr> {
        let fitting = || {
            self.from
                .iter()
                .filter(|address| address.is_ipv4() == self.to.is_ipv4())
        };
        let count = fitting().count() as u64;
        let turn = number.checked_rem(count)?;
        fitting().nth(usize::try_from(turn).ok()?).copied()
    }

    async fn connect(&self, number: u64) -> Result<Client, Trouble> {
        let source = self
            .source(number)
            .map(|address| SocketAddr::new(address, 0));
        Client::connect(source, self.to).await
    }

    /// What a session may take at most.
    fn limit(&self) -> Duration {
        let meant = match &self.kind {
            Kind::KeepAlive { lasting, .. } | Kind::Idle { lasting, .. } => *lasting,
            Kind::OneRequest { .. }
            | Kind::Upload { .. }
            | Kind::Download { .. }
            | Kind::Resp { .. }
            | Kind::Greeting { .. }
            | Kind::SamePort { .. } => Duration::ZERO,
        };
        meant + self.patience
    }

    fn workers(&self) -> u64 {
        match &self.kind {
            Kind::Idle { count, .. } => *count,
            Kind::OneRequest { .. }
            | Kind::KeepAlive { .. }
            | Kind::Upload { .. }
            | Kind::Download { .. }
            | Kind::Resp { .. }
            | Kind::Greeting { .. }
            | Kind::SamePort { .. } => self.concurrency.max(1),
        }
    }
}

/// Runs sessions number 0 to `count`, as many at a time as the load says, each with what it counts into.
async fn each<S, F>(load: &Arc<Load>, count: u64, pace: Option<(Instant, f64)>, session: S) -> Tally
where
    S: Fn(Arc<Load>, u64, Tally) -> F + Copy + Send + 'static,
    F: Future<Output = (Tally, Result<(), Trouble>)> + Send + 'static,
{
    let next = Arc::new(AtomicU64::new(0));
    let workers: Vec<_> = (0..load.workers().min(count))
        .map(|_| {
            let (load, next) = (Arc::clone(load), Arc::clone(&next));
            tokio::spawn(async move {
                let mut tally = Tally::default();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return tally;
                    }
                    if let Some((start, rate)) = pace {
                        sleep_until(start + Duration::from_secs_f64(number as f64 / rate)).await;
                    }
                    tally = one(&load, number, tally, session).await;
                }
            })
        })
        .collect();
    let mut total = Tally::default();
    for worker in workers {
        match worker.await {
            Ok(tally) => total.add(tally),
            Err(error) => total.trouble(format!("a worker ended early: {error}")),
        }
    }
    total
}

async fn one<S, F>(load: &Arc<Load>, number: u64, tally: Tally, session: S) -> Tally
where
    S: Fn(Arc<Load>, u64, Tally) -> F,
    F: Future<Output = (Tally, Result<(), Trouble>)>,
{
    // A session that times out takes its tally with it: it gets an empty one.
    let mut total = tally;
    match timeout(
        load.limit(),
        session(Arc::clone(load), number, Tally::default()),
    )
    .await
    {
        Ok((counted, outcome)) => {
            total.add(counted);
            match outcome {
                Ok(()) => total.session(),
                Err(trouble) => total.trouble(format!("session {number}: {trouble}")),
            }
        }
        Err(_) => total.trouble(format!(
            "session {number}: not done within {:?}",
            load.limit()
        )),
    }
    total
}
