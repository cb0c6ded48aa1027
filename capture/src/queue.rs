//! Packets that a firewall rule hands over (NFQUEUE) and waits for a verdict on.
//!
//! A rule without a reader drops, which is right for copied flows: nothing leaks while the
//! interceptor is away. The kernel's side is `nfnetlink_queue`; the rule belongs to router-agent.

use std::io;

use nfq::{Queue, Verdict as NfqVerdict};

use crate::error::CaptureError;
use crate::filter::HEADERS_ONLY;

/// Packets that may wait for their verdict in the kernel; what comes then is dropped there.
const LENGTH: u32 = 8192;

/// What is to become of a queued packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on its way, with this mark (`skb->mark`).
    Accept(u32),
    /// It ends here.
    Drop,
}

/// A packet that waits for its verdict.
#[derive(Clone, Copy, Debug)]
pub struct QueuedPacket<'a> {
    /// Its first bytes, from the IP header on.
    pub data: &'a [u8],
    /// Its length in bytes.
    pub original_len: usize,
}

/// What went through a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct QueueStatistics {
    /// Packets read.
    pub received: u64,
    /// How often the kernel had to drop packets because this process was too slow.
    pub overruns: u64,
}

/// A queue of this network namespace.
pub struct PacketQueue {
    queue: Queue,
    number: u16,
    whole: bool,
    statistics: QueueStatistics,
}

/// The beginning of each packet: its headers.
const HEADS: u16 = HEADERS_ONLY as u16;

impl std::fmt::Debug for PacketQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketQueue")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl PacketQueue {
    /// Takes over queue `number`, which no other process may read, for whole packets or for their headers alone. A queue
    /// that is open stays as it is: to have the other, let go of it first; the kernel drops what waits then.
    ///
    /// # Errors
    /// No privilege (CAP_NET_ADMIN), no support in the kernel, or another reader.
    pub fn open(number: u16, whole: bool) -> Result<Self, CaptureError> {
        let system = |action| move |source| CaptureError::System { action, source };
        let mut queue = Queue::open().map_err(system(
            "open NFQUEUE (needs CAP_NET_ADMIN and nfnetlink_queue)",
        ))?;
        queue.bind(number).map_err(|source| {
            let action = if source.raw_os_error() == Some(libc::EPERM) {
                "read the NFQUEUE: it needs CAP_NET_ADMIN, and another process must not read the \
                 same queue (--queue)"
            } else {
                "read the NFQUEUE"
            };
            CaptureError::System { action, source }
        })?;
        queue
            .set_copy_range(number, if whole { u16::MAX } else { HEADS })
            .and_then(|()| queue.set_queue_max_len(number, LENGTH))
            // Large packets need not be cut up for a reader of headers.
            .and_then(|()| queue.set_recv_gso(number, true))
            .and_then(|()| queue.set_recv_enobufs(true))
            .map_err(system("configure the NFQUEUE"))?;
        Ok(Self {
            queue,
            number,
            whole,
            statistics: QueueStatistics::default(),
        })
    }

    /// Waits for a packet and gives it the verdict that `decide` finds. For a thread of its own.
    ///
    /// # Errors
    /// The queue is broken, and has to be opened again.
    pub fn next(
        &mut self,
        decide: impl FnOnce(&QueuedPacket<'_>) -> Verdict,
    ) -> Result<(), CaptureError> {
        let mut message = loop {
            match self.queue.recv() {
                Ok(message) => break message,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.statistics.overruns += 1;
                }
                Err(source) => return Err(broken(source)),
            }
        };
        self.statistics.received += 1;
        let packet = QueuedPacket {
            data: message.get_payload(),
            original_len: message.get_original_len(),
        };
        match decide(&packet) {
            Verdict::Accept(mark) => {
                message.set_nfmark(mark);
                message.set_verdict(NfqVerdict::Accept);
            }
            Verdict::Drop => message.set_verdict(NfqVerdict::Drop),
        }
        match self.queue.verdict(message) {
            // The kernel forgot the packet, as when its device went.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result.map_err(broken),
        }
    }

    /// Whether packets are handed over whole.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// The number of the queue.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// What went through.
    pub fn statistics(&self) -> QueueStatistics {
        self.statistics
    }
}

fn broken(source: io::Error) -> CaptureError {
    CaptureError::System {
        action: "read the NFQUEUE",
        source,
    }
}
