//! `sendmmsg(2)`: many frames, each to its own address, in one system call.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::socklen_t;

/// Packets per system call. The kernel would take 1024; beyond some dozens the cost of the call
/// itself no longer shows.
pub(crate) const MAX_BATCH: usize = 64;

/// Where a packet is sent: whichever address its socket wants.
#[derive(Clone, Copy)]
pub(crate) enum SocketAddress {
    /// For an IPv4 raw socket.
    Ipv4(libc::sockaddr_in),
    /// For an IPv6 raw socket.
    Ipv6(libc::sockaddr_in6),
    /// For a packet socket.
    Link(libc::sockaddr_ll),
}

impl SocketAddress {
    fn parts(&self) -> (*const libc::c_void, usize) {
        match self {
            Self::Ipv4(a) => (std::ptr::from_ref(a).cast(), size_of_val(a)),
            Self::Ipv6(a) => (std::ptr::from_ref(a).cast(), size_of_val(a)),
            Self::Link(a) => (std::ptr::from_ref(a).cast(), size_of_val(a)),
        }
    }
}

/// What a packet socket with `PACKET_VNET_HDR` wants before each frame (`struct virtio_net_hdr`): how it is to be cut into
/// packets, and where the checksum of each goes. All zero for a frame that stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct VirtioHeader {
    pub(crate) flags: u8,
    pub(crate) gso_type: u8,
    pub(crate) header_len: u16,
    pub(crate) gso_size: u16,
    pub(crate) checksum_start: u16,
    pub(crate) checksum_offset: u16,
}

impl VirtioHeader {
    /// In `flags`: the checksum is to be finished.
    pub(crate) const NEEDS_CHECKSUM: u8 = 1;
    /// In `gso_type`: TCP over IPv4.
    pub(crate) const TCP4: u8 = 1;
    /// In `gso_type`: TCP over IPv6.
    pub(crate) const TCP6: u8 = 4;
}

/// One frame: its parts follow each other on the wire.
pub(crate) struct OutFrame<'a, P> {
    pub(crate) header: Option<&'a VirtioHeader>,
    pub(crate) parts: P,
    pub(crate) address: &'a SocketAddress,
}

fn part(bytes: *const u8, length: usize) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.cast_mut().cast(),
        iov_len: length,
    }
}

/// Sends up to [`MAX_BATCH`] frames of as many parts in all without blocking; how many went out, or why the first one did
/// not. An error of a later frame is not lost: sent again as the first one, it fails again.
pub(crate) fn send_batch<'a, P: Iterator<Item = &'a [u8]>>(
    fd: BorrowedFd<'_>,
    frames: impl Iterator<Item = OutFrame<'a, P>>,
) -> io::Result<usize> {
    // A header for each frame besides.
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; 2 * MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::zeroed() }; MAX_BATCH];
    let mut count = 0;
    let mut rest = &mut parts[..];
    for (header, frame) in headers.iter_mut().zip(frames) {
        let before = frame
            .header
            .map(|header| part(std::ptr::from_ref(header).cast(), size_of_val(header)));
        let bytes = frame.parts.map(|bytes| part(bytes.as_ptr(), bytes.len()));
        let mut used = 0;
        for (to, from) in rest.iter_mut().zip(before.into_iter().chain(bytes)) {
            to.write(from);
            used += 1;
        }
        let (these, others) = rest.split_at_mut(used);
        rest = others;
        let (name, length) = frame.address.parts();
        // SAFETY: an all-zero mmsghdr (null pointers, lengths of 0) is a valid value.
        let header = unsafe { header.assume_init_mut() };
        header.msg_hdr.msg_name = name.cast_mut();
        header.msg_hdr.msg_namelen = socklen_t::try_from(length).unwrap_or(0);
        header.msg_hdr.msg_iov = these.as_mut_ptr().cast();
        // size_t in glibc, c_int in musl.
        header.msg_hdr.msg_iovlen = used as _;
        count += 1;
    }
    loop {
        // SAFETY: `count` headers are filled in; what they point to (bytes, addresses, parts, as many of them as were
        // written) outlives the call, and the kernel only reads it.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                count,
                // c_int in glibc, c_uint in musl.
                libc::MSG_DONTWAIT as _,
            )
        };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
