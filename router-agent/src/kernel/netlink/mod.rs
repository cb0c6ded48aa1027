//! A blocking netlink socket: changes with an acknowledgement, questions, and dumps.

pub(in crate::kernel) mod message;

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SOCK_DIAG};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};

use message::{ACK, Attributes, DUMP, messages, request, u32_at};

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
pub(in crate::kernel) struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    answer: Vec<u8>,
}

impl Netlink {
    /// Routes, rules, devices, addresses: `rtnetlink(7)`.
    pub(in crate::kernel) fn route() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0, the default.
        Self::open(None)
    }

    /// Sockets: `sock_diag(7)`.
    pub(in crate::kernel) fn sock_diag() -> io::Result<Self> {
        Self::open(Some(SOCK_DIAG))
    }

    /// The firewall: nftables.
    pub(in crate::kernel) fn netfilter() -> io::Result<Self> {
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
    pub(in crate::kernel) fn change(
        &mut self,
        kind: u16,
        flags: u16,
        fixed: &[u8],
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.send(kind, flags | ACK, fixed, attributes)?;
        for _ in 0..STALE {
            let (received, _) = recv(&self.fd, &mut self.answer[..], RecvFlags::empty())?;
            let datagram = self.answer.get(..received).unwrap_or_default();
            let found = messages(datagram).find(|message| message.sequence == self.sequence);
            if let Some(message) = found
                && message.kind == ERROR
            {
                return result(message.body);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Asks one question; the kind and body of the answer.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::kernel) fn ask(
        &mut self,
        kind: u16,
        fixed: &[u8],
        attributes: &Attributes,
    ) -> io::Result<Vec<u8>> {
        self.send(kind, 0, fixed, attributes)?;
        for _ in 0..STALE {
            let (received, _) = recv(&self.fd, &mut self.answer[..], RecvFlags::empty())?;
            let datagram = self.answer.get(..received).unwrap_or_default();
            let found = messages(datagram).find(|message| message.sequence == self.sequence);
            let Some(message) = found else { continue };
            if message.kind == ERROR {
                result(message.body)?;
            }
            return Ok(message.body.to_vec());
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Asks for all there are that fit `attributes`; `each` gets the body of every message.
    ///
    /// # Errors
    /// The kernel's.
    pub(in crate::kernel) fn dump<T>(
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
            let (received, _) = recv(&self.fd, &mut self.answer[..], RecvFlags::empty())?;
            let datagram = self.answer.get(..received).unwrap_or_default();
            interrupted |= message::u16_at(datagram, 6).unwrap_or(0) & INTERRUPTED != 0;
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
