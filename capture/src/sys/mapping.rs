//! Memory that is shared with the kernel: the slots of a capture ring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// The mapped slots of a ring. Unmapped on drop.
///
/// A slot begins with its status word (`tp_status` of `struct tpacket2_hdr`,
/// `linux/if_packet.h`), which says whether it is the kernel's or this process's.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    slot_size: usize,
    slot_count: usize,
}

// SAFETY: the memory belongs to this value alone (and to the kernel, by the protocol of the
// status words); nothing about it is bound to the thread that mapped it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the ring of a packet socket: `slot_count` slots of `slot_size` bytes, as they were
    /// asked for with `PACKET_RX_RING`.
    pub(crate) fn new(fd: BorrowedFd<'_>, slot_size: usize, slot_count: usize) -> io::Result<Self> {
        let length = slot_size
            .checked_mul(slot_count)
            .filter(|_| slot_size > size_of::<u32>() && slot_size.is_multiple_of(16))
            .ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            slot_size,
            slot_count,
        })
    }

    pub(crate) fn slot_count(&self) -> usize {
        self.slot_count
    }

    fn slot_start(&self, index: usize) -> Option<NonNull<u8>> {
        if index >= self.slot_count {
            return None;
        }
        // SAFETY: index is below the count, so the offset is inside the mapping.
        Some(unsafe { self.start.add(index * self.slot_size) })
    }

    fn status(&self, index: usize) -> Option<&AtomicU32> {
        let word = self.slot_start(index)?;
        // SAFETY: the word is aligned (a mapping starts at a page, slots are multiples of 16) and
        // lives as long as the mapping; the kernel and this process access it atomically, and no
        // slice made by `slot` is alive while it is written (see there).
        Some(unsafe { AtomicU32::from_ptr(word.cast().as_ptr()) })
    }

    /// The status word and the bytes of a slot if the kernel has handed it over, after which it
    /// does not touch the slot until `release`.
    pub(crate) fn slot(&self, index: usize) -> Option<(u32, &[u8])> {
        let status = self.status(index)?.load(Ordering::Acquire);
        if status & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let start = self.slot_start(index)?;
        // SAFETY: the whole slot is inside the mapping; with TP_STATUS_USER set the kernel does
        // not write to it, and this process only does in `release`, which needs `&mut self` and so
        // comes after the end of this borrow.
        let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), self.slot_size) };
        Some((status, bytes))
    }

    /// Gives a slot back to the kernel.
    pub(crate) fn release(&mut self, index: usize) {
        if let Some(status) = self.status(index) {
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what `new` mapped, and no reference into it outlives this value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.slot_size * self.slot_count) };
    }
}
