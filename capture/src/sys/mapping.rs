//! Memory that is shared with the kernel: the blocks of a capture ring.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the status word of a block stands (`struct tpacket_block_desc`, `linux/if_packet.h`).
const STATUS_OFFSET: usize = 8;

/// The mapped blocks of a ring. Unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    block_size: usize,
    block_count: usize,
}

// SAFETY: the memory belongs to this value alone (and to the kernel, by the protocol of the
// status words); nothing about it is bound to the thread that mapped it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps the ring of a packet socket: `block_count` blocks of `block_size` bytes, as they were
    /// asked for with `PACKET_RX_RING`.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        block_size: usize,
        block_count: usize,
    ) -> io::Result<Self> {
        let length = block_size
            .checked_mul(block_count)
            .filter(|_| {
                block_size > STATUS_OFFSET + size_of::<u32>() && block_size.is_multiple_of(8)
            })
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
            block_size,
            block_count,
        })
    }

    pub(crate) fn block_count(&self) -> usize {
        self.block_count
    }

    fn block_start(&self, index: usize) -> Option<NonNull<u8>> {
        if index >= self.block_count {
            return None;
        }
        // SAFETY: index is below the count, so the offset is inside the mapping.
        Some(unsafe { self.start.add(index * self.block_size) })
    }

    fn status(&self, index: usize) -> Option<&AtomicU32> {
        let block = self.block_start(index)?;
        // SAFETY: a block is longer than the offset of its status word.
        let word = unsafe { block.add(STATUS_OFFSET) };
        // SAFETY: the word is aligned (a mapping starts at a page, blocks are multiples of 8) and
        // lives as long as the mapping; the kernel and this process access it atomically, and no
        // slice made by `block` is alive while it is written (see there).
        Some(unsafe { AtomicU32::from_ptr(word.cast().as_ptr()) })
    }

    /// The bytes of a block if the kernel has handed it over, after which it does not touch the
    /// block until `release`.
    pub(crate) fn block(&self, index: usize) -> Option<&[u8]> {
        if self.status(index)?.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return None;
        }
        let start = self.block_start(index)?;
        // SAFETY: the whole block is inside the mapping; with TP_STATUS_USER set the kernel does
        // not write to it, and this process only does in `release`, which needs `&mut self` and so
        // comes after the end of this borrow.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), self.block_size) })
    }

    /// Gives a block back to the kernel.
    pub(crate) fn release(&mut self, index: usize) {
        if let Some(status) = self.status(index) {
            status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what `new` mapped, and no reference into it outlives this value.
        unsafe {
            libc::munmap(
                self.start.as_ptr().cast(),
                self.block_size * self.block_count,
            )
        };
    }
}
