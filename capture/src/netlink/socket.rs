//! A blocking netlink socket: one request, one answer.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use super::message::{Request, messages, u32_at};

/// The kernel answers at once; this only keeps a caller from hanging for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Larger than any one answer; a device with many virtual functions has some 20 KB.
const ANSWER_BYTES: usize = 64 * 1024;
/// `NLMSG_ERROR` of `netlink(7)`.
const MESSAGE_ERROR: u16 = 2;

/// A connection to the kernel's routing subsystem, or to another one, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub(crate) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    answer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket. Needs no privilege.
    pub(crate) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the default.
        Self::of(None)
    }

    /// Opens a socket to the kernel's IPsec, which answers those with CAP_NET_ADMIN.
    pub(crate) fn open_xfrm() -> io::Result<Self> {
        Self::of(Some(rustix::net::netlink::XFRM))
    }

    fn of(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self {
            fd,
            sequence: 0,
            answer: vec![0; ANSWER_BYTES],
        })
    }

    /// Asks one question; the body of the answer. An error of the kernel is returned as such.
    pub(super) fn ask(
        &mut self,
        message_type: u16,
        fixed: &[u8],
        attributes: &[(u16, &[u8])],
    ) -> io::Result<&[u8]> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        let request = attributes
            .iter()
            .fold(Request::new(message_type, sequence, fixed), |r, (t, v)| {
                r.attribute(*t, v)
            });
        send(&self.fd, &request.finish(), SendFlags::empty())?;
        // An answer to an earlier request whose wait was cut short may come first.
        for _ in 0..16 {
            let (received, _) = recv(&self.fd, &mut self.answer[..], RecvFlags::empty())?;
            let datagram = self.answer.get(..received).unwrap_or_default();
            let Some(message) = messages(datagram).find(|m| m.sequence == sequence) else {
                continue;
            };
            if message.message_type == MESSAGE_ERROR {
                let code = u32_at(message.body, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(code.saturating_neg()));
            }
            let length = message.body.len();
            let start = message.body.as_ptr().addr() - datagram.as_ptr().addr();
            return Ok(self.answer.get(start..start + length).unwrap_or_default());
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}
