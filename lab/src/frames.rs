//! A device opened for whole frames: one AF_PACKET socket that receives and sends, packet(7).

use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use nix::sys::socket::bind;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send,
    socket_with, sockopt,
};

use crate::error::{Doing, Error, Result};

/// `ETH_P_ALL` of <linux/if_ether.h>: every protocol.
const EVERY_PROTOCOL: u16 = 0x0003;
/// Bytes that wait in the kernel while the reader is not scheduled: some 15,000 full packets with their overhead.
const RECEIVE_BUFFER: usize = 64 << 20;

/// A device of the calling thread's namespace. It must be quiet by itself (no addresses, IPv6 off): what the
/// kernel sends from it is received here too, only what this socket sent is not.
#[derive(Debug)]
pub(crate) struct Device {
    socket: OwnedFd,
    name: String,
}

impl Device {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let doing = || format!("opening device {name} for frames");
        // getifaddrs(3) fills in a complete sockaddr_ll, index included, which bind(2) takes as it is.
        let interfaces = nix::ifaddrs::getifaddrs()
            .map_err(std::io::Error::from)
            .doing(doing)?;
        let address = interfaces
            .filter(|interface| interface.interface_name == name)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .ok_or_else(|| Error::Unsupported(format!("there is no device {name} here")))?;
        let protocol = NonZeroU32::new(EVERY_PROTOCOL.to_be().into()).map(Protocol::from_raw);
        let socket = socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )
        .doing(doing)?;
        bind(socket.as_raw_fd(), &address)
            .map_err(std::io::Error::from)
            .doing(doing)?;
        // Beyond the system's limit only for real root; inside a user namespace the limit has to do.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER).doing(doing)?;
        }
        let device = Self {
            socket,
            name: name.to_owned(),
        };
        // Before it was bound, the socket received from every device.
        let mut scrap = [0; 64];
        while device.receive(&mut scrap)?.is_some() {}
        Ok(device)
    }

    /// The next frame and its length, or nothing if none waits.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        match recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((length, _)) => Ok(Some(length)),
            // ENETDOWN comes once when the device goes down: it may come up again.
            Err(Errno::AGAIN | Errno::INTR | Errno::NETDOWN) => Ok(None),
            Err(error) => Err(error).doing(|| format!("receiving from device {}", self.name)),
        }
    }

    /// Sends a frame; whether the kernel took it.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        send(&self.socket, frame, SendFlags::empty()).is_ok_and(|sent| sent == frame.len())
    }

    /// Frames that the kernel has handed to this device so far (`/proc/net/dev`, second field of "Receive").
    pub(crate) fn received_by_kernel(&self) -> u64 {
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        text.lines()
            .filter_map(|line| line.trim().split_once(':'))
            .find(|(name, _)| *name == self.name)
            .and_then(|(_, fields)| fields.split_whitespace().nth(1)?.parse().ok())
            .unwrap_or_default()
    }
}

/// Starts a thread that opens devices, wherever it moves for that, and then works with them. When this returns, they are
/// open.
///
/// # Errors
/// What opening them says.
pub(crate) fn start_thread<D: 'static>(
    name: &str,
    open: impl FnOnce() -> Result<D> + Send + 'static,
    work: impl FnOnce(D) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let (opened, opening) = std::sync::mpsc::channel();
    let run = move || {
        let (answer, devices) = match open() {
            Ok(devices) => (Ok(()), Some(devices)),
            Err(error) => (Err(error), None),
        };
        // Failing means that nobody waits for the answer any more.
        let _ = opened.send(answer);
        devices.map(work);
    };
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .doing(|| format!("starting the thread of a {name}"))?;
    opening
        .recv()
        .map_err(|_| Error::Unsupported(format!("the thread of a {name} ended at once")))??;
    Ok(thread)
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
