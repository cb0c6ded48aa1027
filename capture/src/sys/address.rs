//! Link-layer socket addresses (`packet(7)`).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, socklen_t};

/// The length of a `sockaddr_ll`; a constant small enough for any conversion.
pub(crate) const LINK_ADDRESS_LENGTH: socklen_t = size_of::<libc::sockaddr_ll>() as socklen_t;

/// A link-layer address of a device. `protocol` is an EtherType in host order.
pub(crate) fn link_address(
    device_index: u32,
    protocol: u16,
    mac: Option<[u8; 6]>,
) -> libc::sockaddr_ll {
    let mut bytes = [0; 8];
    let mut length = 0;
    if let Some(mac) = mac {
        for (to, from) in bytes.iter_mut().zip(mac) {
            *to = from;
            length += 1;
        }
    }
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: c_int::try_from(device_index).unwrap_or(0),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: length,
        sll_addr: bytes,
    }
}

/// Binds a packet socket to a device: from here on it sees the frames of `protocol`.
pub(crate) fn bind_to_link(fd: BorrowedFd<'_>, device_index: u32, protocol: u16) -> io::Result<()> {
    let address = link_address(device_index, protocol, None);
    // SAFETY: the pointer is to a whole sockaddr_ll, which is only read during the call.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            std::ptr::from_ref(&address).cast(),
            LINK_ADDRESS_LENGTH,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The index of the device a packet socket is bound to; `None` once that device was removed.
pub(crate) fn bound_link(fd: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let mut address = MaybeUninit::<libc::sockaddr_ll>::zeroed();
    let mut length = LINK_ADDRESS_LENGTH;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the value.
    let result =
        unsafe { libc::getsockname(fd.as_raw_fd(), address.as_mut_ptr().cast(), &mut length) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then perhaps written by the kernel; integers and bytes only.
    let address = unsafe { address.assume_init() };
    Ok(u32::try_from(address.sll_ifindex).ok().filter(|i| *i > 0))
}
