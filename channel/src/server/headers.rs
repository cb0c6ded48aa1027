//! Response headers on their way to one copier: a bounded queue that gives up its oldest.
//!
//! The worker pushes; gRPC, on the same thread, pulls when HTTP/2 has room to send. So batches leave at once
//! while the copier keeps up, merge while it is a little behind, and are dropped, oldest first and
//! counted, when it is far behind. Other streams have queues of their own.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use millrace_proto::flow::{FLOW_ID_BYTES, FlowId, encode_flow_id};
use millrace_proto::v1::interceptor_message::Kind;
use millrace_proto::v1::refused::Code;
use millrace_proto::v1::{
    Conflict, Granted, Headers, InterceptorMessage, Others, Pong, Refused, Taken, Welcome,
};
use millrace_proto::{BATCH_BYTES, ClientRange, MAX_MESSAGE_BYTES, TraceReport};
use parking_lot::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

/// What a batch costs besides its bytes: it bounds the number of tiny ones.
const OVERHEAD: usize = 64;

/// The largest batch that fits into a message. Bytes.
const MAX_BATCH_BYTES: usize = MAX_MESSAGE_BYTES - 64;

/// Messages about flows of others that may wait: a copier takes them in at once.
const MAX_TAKEN: usize = 1024;

/// Answers to traces that may wait: more than a copier asks for at a time.
const MAX_TRACED: usize = 8;

/// The queue of one stream. Cheap to clone; all clones are the same queue.
#[derive(Debug, Clone)]
pub struct HeaderQueue {
    inner: Arc<Mutex<Inner>>,
}

/// What went through a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct QueueStatus {
    /// Response headers pushed.
    pub pushed: u64,
    /// Response headers handed to the network.
    pub sent: u64,
    /// Response headers dropped because the copier read too slowly.
    pub dropped: u64,
    /// Messages that carried them.
    pub messages: u64,
    /// Bytes that wait.
    pub queued_bytes: usize,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// What times that the peer is told count from.
    began: Instant,
    welcome: Option<Welcome>,
    pong: Option<u64>,
    conflicts: Vec<u8>,
    others: Option<Others>,
    taken: VecDeque<Taken>,
    granted: bool,
    traced: VecDeque<TraceReport>,
    refused: Option<Refused>,
    batches: VecDeque<Batch>,
    status: QueueStatus,
    closed: bool,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Batch {
    bytes: Vec<u8>,
    count: u32,
    /// When it was handed over, in microseconds.
    ready_at: u64,
}

impl Batch {
    fn cost(&self) -> usize {
        self.bytes.len() + OVERHEAD
    }
}

