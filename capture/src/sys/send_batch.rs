//! `sendmmsg(2)`: many packets, each to its own address, in one system call.

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

/// Sends up to [`MAX_BATCH`] packets without blocking; how many went out, or why the first one did
/// not. An error of a later packet is not lost: sent again as the first one, it fails again.
pub(crate) fn send_batch<'a>(
    fd: BorrowedFd<'_>,
    packets: impl Iterator<Item = (&'a [u8], &'a SocketAddress)>,
) -> io::Result<usize> {
    let mut parts = [const { MaybeUninit::<libc::iovec>::uninit() }; MAX_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::zeroed() }; MAX_BATCH];
    let mut count = 0;
    for ((part, header), (packet, address)) in parts.iter_mut().zip(&mut headers).zip(packets) {
        let part = part.write(libc::iovec {
            iov_base: packet.as_ptr().cast_mut().cast(),
            iov_len: packet.len(),
        });
        let (name, length) = address.parts();
        // SAFETY: an all-zero mmsghdr (null pointers, lengths of 0) is a valid value.
        let header = unsafe { header.assume_init_mut() };
        header.msg_hdr.msg_name = name.cast_mut();
        header.msg_hdr.msg_namelen = socklen_t::try_from(length).unwrap_or(0);
        header.msg_hdr.msg_iov = part;
        header.msg_hdr.msg_iovlen = 1;
        count += 1;
    }
    loop {
        // SAFETY: `count` headers are filled in; what they point to (packets, addresses, parts)
        // outlives the call, and the kernel only reads it.
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
