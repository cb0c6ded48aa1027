//! The capture ring: packets of one device or of several, in memory that is shared with the kernel.
//!
//! The kernel puts each frame into a slot of its own (`TPACKET_V2`,
//! <https://docs.kernel.org/networking/packet_mmap.html>) and hands it over at once: a frame waits
//! for no other one. A slot takes headers and a short request. A longer frame, as segmentation
//! offload makes them, leaves its head in the slot and waits whole in the socket's queue
//! (`PACKET_COPY_THRESH`, `packet(7)`); there the kernel keeps the packet itself, not a copy of it.
//! So short frames and long ones both use the memory that they need, and memory for long ones is
//! taken as they come. What finds no room is counted by the kernel.
//!
//! - `census`: packets counted, whatever a ring drops.
//! - `frame`: what a slot says of its frame.
//! - `layout`: where it stands there.
//! - `open`: the order in which a ring comes to life.
//! - `scope`: which devices a ring sees.
//! - `tap`: a ring on devices that come and go.

mod census;
mod frame;
mod layout;
mod open;
mod scope;
mod tap;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::Bytes;
use millrace_wire::LinkType;
use rustix::buffer::spare_capacity;
use rustix::net::sockopt::socket_error;
use rustix::net::{RecvFlags, recv};

pub use census::Census;
pub use frame::Frame;
use layout::SLOT;
use scope::Scope;
pub use tap::Tap;

use crate::device::is_bridge;
use crate::error::CaptureError;
use crate::filter::{Filter, Program};
use crate::sys::address::bound_link;
use crate::sys::mapping::Mapping;
use crate::sys::option::{end_promiscuous, receive_queue, set_promiscuous, take_packet_statistics};

/// How often a long frame is looked for in the socket's queue.
const MOST_TRIES: usize = 8;

/// How a ring is to be opened.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// The devices.
    pub devices: Vec<String>,
    /// Memory for frames that were not read yet, in bytes (`-B`). A quarter of it, at most
    /// [`RingConfig::MOST_SLOTS`], is taken at once and filled by short frames; the rest is taken
    /// as long ones come.
    pub buffer_bytes: usize,
    /// The most bytes of one frame that are kept, headers included; the filter may keep less.
    /// GRO delivers frames of 64 KB, BIG TCP larger ones.
    pub snap_len: u32,
    /// Which packets.
    pub filter: Filter,
    /// Whether the device shall hand over frames that are meant for other hosts.
    pub promiscuous: bool,
    /// Whether the devices may change while the ring is open ([`Ring::set_devices`]); there need not be any now, and of
    /// those to come bridges alone hand over frames that are meant for other hosts.
    pub changing: bool,
    /// Shares the traffic of the device with other rings.
    pub fanout: Option<Fanout>,
}

impl RingConfig {
    /// A buffer that bridges some tens of milliseconds at the full speed of a fast network, and
    /// seconds of everyday traffic.
    pub const DEFAULT_BUFFER: usize = 64 << 20;
    /// The most that slots take, in bytes: 32,768 of them.
    pub const MOST_SLOTS: usize = 16 << 20;
    /// Holds any frame up to those of GRO, with its link-layer header and tags.
    pub const DEFAULT_SNAP_LEN: u32 = 65_535 + 64;

    /// A ring of the default size on one device.
    pub fn new(device: impl Into<String>, filter: Filter) -> Self {
        Self {
            devices: vec![device.into()],
            buffer_bytes: Self::DEFAULT_BUFFER,
            snap_len: Self::DEFAULT_SNAP_LEN,
            filter,
            promiscuous: false,
            changing: false,
            fanout: None,
        }
    }

    /// Its devices, for people.
    pub fn names(&self) -> String {
        self.devices.join(", ")
    }
}

/// Membership in a group of rings on one device that share its traffic by flow: both directions of
/// a connection, and all its packets, reach the same ring (`PACKET_FANOUT_HASH`, which is
/// symmetric).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fanout {
    /// The group; all its members are of this network namespace and on the same device.
    pub group: u16,
}

/// What a ring saw since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RingStatistics {
    /// Frames that the filter accepted and that were put into the ring.
    pub received: u64,
    /// Frames that the filter accepted and that found no room, as a whole or behind their head.
    pub dropped: u64,
}

