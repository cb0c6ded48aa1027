//! One socket and the batch of packets that waits for it.

use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::socket_send_buffer_size;
use rustix::net::{RecvFlags, recv};

use super::SenderConfig;
use super::batch::{Batch, Way};
use super::failure::Outcome;
use crate::sys::send_batch::send_batch;

/// How long a full socket is waited for at once: the time that a device takes for some hundred
/// packets.
const WAIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};
/// How many such waits one flush may take.
const MAX_WAITS: usize = 3;

/// Errors that a packet would meet alone, too.
fn is_of_the_way(errno: i32) -> bool {
    let those = [
        libc::ENOBUFS,
        libc::ENETDOWN,
        libc::ENODEV,
        libc::ENXIO,
        libc::EPERM,
    ];
    those.contains(&errno)
}

/// A socket with its batch.
pub(super) struct Lane {
    fd: OwnedFd,
    batch: Batch,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("fd", &self.fd)
            .field("frames", &self.batch.frames())
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// `headroom` is that before each IP header. `joins`: the socket takes super-segments
    /// ([`set_virtio_header`](crate::sys::option::set_virtio_header)).
    pub(super) fn new(fd: OwnedFd, config: &SenderConfig, headroom: usize, joins: bool) -> Self {
        Self {
            fd,
            batch: Batch::new(config, headroom, joins),
        }
    }

    /// Adds a packet.
    pub(super) fn push(
        &mut self,
        cookie: u64,
        way: &Way<'_>,
        write: impl FnOnce(&mut [u8]) -> usize,
        outcome: &mut Outcome,
    ) {
        if self.batch.is_full() {
            self.flush(outcome);
        }
        if let Err(length) = self.batch.push(cookie, way, write) {
            outcome.fail(cookie, way.destination, length, libc::EMSGSIZE);
        }
    }

    /// Sends what is queued. One frame that cannot be sent is skipped, the rest goes on.
    pub(super) fn flush(&mut self, outcome: &mut Outcome) {
        self.batch.seal();
        let mut done = 0;
        let mut waits = 0;
        while done < self.batch.frames() {
            let errno = match send_batch(self.fd.as_fd(), self.batch.frames_from(done)) {
                Ok(sent) if sent > 0 => {
                    let packets = self.batch.packets(done..done + sent);
                    let bytes = packets.iter().map(|queued| queued.length).sum::<usize>();
                    outcome.counters.bytes += bytes as u64;
                    outcome.counters.packets += packets.len() as u64;
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
                // Each further frame would only meet the same full socket.
                self.fail(done..self.batch.frames(), errno, outcome);
                break;
            }
            if self.batch.packets(done..done + 1).len() > 1 && !is_of_the_way(errno) {
                tracing::warn!(
                    "packets are sent one by one from now on: several as one were refused ({})",
                    std::io::Error::from_raw_os_error(errno)
                );
                self.batch.stop_joining(done);
                continue;
            }
            if errno == libc::EMSGSIZE {
                self.forget_reports();
            }
            self.fail(done..done + 1, errno, outcome);
            done += 1;
        }
        self.discard();
    }

    fn fail(&self, frames: Range<usize>, errno: i32, outcome: &mut Outcome) {
        for queued in self.batch.packets(frames) {
            outcome.fail(queued.cookie, queued.destination, queued.length, errno);
        }
    }

    /// Throws away what is queued.
    pub(super) fn discard(&mut self) {
        self.batch.clear();
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
