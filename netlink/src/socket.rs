//! A blocking netlink socket: changes with an acknowledgement, questions, and dumps.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::retry_on_intr;
use rustix::net::netlink::{NETFILTER, SOCK_DIAG, XFRM};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use crate::message::{ACK, Attributes, DUMP, Message, messages, request, u16_at, u32_at};

/// The kernel answers at once; this only keeps a caller from hanging for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel fills a datagram of a dump with up to 32 KB; one device with many virtual functions
/// may need some 20 KB.
const ANSWER_BYTES: usize = 256 * 1024;
/// A dump that the kernel says was changed under it is asked for again, this often at most.
const DUMP_ATTEMPTS: usize = 5;
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// Answers of an earlier request whose wait was cut short are skipped, this many at most.
const STALE: usize = 64;
/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;

/// A connection to one subsystem of the kernel, in the network namespace of the thread that opened
/// it.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    answer: Vec<u8>,
}

impl Netlink {
    /// Routes, rules, devices, addresses, neighbours: `rtnetlink(7)`. Asking needs no privilege.
    ///
    /// # Errors
    /// The kernel's.
    pub fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the default.
        Self::open(None)
    }

    /// Sockets: `sock_diag(7)`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sock_diag() -> io::Result<Self> {
        Self::open(Some(SOCK_DIAG))
    }

    /// IPsec, which answers those with CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel's.
    pub fn xfrm() -> io::Result<Self> {
        Self::open(Some(XFRM))
    }

    /// The firewall: nftables.
    ///
    /// # Errors
    /// The kernel's.
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(NETFILTER))
    }

    fn open(protocol: Option<Protocol>) -> io::Result<Self> {
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

    fn send(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request(kind, flags, self.sequence, fixed, attributes);
        send(&self.fd, &bytes, SendFlags::empty())?;
        Ok(())
    }

    /// Makes a change and waits for the kernel's word on it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn change(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.send(kind, flags | ACK, fixed, attributes)?;
        self.answered(|message| (message.kind == ERROR).then(|| result(message.body)))
    }

    /// Asks one question; the body of the answer.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ask(&mut self, kind: u16, fixed: &[u8], attributes: &Attributes) -> io::Result<Vec<u8>> {
        self.send(kind, 0, fixed, attributes)?;
        self.answered(|message| {
            Some(match message.kind {
                ERROR => result(message.body).map(|()| Vec::new()),
                _ => Ok(message.body.to_vec()),
            })
        })
    }

    /// Waits for the message that `read` takes for the answer to the last request.
    fn answered<T>(
        &mut self,
        read: impl Fn(Message<'_>) -> Option<io::Result<T>>,
    ) -> io::Result<T> {
        for _ in 0..STALE {
            let received = self.receive()?;
            let datagram = self.answer.get(..received).unwrap_or_default();
            let found = messages(datagram).find(|message| message.sequence == self.sequence);
            if let Some(answer) = found.and_then(&read) {
                return answer;
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// The length of the next datagram, in `answer`. With a time-out on the socket a signal ends the wait even where
    /// handlers restart calls (signal(7)).
    fn receive(&mut self) -> io::Result<usize> {
        let received = retry_on_intr(|| recv(&self.fd, &mut self.answer[..], RecvFlags::empty()));
        Ok(received.map(|(received, _)| received)?)
    }

    /// Asks for all there are that fit `attributes`; `each` gets the body of every message.
    ///
    /// # Errors
    /// The kernel's.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        attributes: &Attributes,
        each: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(all) = self.dump_once(kind, fixed, attributes, &each)? {
                return Ok(all);
            }
        }
        Err(io::ErrorKind::Interrupted.into())
    }

    /// None when the kernel says that the list was changed while it was read.
    fn dump_once<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        attributes: &Attributes,
        each: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Vec<T>>> {
        self.send(kind, DUMP, fixed, attributes)?;
        let mut all = Vec::new();
        let mut interrupted = false;
        loop {
            let received = self.receive()?;
            let datagram = self.answer.get(..received).unwrap_or_default();
            interrupted |= u16_at(datagram, 6).unwrap_or(0) & INTERRUPTED != 0;
            for message in messages(datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    DONE => return Ok((!interrupted).then_some(all)),
                    ERROR => {
                        result(message.body)?;
                        return Ok(Some(all));
                    }
                    _ => all.extend(each(message.body)),
                }
            }
        }
    }
}

/// `struct nlmsgerr`: zero or a negative error number.
fn result(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "unreadable netlink answer",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // linux/rtnetlink.h.
    const DEL_LINK: u16 = 17;
    const GET_LINK: u16 = 18;
    const IFINFOMSG: usize = 16;

    #[test]
    fn devices_are_listed_and_one_that_is_not_there_cannot_be_removed() {
        let mut netlink = Netlink::route().unwrap();
        let none = Attributes::new();
        let index = |body: &[u8]| u32_at(body, 4);
        let all = netlink
            .dump(GET_LINK, &[0; IFINFOMSG], &none, index)
            .unwrap();
        assert!(all.contains(&1), "loopback: {all:?}");
        let mut fixed = [0; IFINFOMSG];
        for (to, from) in fixed.iter_mut().skip(4).zip(0x7fff_0000_u32.to_ne_bytes()) {
            *to = from;
        }
        let error = netlink.change(DEL_LINK, 0, &fixed, &none).unwrap_err();
        // Without the right to change anything the kernel does not even look.
        let told = rustix::io::Errno::from_io_error(&error).unwrap();
        let expected = [rustix::io::Errno::NODEV, rustix::io::Errno::PERM];
        assert!(expected.contains(&told), "{error}");
    }

    #[test]
    fn a_word_that_is_too_short_is_no_result() {
        assert!(result(&[0; 4]).is_ok());
        assert!(result(&[0; 3]).is_err());
        let refused = result(&(-1_i32).to_ne_bytes()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
    }
}
