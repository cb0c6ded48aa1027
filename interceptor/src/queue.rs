//! The thread that reads an NFQUEUE: it drops what is a response to a copied flow, and hands its
//! header to the worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millrace_capture::filter::HEADERS_ONLY;
use millrace_capture::{PacketQueue, QueueStatistics, QueuedPacket, Verdict, Waker};
use millrace_notation::address::ClientPool;
use millrace_proto::PASSED_MARK;
use millrace_wire::{Decoder, LinkType, Verify};
use parking_lot::{Mutex, MutexGuard};

/// Headers that may wait for the worker; the oldest are dropped then, and targets repeat what
/// matters.
const CAPACITY: usize = 65_536;
/// Bytes of packets beyond their heads that may wait for the worker.
const MOST_BYTES: usize = 64 << 20;
/// Pause before a broken queue is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// The beginning of a packet, or all of it.
#[derive(Clone, Debug)]
pub struct Head {
    bytes: [u8; HEADERS_ONLY as usize],
    len: u8,
    /// The whole packet, where more of it is wanted.
    whole: Option<Box<[u8]>>,
    /// Length of the whole packet in bytes.
    pub original_len: usize,
}

impl Head {
    fn new(packet: &QueuedPacket<'_>) -> Self {
        let mut bytes = [0; HEADERS_ONLY as usize];
        let is_longer = packet.data.len() > bytes.len();
        let len = packet.data.len().min(bytes.len());
        for (to, from) in bytes.iter_mut().zip(packet.data) {
            *to = *from;
        }
        Self {
            bytes,
            // Less than 256: see HEADERS_ONLY.
            len: len as u8,
            whole: is_longer.then(|| packet.data.into()),
            original_len: packet.original_len,
        }
    }

    /// The bytes, from the IP header on.
    pub fn data(&self) -> &[u8] {
        match &self.whole {
            Some(whole) => whole,
            None => self.bytes.get(..usize::from(self.len)).unwrap_or(&[]),
        }
    }

    /// Bytes that it takes beyond its own.
    fn extra(&self) -> usize {
        self.whole.as_ref().map_or(0, |whole| whole.len())
    }
}

#[derive(Debug, Default)]
struct Inner {
    heads: VecDeque<Head>,
    /// Bytes of these beyond their heads.
    extra: usize,
    dropped: u64,
    /// Of queues that were open before.
    before: QueueStatistics,
    statistics: QueueStatistics,
}

/// The worker's end: packets that were taken off the queue.
#[derive(Clone, Debug, Default)]
pub struct Heads {
    inner: Arc<Mutex<Inner>>,
    /// Whether packets are wanted whole.
    whole: Arc<AtomicBool>,
}

impl Heads {
    /// Takes all, in order, into `into`, which must be empty.
    pub fn take(&self, into: &mut VecDeque<Head>) {
        let mut inner = self.lock();
        std::mem::swap(&mut inner.heads, into);
        inner.extra = 0;
    }

    /// Has packets handed over whole from now on, for as long as the process runs. The queue is opened anew for it, at its
    /// next packet; what waits in it then is dropped, and repeated by the targets.
    pub fn want_whole(&self) {
        self.whole.store(true, Ordering::Relaxed);
    }

    /// Another queue follows.
    fn reopened(&self) {
        let mut inner = self.lock();
        let last = std::mem::take(&mut inner.statistics);
        inner.before.received += last.received;
        inner.before.overruns += last.overruns;
    }

    /// Packets read, and packets that were lost on the way here.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.lock();
        let (before, now) = (inner.before, inner.statistics);
        let lost = before.overruns + now.overruns + inner.dropped;
        (before.received + now.received, lost)
    }

    fn push(&self, head: Head, statistics: QueueStatistics) -> bool {
        let mut inner = self.lock();
        let was_empty = inner.heads.is_empty();
        inner.extra += head.extra();
        while (inner.heads.len() >= CAPACITY || inner.extra > MOST_BYTES)
            && let Some(oldest) = inner.heads.pop_front()
        {
            inner.extra -= oldest.extra();
            inner.dropped += 1;
        }
        inner.heads.push_back(head);
        inner.statistics = statistics;
        was_empty
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

/// Starts to read `queue`. What is for an address of `pass` goes on its way.
///
/// # Errors
/// When no thread can be started.
pub fn start(queue: PacketQueue, pass: Option<ClientPool>, waker: Waker) -> std::io::Result<Heads> {
    let heads = Heads::default();
    let to = heads.clone();
    std::thread::Builder::new()
        .name("nfqueue".to_owned())
        .spawn(move || read(queue, pass.as_ref(), &to, &waker))?;
    Ok(heads)
}

fn read(mut queue: PacketQueue, pass: Option<&ClientPool>, heads: &Heads, waker: &Waker) {
    let mut decoder = Decoder::new();
    loop {
        let whole = heads.whole.load(Ordering::Relaxed);
        if whole != queue.is_whole() {
            let number = queue.number();
            drop(queue);
            heads.reopened();
            queue = open(number, whole);
        }
        let mut head = None;
        let result = queue.next(|packet| {
            if passes(&mut decoder, pass, packet) {
                return Verdict::Accept(PASSED_MARK);
            }
            head = Some(Head::new(packet));
            Verdict::Drop
        });
        if let Err(error) = result {
            tracing::error!("{error}; opening the queue again");
            let number = queue.number();
            drop(queue);
            heads.reopened();
            std::thread::sleep(PAUSE);
            queue = open(number, whole);
            continue;
        }
        if let Some(head) = head
            && heads.push(head, queue.statistics())
        {
            waker.wake();
        }
    }
}

/// Whether a packet is none of ours: the rule's pass-list is a rule of its own, and this is the
/// second lock on the same door.
fn passes(decoder: &mut Decoder, pass: Option<&ClientPool>, packet: &QueuedPacket<'_>) -> bool {
    let Some(pass) = pass else { return false };
    let len = packet.original_len;
    decoder
        .decode(0, LinkType::RawIp, packet.data, len, Verify::Nothing)
        .is_ok_and(|decoded| pass.contains(decoded.tuple.destination.ip))
}

fn open(number: u16, whole: bool) -> PacketQueue {
    let mut is_said = false;
    loop {
        match PacketQueue::open(number, whole) {
            Ok(queue) => return queue,
            Err(error) if is_said => tracing::debug!("{error}"),
            Err(error) => {
                tracing::error!("no answers are taken in until the queue can be opened: {error}");
                is_said = true;
            }
        }
        std::thread::sleep(PAUSE);
    }
}