impl std::ops::AddAssign for RingStatistics {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.dropped += other.dropped;
    }
}

/// A mapped capture ring.
#[derive(Debug)]
pub struct Ring {
    // The mapping goes first: the kernel frees the ring's memory once both are gone, in any order.
    slots: Mapping,
    fd: OwnedFd,
    current: usize,
    scope: Scope,
    link_type: LinkType,
    program: Program,
    snap_len: usize,
    statistics: RingStatistics,
    /// Long frames for which the socket's queue had no room behind their head.
    beheaded: u64,
    memory: (usize, usize),
    /// Whether devices that come are to hand over what is for other hosts.
    promiscuous: bool,
    /// Whether the devices are set from time to time; of these bridges alone are to.
    changing: bool,
}

impl Ring {
    /// Opens a ring in the network namespace of the calling thread. When this returns, packets are
    /// being captured.
    ///
    /// # Errors
    /// No such device, no privilege, an unusable filter or too small a buffer: each says what to
    /// do. A device that is down is no error here: packets come once it is up.
    pub fn open(config: &RingConfig) -> Result<Self, CaptureError> {
        open::open(config)
    }

    /// How frames of this ring begin.
    pub fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// Hands over the frames that have come, at most `limit` of them, in the order in which the
    /// kernel saw them; gives their number. Never blocks: sleep with [`wait`](crate::wait()).
    pub fn read(&mut self, limit: usize, mut take: impl FnMut(&Frame<'_>)) -> usize {
        for count in 0..limit {
            let Some((status, slot)) = self.slots.slot(self.current) else {
                return count;
            };
            if let Some(mut frame) = Frame::read(slot, status) {
                let long = match status & libc::TP_STATUS_COPY {
                    0 => None,
                    _ => receive(self.fd.as_fd(), &frame, self.snap_len),
                };
                if let Some(long) = &long {
                    frame.data = long;
                    frame.own = Some(long);
                } else {
                    let whole = self.snap_len.min(frame.original_len as usize);
                    let filled = frame.data.len() >= room(slot);
                    self.beheaded += u64::from(filled && frame.data.len() < whole);
                }
                take(&frame);
            }
            self.slots.release(self.current);
            self.current = (self.current + 1) % self.slots.slot_count().max(1);
        }
        limit
    }

    /// Whether [`Ring::read`] has a frame.
    pub fn is_ready(&self) -> bool {
        self.slots.slot(self.current).is_some()
    }

    /// How many eighths of its memory are full: of the slots, or of what long frames may take.
    pub fn eighths_full(&self) -> usize {
        let long = receive_queue(self.fd.as_fd()).map_or(0, |(used, most)| used * 8 / most.max(1));
        self.eighths_of_slots()
            .max(if self.takes_long_frames() { long } else { 0 })
    }

    fn eighths_of_slots(&self) -> usize {
        let count = self.slots.slot_count();
        let is_full = |eighth: &usize| {
            let ahead = self.current + (count * eighth / 8).saturating_sub(1);
            self.slots.slot(ahead % count.max(1)).is_some()
        };
        (1..=8).take_while(is_full).count()
    }

    /// Bytes of memory: for slots, which is taken, and for long frames, which is taken as it is
    /// needed. The latter is less than was asked for where the kernel grants less.
    pub const fn memory(&self) -> (usize, usize) {
        self.memory
    }

    /// Whether frames may be longer than a slot.
    pub const fn takes_long_frames(&self) -> bool {
        self.snap_len > SLOT
    }

    /// Counters since the ring was opened.
    ///
    /// # Errors
    /// Only when the kernel refuses to tell, which it has no reason to.
    pub fn statistics(&mut self) -> io::Result<RingStatistics> {
        let new = take_packet_statistics(self.fd.as_fd())?;
        // The kernel counts the drops among the packets.
        let received = new.tp_packets.saturating_sub(new.tp_drops);
        self.statistics.received += u64::from(received);
        self.statistics.dropped += u64::from(new.tp_drops) + std::mem::take(&mut self.beheaded);
        Ok(self.statistics)
    }

    /// The error that made [`wait`](crate::wait()) report this ring as failed; reading it clears
    /// it. After [`CaptureError::DeviceDown`] the ring goes on by itself when the device is up
    /// again; after [`CaptureError::DeviceRemoved`] a new ring has to be opened. A ring on several
    /// devices does not fail with them: see [`Ring::follow_devices`].
    pub fn take_error(&self) -> Option<CaptureError> {
        let pending = match socket_error(&self.fd) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        };
        let device = || self.scope.names();
        if self.scope.is_bound() && matches!(bound_link(self.fd.as_fd()), Ok(None)) {
            return Some(CaptureError::DeviceRemoved { device: device() });
        }
        Some(match pending? {
            rustix::io::Errno::NETDOWN => CaptureError::DeviceDown { device: device() },
            error => CaptureError::Device {
                action: "capture",
                device: device(),
                source: error.into(),
            },
        })
    }