impl HeaderQueue {
    /// A queue that holds at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        HeaderQueue {
            inner: Arc::new(Mutex::new(Inner {
                limit,
                began: Instant::now(),
                welcome: None,
                pong: None,
                conflicts: Vec::new(),
                others: None,
                taken: VecDeque::new(),
                granted: false,
                traced: VecDeque::new(),
                refused: None,
                batches: VecDeque::new(),
                status: QueueStatus::default(),
                closed: false,
                waker: None,
            })),
        }
    }

    /// Queues a batch of `count` packed header records, of [`BATCH_BYTES`] or less; larger ones
    /// than fit into a message are dropped. Never waits. Returns how many response headers had to
    /// be dropped for it (its own included, when the stream is gone).
    pub fn push(&self, batch: Vec<u8>, count: u32) -> u64 {
        if count == 0 || batch.is_empty() {
            return 0;
        }
        let mut inner = self.inner.lock();
        let batch = Batch {
            bytes: batch,
            count,
            ready_at: inner.began.elapsed().as_micros() as u64,
        };
        inner.status.pushed += u64::from(count);
        let before = inner.status.dropped;
        if inner.closed || batch.bytes.len() > MAX_BATCH_BYTES || batch.cost() > inner.limit {
            inner.status.dropped += u64::from(count);
        } else {
            inner.make_room(batch.cost());
            inner.status.queued_bytes += batch.cost();
            inner.batches.push_back(batch);
        }
        let dropped = inner.status.dropped - before;
        wake(inner);
        dropped
    }

    /// Ends the stream with a reason for the copier's operator: `owner` is the copier_id that
    /// holds what was asked for, or empty.
    pub fn refuse(&self, code: Code, reason: impl Into<String>, owner: impl Into<String>) {
        self.refuse_with(Refused {
            code: code.into(),
            reason: reason.into(),
            owner: owner.into(),
        });
    }

    pub(super) fn refuse_with(&self, refused: Refused) {
        let mut inner = self.inner.lock();
        if !inner.closed {
            inner.refused.get_or_insert(refused);
        }
        inner.close();
        wake(inner);
    }

    pub(super) fn welcome(&self, welcome: Welcome) {
        let mut inner = self.inner.lock();
        inner.welcome = Some(welcome);
        wake(inner);
    }

    /// Tells the copier that another one owns this flow, so that it moves its replica to another
    /// port. What finds no room is dropped: the replica's SYN stays unanswered, and times out.
    pub fn conflict(&self, flow: FlowId) {
        let mut inner = self.inner.lock();
        if !inner.closed && inner.conflicts.len() + FLOW_ID_BYTES <= BATCH_BYTES {
            encode_flow_id(flow, &mut inner.conflicts);
        }
        wake(inner);
    }

    /// Tells the copier that its claim is granted, and which flows within it another one still has: flow records in
    /// batches that fit into a message.
    pub fn grant(&self, taken: impl IntoIterator<Item = Vec<u8>>) {
        let mut inner = self.inner.lock();
        inner.granted = !inner.closed;
        if inner.granted {
            let taken = taken.into_iter();
            inner.taken.extend(taken.map(|flows| Taken {
                flows: flows.into(),
                ended: false,
            }));
        }
        wake(inner);
    }

    /// Tells the copier that another one has, or has no more (`ended`), these flows within its claim: flow records that
    /// fit into a message. What finds no room is dropped: those ports are then tried in vain, or not used.
    pub fn taken(&self, flows: Vec<u8>, ended: bool) {
        let mut inner = self.inner.lock();
        if !inner.closed && inner.taken.len() < MAX_TAKEN {
            let flows = flows.into();
            inner.taken.push_back(Taken { flows, ended });
        }
        wake(inner);
    }

    /// Tells a copier whose claim yields which ranges others claim. Only the latest word is kept.
    pub fn others(&self, ranges: &[ClientRange]) {
        let mut inner = self.inner.lock();
        if !inner.closed {
            let ranges = ranges.iter().map(Into::into).collect();
            inner.others = Some(Others { ranges });
        }
        wake(inner);
    }

    /// Answers a trace. Only the latest answers are kept.
    pub fn traced(&self, report: TraceReport) {
        let mut inner = self.inner.lock();
        if !inner.closed {
            if inner.traced.len() >= MAX_TRACED {
                inner.traced.pop_front();
            }
            inner.traced.push_back(report);
        }
        wake(inner);
    }

    /// Only the latest Pong is kept: a peer that pings without reading costs nothing.
    pub(super) fn pong(&self, nonce: u64) {
        let mut inner = self.inner.lock();
        inner.pong = Some(nonce);
        wake(inner);
    }

    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.close();
        wake(inner);
    }

    /// Whether the stream has ended, or is about to.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// What went through.
    pub fn status(&self) -> QueueStatus {
        self.inner.lock().status
    }

    /// What gRPC sends. `gone` is cancelled when the peer is.
    pub(super) fn stream(&self, gone: CancellationToken) -> HeaderStream {
        HeaderStream {
            queue: self.clone(),
            _gone: gone.drop_guard(),
        }
    }
}

