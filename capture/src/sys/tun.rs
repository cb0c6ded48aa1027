//! Creating a tun device.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Bytes of a `struct ifreq`: a name of 16 bytes, then a union whose first bytes are the flags.
pub(crate) const REQUEST: usize = size_of::<libc::ifreq>();

/// Makes `fd`, which is open on /dev/net/tun, the device that `request` describes; its name is
/// filled in (`TUNSETIFF`).
pub(crate) fn set_interface(fd: BorrowedFd<'_>, request: &mut [u8; REQUEST]) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one struct ifreq, so many bytes are there, and any bytes
    // are a valid one.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
