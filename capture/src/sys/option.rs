//! Socket options that take a plain structure.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, socklen_t};

/// Values that the kernel reads or writes byte for byte.
///
/// # Safety
/// Every bit pattern is a valid value, and there are no pointers except ones that stay valid for
/// as long as the value lives.
unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an array of integers.
unsafe impl Plain for [u32; 9] {}
// SAFETY: a structure of four u32.
unsafe impl Plain for libc::tpacket_req {}
// SAFETY: a structure of two u32.
unsafe impl Plain for libc::tpacket_stats {}
// SAFETY: integers and an array of bytes.
unsafe impl Plain for libc::packet_mreq {}

fn set<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    set_raw(
        fd,
        level,
        name,
        std::ptr::from_ref(value).cast(),
        size_of::<T>(),
    )
}

fn set_raw(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: *const c_void,
    length: usize,
) -> io::Result<()> {
    let length = socklen_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: both callers pass a pointer to `length` readable bytes, which the kernel only reads
    // during the call.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn get<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length =
        socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the kernel writes at most `length` bytes, and that many are there.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, perhaps overwritten by the kernel, and every bit pattern of a Plain type is
    // valid.
    Ok(unsafe { value.assume_init() })
}

/// Asks for TPACKET_V2, the ring of slots with one frame each.
pub(crate) fn set_packet_version_2(fd: BorrowedFd<'_>) -> io::Result<()> {
    let version = libc::tpacket_versions::TPACKET_V2 as c_int;
    set(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)
}

/// Lets frames that are too long for a slot wait whole in the socket's queue.
pub(crate) fn copy_long_frames(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(
        fd,
        libc::SOL_PACKET,
        libc::PACKET_COPY_THRESH,
        &(1 as c_int),
    )
}

/// Size of the receive queue in bytes: past the system's limit where that is allowed, else up to
/// it. Gives what the kernel granted.
pub(crate) fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    // The kernel doubles the number, as room for its own structures, which frames count with.
    let half = c_int::try_from(bytes / 2).unwrap_or(c_int::MAX / 2);
    if set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &half).is_err() {
        set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &half)?;
    }
    let granted: c_int = get(fd, libc::SOL_SOCKET, libc::SO_RCVBUF)?;
    Ok(usize::try_from(granted).unwrap_or(0))
}

/// Makes the kernel allocate the receive ring.
pub(crate) fn set_receive_ring(fd: BorrowedFd<'_>, request: &libc::tpacket_req) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, request)
}

/// Sets the device that the socket sees to promiscuous mode for as long as the socket is open.
pub(crate) fn set_promiscuous(fd: BorrowedFd<'_>, device_index: u32) -> io::Result<()> {
    membership(fd, device_index, libc::PACKET_ADD_MEMBERSHIP)
}

/// Takes that back.
pub(crate) fn end_promiscuous(fd: BorrowedFd<'_>, device_index: u32) -> io::Result<()> {
    membership(fd, device_index, libc::PACKET_DROP_MEMBERSHIP)
}

fn membership(fd: BorrowedFd<'_>, device_index: u32, change: c_int) -> io::Result<()> {
    let request = libc::packet_mreq {
        mr_ifindex: c_int::try_from(device_index).map_err(|_| io::ErrorKind::InvalidInput)?,
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(fd, libc::SOL_PACKET, change, &request)
}

/// Puts a [`VirtioHeader`](super::send_batch::VirtioHeader) before each frame.
pub(crate) fn set_virtio_header(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &(1 as c_int))
}

/// Joins a fan-out group; `argument` is the group id, and the mode and flags shifted by 16.
pub(crate) fn set_fanout(fd: BorrowedFd<'_>, argument: u32) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &argument)
}

/// Bytes that wait in the receive queue, and how many may (`SO_MEMINFO`).
pub(crate) fn receive_queue(fd: BorrowedFd<'_>) -> io::Result<(usize, usize)> {
    /// `SO_MEMINFO` with the nine numbers of `linux/sock_diag.h`; not in the libc crate.
    const MEMORY_INFO: c_int = 55;
    let [used, most, ..]: [u32; 9] = get(fd, libc::SOL_SOCKET, MEMORY_INFO)?;
    Ok((used as usize, most as usize))
}

/// Packets and drops since the last call: reading resets the kernel's counters.
pub(crate) fn take_packet_statistics(fd: BorrowedFd<'_>) -> io::Result<libc::tpacket_stats> {
    get(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS)
}

/// Attaches a classic BPF program, in place of the one that was attached before.
pub(crate) fn attach_filter(
    fd: BorrowedFd<'_>,
    instructions: &mut [libc::sock_filter],
) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: instructions.as_mut_ptr(),
    };
    set_raw(
        fd,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_FILTER,
        std::ptr::from_ref(&program).cast(),
        size_of::<libc::sock_fprog>(),
    )
}

/// Send buffer size in bytes: past the system's limit where that is allowed, else up to it.
pub(crate) fn set_send_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).unwrap_or(c_int::MAX);
    if set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &bytes).is_ok() {
        return Ok(());
    }
    set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, &bytes)
}

/// Marks every packet of the socket, for policy rules and firewalls.
pub(crate) fn set_mark(fd: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_MARK, &mark)
}

/// The caller supplies IPv4 headers.
pub(crate) fn set_ipv4_header_included(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_HDRINCL, &(1 as c_int))
}

/// The caller supplies IPv6 headers.
pub(crate) fn set_ipv6_header_included(fd: BorrowedFd<'_>) -> io::Result<()> {
    /// `linux/in6.h`; not in the libc crate.
    const IPV6_HDRINCL: c_int = 36;
    set(fd, libc::IPPROTO_IPV6, IPV6_HDRINCL, &(1 as c_int))
}

/// Lets a raw IPv4 socket know what became of its packets: without it the kernel keeps silent about
/// those that the device's queue refused (`raw(7)`).
pub(crate) fn report_ipv4_errors(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_RECVERR, &(1 as c_int))
}

/// As [`report_ipv4_errors`], for a raw IPv6 socket.
pub(crate) fn report_ipv6_errors(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, &(1 as c_int))
}

/// Lets the socket use one device only.
pub(crate) fn bind_to_device(fd: BorrowedFd<'_>, device: &str) -> io::Result<()> {
    set_raw(
        fd,
        libc::SOL_SOCKET,
        libc::SO_BINDTODEVICE,
        device.as_ptr().cast(),
        device.len(),
    )
}