    /// Captures something else from now on. When that is refused, everything stays as it is.
    ///
    /// # Errors
    /// When the filter is too long, or the kernel does not take it.
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), CaptureError> {
        let kept = u32::try_from(self.snap_len).unwrap_or(u32::MAX);
        let program = filter.compile(self.link_type, kept)?;
        open::attach(self.fd.as_fd(), &self.scope, &program)?;
        self.program = program;
        Ok(())
    }

    /// Captures on these devices from now on; of those that are bridges also what passes between their ports. Nothing is lost
    /// on those that it captured on before. The ring must have been opened as a [changing](RingConfig::changing) one.
    ///
    /// # Errors
    /// When the kernel does not take the new filter, or a device not this mode.
    pub fn set_devices(&mut self, names: &[String]) -> Result<(), CaptureError> {
        let before = self.scope.numbers();
        self.scope.set_devices(names);
        self.scope.look();
        open::attach(self.fd.as_fd(), &self.scope, &self.program)?;
        let now = self.scope.numbers();
        for number in before.iter().filter(|number| !now.contains(number)) {
            // One that was not set, or is gone, is as it should be.
            drop(end_promiscuous(self.fd.as_fd(), *number));
        }
        let came = now.into_iter().filter(|number| !before.contains(number));
        self.see_all_frames(came)
    }

    /// Where this ring sees several devices: looks up which of them are there now. Gives the names
    /// of those that came and of those that went.
    ///
    /// # Errors
    /// When the kernel does not take the new filter.
    pub fn follow_devices(&mut self) -> Result<(Vec<String>, Vec<String>), CaptureError> {
        let changes = self.scope.look();
        if changes != Default::default() {
            open::attach(self.fd.as_fd(), &self.scope, &self.program)?;
        }
        self.see_all_frames(self.scope.numbers_of(&changes.0).into_iter())?;
        Ok(changes)
    }

    /// Sets the promiscuous mode of devices that came, where it is wanted. It ends with the socket, or the device.
    fn see_all_frames(&self, came: impl Iterator<Item = u32>) -> Result<(), CaptureError> {
        let wanted = |number: &u32| match self.changing {
            true => is_bridge(*number),
            false => self.promiscuous,
        };
        for number in came.filter(wanted) {
            let names = self.scope.names();
            let on = CaptureError::on("set promiscuous mode", &names);
            set_promiscuous(self.fd.as_fd(), number).map_err(on)?;
        }
        Ok(())
    }
}

/// Bytes of a frame that a slot has room for.
fn room(slot: &[u8]) -> usize {
    let start = layout::u16_at(slot, layout::slot::DATA).map_or(SLOT, usize::from);
    SLOT.saturating_sub(start)
}

/// The long frame whose head is in a slot, from the socket's queue, up to `snap_len` bytes.
fn receive(fd: BorrowedFd<'_>, head: &Frame<'_>, snap_len: usize) -> Option<Bytes> {
    let len = (head.original_len as usize).min(snap_len);
    for _ in 0..MOST_TRIES {
        let mut frame = Vec::with_capacity(len);
        match recv(fd, spare_capacity(&mut frame), RecvFlags::DONTWAIT) {
            // One that a failure left behind belongs to a slot that was read long ago.
            Ok(_) if frame.starts_with(head.data) => return Some(frame.into()),
            Err(rustix::io::Errno::AGAIN) => return None,
            // An error of the device is told once, before the frame.
            Ok(_) | Err(_) => {}
        }
    }
    None
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
