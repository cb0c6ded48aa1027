//! One socket and the batch of packets that waits for it.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_send_buffer_size;
use rustix::net::{RecvFlags, recv};

use super::SenderConfig;
use super::failure::Outcome;
use crate::sys::send_batch::{MAX_BATCH, SocketAddress, send_batch};

/// How long a full socket is waited for at once: the time that a device takes for some hundred
/// packets.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
/// How many such waits one flush may take.
const MAX_WAITS: usize = 3;

#[derive(Debug)]
struct Queued {
    cookie: u64,
    destination: IpAddr,
    /// With its link-layer header, if it has one.
    length: usize,
}

/// A socket with memory for a batch, allocated once.
pub(super) struct Lane {
    fd: OwnedFd,
    arena: Vec<u8>,
    slot: usize,
    /// Bytes before the IP header in each slot.
    headroom: usize,
    capacity: usize,
    queued: Vec<Queued>,
    addresses: Vec<SocketAddress>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("fd", &self.fd)
            .field("slot", &self.slot)
            .field("queued", &self.queued.len())
            .finish_non_exhaustive()
    }
}

impl Lane {
    pub(super) fn new(fd: OwnedFd, config: &SenderConfig, headroom: usize) -> Self {
        let capacity = config.batch.clamp(1, MAX_BATCH);
        let slot = headroom + config.max_packet.clamp(1, 65_535);
        Self {
            fd,
            arena: vec![0; capacity * slot],
            slot,
            headroom,
            capacity,
            queued: Vec::with_capacity(capacity),
            addresses: Vec::with_capacity(capacity),
        }
    }

    /// Adds a packet; `header` fills the headroom before it.
    pub(super) fn push(
        &mut self,
        cookie: u64,
        destination: IpAddr,
        address: SocketAddress,
        header: &[u8],
        write: impl FnOnce(&mut [u8]) -> usize,
        outcome: &mut Outcome,
    ) {
        if self.queued.len() >= self.capacity {
            self.flush(outcome);
        }
        let start = self.queued.len() * self.slot;
        let slot = self.arena.get_mut(start..).unwrap_or_default();
        let slot = slot.get_mut(..self.slot).unwrap_or_default();
        let Some((before, packet)) = slot.split_at_mut_checked(self.headroom) else {
            return;
        };
        for (to, from) in before.iter_mut().zip(header) {
            *to = *from;
        }
        let room = packet.len();
        let length = write(packet);
        if length > room {
            return outcome.fail(cookie, destination, length, libc::EMSGSIZE);
        }
        if length > 0 {
            self.queued.push(Queued {
                cookie,
                destination,
                length: self.headroom + length,
            });
            self.addresses.push(address);
        }
    }

    /// Sends what is queued. One packet that cannot be sent is skipped, the rest goes on.
    pub(super) fn flush(&mut self, outcome: &mut Outcome) {
        let mut done = 0;
        let mut waits = 0;
        while let Some(rest) = self.queued.get(done..).filter(|rest| !rest.is_empty()) {
            let packets = rest
                .iter()
                .zip(self.arena.chunks_exact(self.slot).skip(done))
                .map(|(queued, slot)| slot.get(..queued.length).unwrap_or_default());
            let addresses = self.addresses.get(done..).unwrap_or_default();
            let errno = match send_batch(self.fd.as_fd(), packets.zip(addresses)) {
                Ok(sent) if sent > 0 => {
                    let bytes = rest.iter().take(sent).map(|q| q.length - self.headroom);
                    outcome.counters.bytes += bytes.sum::<usize>() as u64;
                    outcome.counters.packets += sent as u64;
                    outcome.counters.batches += 1;
                    done += sent;
                    continue;
                }
                Ok(_) => libc::EINVAL,
                Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            };
            if errno == libc::EAGAIN {
                if waits < MAX_WAITS {
                    waits += 1;
                    outcome.counters.waits += 1;
                    self.wait_for_room();
                    continue;
                }
                // Each further packet would only meet the same full socket.
                for queued in rest {
                    let length = queued.length - self.headroom;
                    outcome.fail(queued.cookie, queued.destination, length, errno);
                }
                break;
            }
            if errno == libc::EMSGSIZE {
                self.forget_reports();
            }
            if let Some(queued) = rest.first() {
                let length = queued.length - self.headroom;
                outcome.fail(queued.cookie, queued.destination, length, errno);
            }
            done += 1;
        }
        self.discard();
    }

    /// Throws away what is queued.
    pub(super) fn discard(&mut self) {
        self.queued.clear();
        self.addresses.clear();
    }

    /// The socket's buffer, in the bytes that were asked for; 0 if the kernel does not say.
    pub(super) fn buffer(&self) -> usize {
        // The kernel shows twice of that: what it takes for its own records (socket(7)).
        socket_send_buffer_size(&self.fd).map_or(0, |bytes| bytes / 2)
    }

    /// Of a packet that is too long a raw socket also keeps a report in its error queue
    /// (IP_RECVERR, `ip(7)`). The error number said it all, and a queue with something in it would
    /// end every wait at once.
    fn forget_reports(&self) {
        let flags = RecvFlags::ERRQUEUE | RecvFlags::DONTWAIT;
        let mut nothing = [0_u8; 1];
        while recv(&self.fd, &mut nothing, flags).is_ok() {}
    }

    fn wait_for_room(&self) {
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        // Whatever ends the wait, the next send shows how things are.
        let _ = poll(&mut fds, Some(&WAIT));
    }
}