/// Wakes the sender, outside the lock.
fn wake(mut inner: parking_lot::MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Inner {
    fn make_room(&mut self, cost: usize) {
        while self.status.queued_bytes + cost > self.limit {
            let Some(oldest) = self.batches.pop_front() else {
                return;
            };
            self.status.queued_bytes -= oldest.cost();
            self.status.dropped += u64::from(oldest.count);
        }
    }

    fn close(&mut self) {
        self.closed = true;
        let waiting = self.batches.drain(..).map(|batch| u64::from(batch.count));
        self.status.dropped += waiting.sum::<u64>();
        self.status.queued_bytes = 0;
    }

    /// The next message: as many batches as fill one.
    fn next(&mut self) -> Option<Kind> {
        if let Some(welcome) = self.welcome.take() {
            return Some(Kind::Welcome(welcome));
        }
        if let Some(refused) = self.refused.take() {
            return Some(Kind::Refused(refused));
        }
        if let Some(nonce) = self.pong.take() {
            return Some(Kind::Pong(Pong { nonce }));
        }
        if let Some(others) = self.others.take() {
            return Some(Kind::Others(others));
        }
        if let Some(taken) = self.taken.pop_front() {
            return Some(Kind::Taken(taken));
        }
        if std::mem::take(&mut self.granted) {
            return Some(Kind::Granted(Granted {}));
        }
        if let Some(report) = self.traced.pop_front() {
            return Some(Kind::Traced(report.into()));
        }
        if !self.conflicts.is_empty() {
            let flow_ids = std::mem::take(&mut self.conflicts).into();
            return Some(Kind::Conflict(Conflict { flow_ids }));
        }
        let mut message = self.pop()?;
        while let Some(next) = self.batches.front()
            && message.bytes.len() + next.bytes.len() <= BATCH_BYTES
            && let Some(next) = self.pop()
        {
            message.bytes.extend_from_slice(&next.bytes);
            message.count = message.count.saturating_add(next.count);
            message.ready_at = next.ready_at;
        }
        self.status.sent += u64::from(message.count);
        self.status.messages += 1;
        Some(Kind::Headers(Headers {
            records: message.bytes.into(),
            count: message.count,
            dropped: self.status.dropped,
            // Zero says nothing.
            ready_at: message.ready_at.max(1),
        }))
    }

    fn pop(&mut self) -> Option<Batch> {
        let batch = self.batches.pop_front()?;
        self.status.queued_bytes -= batch.cost();
        Some(batch)
    }
}

/// The messages of one stream, as gRPC pulls them. Ends after a refusal.
#[derive(Debug)]
pub struct HeaderStream {
    queue: HeaderQueue,
    _gone: DropGuard,
}

impl tokio_stream::Stream for HeaderStream {
    type Item = Result<InterceptorMessage, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.queue.inner.lock();
        if let Some(kind) = inner.next() {
            return Poll::Ready(Some(Ok(InterceptorMessage { kind: Some(kind) })));
        }
        if inner.closed {
            return Poll::Ready(None);
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    async fn next(stream: &mut HeaderStream) -> Kind {
        stream.next().await.unwrap().unwrap().kind.unwrap()
    }

    fn headers(kind: Kind) -> (Vec<u8>, u32, u64) {
        match kind {
            Kind::Headers(it) => (it.records.to_vec(), it.count, it.dropped),
            Kind::Welcome(_)
            | Kind::Refused(_)
            | Kind::Pong(_)
            | Kind::Conflict(_)
            | Kind::Granted(_)
            | Kind::Others(_)
            | Kind::Taken(_)
            | Kind::Traced(_) => {
                panic!("{kind:?}")
            }
        }
    }

    #[tokio::test]
    async fn an_overflow_drops_the_oldest_and_counts_them() {
        let queue = HeaderQueue::new(3 * (100 + OVERHEAD));
        let mut stream = queue.stream(CancellationToken::new());
        for n in 0..5u8 {
            let dropped = queue.push(vec![n; 100], 10);
            assert_eq!(dropped, if n < 3 { 0 } else { 10 });
        }
        let (bytes, count, dropped) = headers(next(&mut stream).await);
        assert_eq!((bytes.len(), count, dropped), (300, 30, 20));
        assert_eq!((bytes[0], bytes[100], bytes[200]), (2, 3, 4));
        let status = queue.status();
        assert_eq!(
            (status.pushed, status.sent, status.dropped, status.messages),
            (50, 30, 20, 1)
        );
        assert_eq!(status.queued_bytes, 0);
    }

    #[tokio::test]
    async fn a_message_says_when_the_last_of_it_was_ready() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        let mut said = Vec::new();
        for batches in [1, 2] {
            for _ in 0..batches {
                std::thread::sleep(std::time::Duration::from_millis(2));
                queue.push(vec![7], 1);
            }
            match next(&mut stream).await {
                Kind::Headers(it) => said.push(it.ready_at),
                other => panic!("{other:?}"),
            }
        }
        assert!(said[0] >= 2000 && said[1] >= said[0] + 4000, "{said:?}");
    }

    #[tokio::test]
    async fn batches_merge_no_further_than_a_message_is_worth() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        for _ in 0..5 {
            queue.push(vec![0; BATCH_BYTES / 2], 1);
        }
        let counts = [
            headers(next(&mut stream).await).1,
            headers(next(&mut stream).await).1,
            headers(next(&mut stream).await).1,
        ];
        assert_eq!(counts, [2, 2, 1]);
    }

    #[tokio::test]
    async fn a_waiting_stream_is_woken_by_a_push_from_a_thread() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        let pusher = queue.clone();
        let (message, _) = tokio::join!(next(&mut stream), async {
            tokio::task::yield_now().await;
            std::thread::spawn(move || pusher.push(vec![7], 1))
                .join()
                .unwrap()
        });
        assert_eq!(headers(message), (vec![7], 1, 0));
    }

    #[tokio::test]
    async fn a_refusal_is_the_last_word() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        queue.push(vec![1], 1);
        queue.refuse(Code::ClaimConflict, "198.18.1.0/24 is taken", "copier-b");
        queue.refuse(Code::Malformed, "later", "");
        let Kind::Refused(refused) = next(&mut stream).await else {
            panic!("no refusal")
        };
        assert_eq!(
            (refused.code(), refused.owner.as_str()),
            (Code::ClaimConflict, "copier-b")
        );
        assert!(stream.next().await.is_none());
        assert_eq!(queue.push(vec![1], 3), 3);
        assert_eq!(queue.status().dropped, 4);
    }

    #[tokio::test]
    async fn pings_without_reading_keep_one_pong() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        (0..1000).for_each(|nonce| queue.pong(nonce));
        assert_eq!(next(&mut stream).await, Kind::Pong(Pong { nonce: 999 }));
        queue.close();
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn what_others_have_is_said_before_a_claim_is_granted() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        let range = |last: &str| {
            let (first, last) = ("198.18.1.1".parse().unwrap(), last.parse().unwrap());
            ClientRange::new(first, last, 1, 65_535).unwrap()
        };
        queue.push(vec![7], 1);
        queue.others(&[range("198.18.1.5")]);
        queue.grant([vec![1], vec![2]]);
        queue.others(&[range("198.18.1.9")]);
        let Kind::Others(others) = next(&mut stream).await else {
            panic!("no others")
        };
        let others = ClientRange::read_all(&others.ranges).unwrap();
        assert_eq!(others, [range("198.18.1.9")], "the latest word alone");
        for flows in [vec![1], vec![2]] {
            let taken = Taken {
                flows: flows.into(),
                ended: false,
            };
            assert_eq!(next(&mut stream).await, Kind::Taken(taken));
        }
        assert_eq!(next(&mut stream).await, Kind::Granted(Granted {}));
        assert_eq!(headers(next(&mut stream).await), (vec![7], 1, 0));
    }

    #[tokio::test]
    async fn answers_to_several_traces_wait_side_by_side_and_are_bounded() {
        let queue = HeaderQueue::new(1 << 20);
        let mut stream = queue.stream(CancellationToken::new());
        for id in 0..10 {
            queue.traced(TraceReport {
                id,
                ..TraceReport::default()
            });
        }
        queue.close();
        let mut ids = Vec::new();
        while let Some(Ok(message)) = stream.next().await {
            match message.kind.unwrap() {
                Kind::Traced(report) => ids.push(report.id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ids, (2..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_that_fits_into_no_message_is_dropped_and_counted() {
        let queue = HeaderQueue::new(1 << 20);
        assert_eq!(queue.push(vec![0; MAX_MESSAGE_BYTES], 9), 9);
        assert_eq!(queue.push(Vec::new(), 0), 0);
    }
}
