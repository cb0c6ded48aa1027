//! Packets counted, whatever a ring drops: a socket that nobody reads.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::RingConfig;
use super::open::{EVERY_DEVICE, attach};
use super::scope::Scope;
use crate::error::CaptureError;
use crate::filter::{Filter, Program};
use crate::sys::address::bind_to_link;
use crate::sys::option::{attach_filter, set_receive_buffer, take_packet_statistics};

/// Counts the packets that a filter accepts. It keeps none of them, so it misses none.
#[derive(Debug)]
pub struct Census {
    fd: OwnedFd,
    scope: Scope,
    program: Program,
    count: u64,
}

impl Census {
    /// A census of what `filter` accepts on the devices of a ring, in the network namespace of the
    /// calling thread.
    ///
    /// # Errors
    /// As [`super::Ring::open`].
    pub fn open(ring: &RingConfig, filter: &Filter) -> Result<Self, CaptureError> {
        let names = ring.names();
        let on = |action| CaptureError::on::<io::Error>(action, &names);
        let scope = Scope::several(&ring.devices);
        let program = filter.compile(millrace_wire::LinkType::RawIp, 1)?;
        let fd = socket_with(
            AddressFamily::PACKET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )
        .map_err(CaptureError::on("open a packet socket", &names))?;
        attach_filter(fd.as_fd(), &mut Program::reject_all().to_kernel())
            .map_err(on("attach a filter"))?;
        // The kernel counts what finds no room, too.
        set_receive_buffer(fd.as_fd(), 0).map_err(on("size the receive buffer"))?;
        bind_to_link(fd.as_fd(), EVERY_DEVICE, libc::ETH_P_ALL as u16).map_err(on("bind"))?;
        attach(fd.as_fd(), &scope, &program)?;
        Ok(Self {
            fd,
            scope,
            program,
            count: 0,
        })
    }

    /// Counts something else from now on, with what was counted until now.
    ///
    /// # Errors
    /// As [`super::Ring::set_filter`].
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), CaptureError> {
        let program = filter.compile(millrace_wire::LinkType::RawIp, 1)?;
        attach(self.fd.as_fd(), &self.scope, &program)?;
        self.program = program;
        Ok(())
    }

    /// Counts on these devices from now on.
    ///
    /// # Errors
    /// As [`super::Ring::set_devices`].
    pub fn set_devices(&mut self, names: &[String]) -> Result<(), CaptureError> {
        self.scope.set_devices(names);
        self.scope.look();
        attach(self.fd.as_fd(), &self.scope, &self.program)
    }

    /// How many packets there were since it was opened. Devices that came meanwhile count from now on.
    ///
    /// # Errors
    /// When the kernel refuses to tell, or to follow the devices, which it has no reason to.
    pub fn count(&mut self) -> Result<u64, CaptureError> {
        let new = take_packet_statistics(self.fd.as_fd())
            .map_err(CaptureError::of("read packet statistics"))?;
        self.count += u64::from(new.tp_packets);
        if self.scope.look() != Default::default() {
            attach(self.fd.as_fd(), &self.scope, &self.program)?;
        }
        Ok(self.count)
    }
}
