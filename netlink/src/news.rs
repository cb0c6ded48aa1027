//! What others change, as the kernel tells it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with,
};

use crate::message::{Message, messages};

/// A datagram of news holds a few messages; what is cut off was news all the same.
const NEWS_BYTES: usize = 32 * 1024;

/// A socket that hears of changes in one subsystem of the kernel, in the network namespace of the thread that opened
/// it.
#[derive(Debug)]
pub struct News {
    fd: OwnedFd,
    datagram: Vec<u8>,
}

impl News {
    /// Of routes, rules, devices and addresses: the `RTNLGRP_*` of `groups`, as [`bit`]s.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of_routing(groups: u32) -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the default.
        Self::open(None, groups)
    }

    /// Of the firewall: the `NFNLGRP_*` of `groups`, as [`bit`]s.
    ///
    /// # Errors
    /// The kernel's.
    pub fn of_firewall(groups: u32) -> io::Result<Self> {
        Self::open(Some(NETFILTER), groups)
    }

    fn open(protocol: Option<Protocol>, groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self {
            fd,
            datagram: vec![0; NEWS_BYTES],
        })
    }

    /// Reads all there is, without waiting. Says whether any of it matters.
    pub fn any(&mut self, matters: impl Fn(&Message<'_>) -> bool) -> bool {
        let mut any = false;
        loop {
            match recv(&self.fd, &mut self.datagram[..], RecvFlags::empty()) {
                Ok((received, _)) => {
                    let datagram = self.datagram.get(..received).unwrap_or_default();
                    any |= messages(datagram).any(|message| matters(&message));
                }
                Err(Errno::INTR) => {}
                // More than the socket could hold.
                Err(Errno::NOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}

/// To wait for news with others' means: it becomes readable.
impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A group by its number, from 1.
pub const fn bit(group: u32) -> u32 {
    1 << (group - 1)
}
