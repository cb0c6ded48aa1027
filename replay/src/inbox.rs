//! What the links hand to the shard: a bounded queue that never blocks the hander.

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_proto::{Sight, TraceReport};
use millrace_routes::copier::{InterceptorId, LinkEvent, LinkId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::routes::LinkRoutes;
use crate::whereabouts::News;

/// Bytes that may wait of what interceptors say. More means that the shard is far behind, and the
/// oldest is of least use: TCP repeats what it was about, and probes are repeated too.
const MAX_BYTES: usize = 16 << 20;

/// What a message costs besides its bytes: it bounds the number of tiny ones.
const OVERHEAD: usize = 64;

/// Something for the shard.
#[derive(Debug)]
pub enum Message {
    /// Packed response headers, the link they came over, and when they were ready to be sent, by the interceptor's clock.
    Headers(LinkId, Bytes, u64),
    /// Packed ids of flows that another copier owns, and the interceptor that says so.
    Conflict(InterceptorId, Bytes),
    /// What an interceptor's host saw of probes.
    Traced(InterceptorId, TraceReport),
    /// A link is up or down, or was refused.
    Link(LinkId, LinkEvent),
    /// A new link. Comes before its events.
    Add(Box<LinkRoutes>),
    /// An interceptor that the operator does not name any more.
    Remove(InterceptorId),
    /// Where live services are now.
    Whereabouts(News),
}

#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Message>,
    bytes: usize,
    dropped_batches: u64,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Inbox {
    queue: Mutex<Queue>,
    news: Notify,
}

impl Inbox {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends once something was put in after the queue was empty. It may have been taken since.
    pub(crate) async fn told(&self) {
        self.news.notified().await;
    }

    /// Hands an event of a link over. What finds the queue full pushes out the oldest that may be
    /// lost.
    pub fn push(&self, link: LinkId, event: LinkEvent) {
        self.put(match event {
            LinkEvent::Headers {
                bytes, ready_at, ..
            } => Message::Headers(link, bytes, ready_at),
            LinkEvent::Conflict { ids } => Message::Conflict(link.interceptor, ids),
            LinkEvent::Traced(report) => Message::Traced(link.interceptor, report),
            LinkEvent::Up { .. }
            | LinkEvent::Down { .. }
            | LinkEvent::Granted
            | LinkEvent::Others { .. }
            | LinkEvent::Taken { .. }
            | LinkEvent::Refused { .. } => Message::Link(link, event),
        });
    }

    /// Hands a new link over; its events come after it.
    pub fn add(&self, link: LinkRoutes) {
        self.put(Message::Add(Box::new(link)));
    }

    /// Says that the operator does not name an interceptor any more.
    pub fn remove(&self, interceptor: InterceptorId) {
        self.put(Message::Remove(interceptor));
    }

    /// Says where live services are now.
    pub fn tell_whereabouts(&self, news: News) {
        self.put(Message::Whereabouts(news));
    }

    fn put(&self, message: Message) {
        let mut queue = self.queue.lock();
        let was_empty = queue.messages.is_empty();
        queue.bytes += message.cost().unwrap_or_default();
        queue.messages.push_back(message);
        while queue.bytes > MAX_BYTES && queue.drop_oldest() {}
        drop(queue);
        if was_empty {
            self.news.notify_one();
        }
    }

    /// Takes everything, in order, into `into`, which must be empty.
    pub fn take(&self, into: &mut VecDeque<Message>) {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.messages, into);
        queue.bytes = 0;
    }

    /// Messages that were dropped because the shard was too slow.
    pub fn dropped_batches(&self) -> u64 {
        self.queue.lock().dropped_batches
    }
}

impl Message {
    /// Bytes that it holds, if it may be lost.
    fn cost(&self) -> Option<usize> {
        let bytes = match self {
            Self::Headers(_, bytes, _) | Self::Conflict(_, bytes) => bytes.len(),
            Self::Traced(_, report) => {
                let sights = report.sights.iter();
                let names = sights.map(|it| it.syn_device.len() + it.leaked_device.len());
                report.problem.len() + names.map(|len| size_of::<Sight>() + len).sum::<usize>()
            }
            Self::Link(..) | Self::Add(_) | Self::Remove(_) | Self::Whereabouts(_) => return None,
        };
        Some(bytes + OVERHEAD)
    }
}

impl Queue {
    fn drop_oldest(&mut self) -> bool {
        let mut messages = self.messages.iter().enumerate();
        let Some((index, cost)) = messages.find_map(|(index, it)| Some((index, it.cost()?))) else {
            return false;
        };
        self.messages.remove(index);
        self.bytes -= cost;
        self.dropped_batches += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_drops_the_oldest_headers_and_keeps_link_events() {
        let inbox = Inbox::new();
        let headers = |byte: u8| LinkEvent::Headers {
            bytes: Bytes::from(vec![byte; 10 << 20]),
            count: 1,
            dropped: 0,
            ready_at: 0,
        };
        let link = LinkId {
            interceptor: 0,
            link: 0,
        };
        inbox.push(link, headers(1));
        inbox.push(
            link,
            LinkEvent::Down {
                epoch: 1,
                reason: "gone".to_owned(),
            },
        );
        inbox.push(link, headers(2));
        let mut taken = VecDeque::new();
        inbox.take(&mut taken);
        assert_eq!(inbox.dropped_batches(), 1);
        assert!(matches!(
            taken.pop_front(),
            Some(Message::Link(_, LinkEvent::Down { .. }))
        ));
        assert!(matches!(taken.pop_front(), Some(Message::Headers(_, bytes, _)) if bytes[0] == 2));
    }

    #[test]
    fn conflicts_and_what_hosts_saw_are_bounded_too() {
        let inbox = Inbox::new();
        let link = LinkId {
            interceptor: 0,
            link: 0,
        };
        let ids = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..20 {
            inbox.push(link, LinkEvent::Conflict { ids: ids.clone() });
        }
        assert_eq!(inbox.dropped_batches(), 5);
        let report = TraceReport {
            problem: "x".repeat(1 << 20),
            ..TraceReport::default()
        };
        for _ in 0..20 {
            inbox.push(link, LinkEvent::Traced(report.clone()));
        }
        let nothing = Bytes::new();
        for _ in 0..MAX_BYTES / OVERHEAD {
            let ids = nothing.clone();
            inbox.push(link, LinkEvent::Conflict { ids });
        }
        let mut taken = VecDeque::new();
        inbox.take(&mut taken);
        assert_eq!(taken.len(), MAX_BYTES / OVERHEAD);
    }
}
