//! News of the kernel (`rtnetlink(7)`'s groups): somebody has changed policy rules, or removed a
//! route of ours.
//!
//! Without a rule of ours the next answer goes to a real client, so a look every few seconds would
//! be late.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use super::netlink::message::messages;
use super::numbers::{RTM_DELROUTE, RTM_DELRULE, RTM_NEWRULE};

/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV4_RULE`, `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV6_RULE`, as bits.
const GROUPS: u32 = 1 << (7 - 1) | 1 << (8 - 1) | 1 << (11 - 1) | 1 << (19 - 1);
/// A datagram of news holds a few messages; what is cut off was news all the same.
const NEWS_BYTES: usize = 32 * 1024;
/// Where `struct rtmsg` has the route's protocol.
const PROTOCOL: usize = 5;

/// A socket on which the kernel tells of changes.
pub(super) struct Watch {
    fd: OwnedFd,
    news: Vec<u8>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Watch {
    pub(super) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&fd, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self {
            fd,
            news: vec![0; NEWS_BYTES],
        })
    }

    /// Whether anything has happened since the last call to rules, or to routes of `protocol`.
    pub(super) fn has_news(&mut self, protocol: u8) -> bool {
        let mut any = false;
        loop {
            match recv(&self.fd, &mut self.news[..], RecvFlags::empty()) {
                Ok((received, _)) => {
                    let datagram = self.news.get(..received).unwrap_or_default();
                    any |= messages(datagram).any(|message| match message.kind {
                        RTM_NEWRULE | RTM_DELRULE => true,
                        RTM_DELROUTE => message.body.get(PROTOCOL) == Some(&protocol),
                        _ => false,
                    });
                }
                Err(Errno::INTR) => {}
                // More than the socket could hold.
                Err(Errno::NOBUFS) => any = true,
                Err(_) => return any,
            }
        }
    }
}
