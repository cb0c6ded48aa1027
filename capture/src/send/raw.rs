//! Through the kernel's routing: a raw socket for each address family.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::SenderConfig;
use super::batch::Way;
use super::failure::Outcome;
use super::lane::Lane;
use crate::error::CaptureError;
use crate::sys::option::{
    report_ipv4_errors, report_ipv6_errors, set_ipv4_header_included, set_ipv6_header_included,
    set_mark, set_send_buffer,
};
use crate::sys::send_batch::SocketAddress;

type SetOption = fn(BorrowedFd<'_>) -> std::io::Result<()>;

#[derive(Debug)]
pub(super) struct RawRoute {
    ipv4: Option<Lane>,
    ipv6: Option<Lane>,
}

impl RawRoute {
    pub(super) fn open(config: &SenderConfig) -> Result<Self, CaptureError> {
        Ok(Self {
            ipv4: lane(AddressFamily::INET, config)?,
            ipv6: lane(AddressFamily::INET6, config)?,
        })
    }

    pub(super) fn push(
        &mut self,
        cookie: u64,
        destination: IpAddr,
        write: impl FnOnce(&mut [u8]) -> usize,
        outcome: &mut Outcome,
    ) {
        let destination = destination.to_canonical();
        let lane = match destination {
            IpAddr::V4(_) => &mut self.ipv4,
            IpAddr::V6(_) => &mut self.ipv6,
        };
        match lane {
            Some(lane) => {
                let way = Way {
                    destination,
                    address: socket_address(destination),
                    link_header: &[],
                    hop: None,
                };
                lane.push(cookie, &way, write, outcome);
            }
            None => outcome.fail(cookie, destination, 0, libc::ENETUNREACH),
        }
    }

    pub(super) fn flush(&mut self, outcome: &mut Outcome) {
        for lane in [&mut self.ipv4, &mut self.ipv6].into_iter().flatten() {
            lane.flush(outcome);
        }
    }

    pub(super) fn discard(&mut self) {
        for lane in [&mut self.ipv4, &mut self.ipv6].into_iter().flatten() {
            lane.discard();
        }
    }

    /// The smaller one.
    pub(super) fn buffer(&self) -> usize {
        let lanes = [&self.ipv4, &self.ipv6].into_iter().flatten();
        lanes.map(Lane::buffer).min().unwrap_or(0)
    }
}

/// `None` when the kernel has no such address family.
fn lane(family: AddressFamily, config: &SenderConfig) -> Result<Option<Lane>, CaptureError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = match socket_with(family, SocketType::RAW, flags, Some(ipproto::RAW)) {
        Ok(fd) => fd,
        Err(rustix::io::Errno::AFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(CaptureError::of("open a raw socket")(error)),
    };
    let (include_header, report_errors): (SetOption, SetOption) = if family == AddressFamily::INET {
        (set_ipv4_header_included, report_ipv4_errors)
    } else {
        (set_ipv6_header_included, report_ipv6_errors)
    };
    include_header(fd.as_fd())
        .map_err(CaptureError::of("send packets with their own IP header"))?;
    report_errors(fd.as_fd()).map_err(CaptureError::of("learn what became of packets"))?;
    set_options(&fd, config)?;
    Ok(Some(Lane::new(fd, config, 0, false)))
}

/// What raw and packet sockets have in common.
pub(super) fn set_options(fd: &OwnedFd, config: &SenderConfig) -> Result<(), CaptureError> {
    set_send_buffer(fd.as_fd(), config.send_buffer)
        .map_err(CaptureError::of("set the send buffer"))?;
    if let Some(mark) = config.mark {
        set_mark(fd.as_fd(), mark)
            .map_err(CaptureError::of("mark packets (CAP_NET_ADMIN is needed)"))?;
    }
    Ok(())
}

fn socket_address(destination: IpAddr) -> SocketAddress {
    match destination {
        IpAddr::V4(address) => SocketAddress::Ipv4(libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: 0,
            sin_addr: libc::in_addr {
                s_addr: u32::from_ne_bytes(address.octets()),
            },
            sin_zero: [0; 8],
        }),
        // For raw sockets the port has to be 0 (or the protocol).
        IpAddr::V6(address) => SocketAddress::Ipv6(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as u16,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr {
                s6_addr: address.octets(),
            },
            sin6_scope_id: 0,
        }),
    }
}
