//! The capture ring: packets of one device, in memory that is shared with the kernel.
//!
//! The kernel fills blocks of many frames (`TPACKET_V3`,
//! <https://docs.kernel.org/networking/packet_mmap.html>) and hands each over when it is full or
//! when [`RingConfig::block_timeout`] has passed since its first frame. A block goes back to the
//! kernel when it is dropped; when all of them are with this process, the kernel counts drops.

mod block;
mod layout;
mod open;
mod tap;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use millrace_wire::LinkType;
use rustix::net::sockopt::socket_error;

pub use block::{Block, Frame, Frames};
pub use tap::Tap;

use crate::error::CaptureError;
use crate::filter::Filter;
use crate::sys::address::bound_link;
use crate::sys::mapping::Mapping;
use crate::sys::option::take_packet_statistics;

/// How a ring is to be opened.
#[derive(Clone, Debug)]
pub struct RingConfig {
    /// The device.
    pub device: String,
    /// The size of the whole ring in bytes (`-B`). Rounded down to whole blocks.
    pub buffer_bytes: usize,
    /// The most bytes of one frame that are kept, headers included; the filter may keep less.
    /// GRO delivers frames of 64 KB, BIG TCP larger ones.
    pub snap_len: u32,
    /// Which packets.
    pub filter: Filter,
    /// Whether the device shall hand over frames that are meant for other hosts.
    pub promiscuous: bool,
    /// Shares the traffic of the device with other rings.
    pub fanout: Option<Fanout>,
    /// How long a frame may wait in a block that is not full. Short: little latency. But each
    /// block time-out uses up a block, so that with few packets this times the number of blocks
    /// is how long the reader may be away before frames are dropped.
    pub block_timeout: Duration,
}

impl RingConfig {
    /// The default of `-B`, in bytes.
    pub const DEFAULT_BUFFER: usize = 16 << 20;
    /// Holds any frame up to those of GRO, with its link-layer header and tags.
    pub const DEFAULT_SNAP_LEN: u32 = 65_535 + 64;
    /// The shortest time-out that the kernel knows.
    pub const DEFAULT_BLOCK_TIMEOUT: Duration = Duration::from_millis(1);

    /// A ring of the default size on a device.
    pub fn new(device: impl Into<String>, filter: Filter) -> Self {
        Self {
            device: device.into(),
            buffer_bytes: Self::DEFAULT_BUFFER,
            snap_len: Self::DEFAULT_SNAP_LEN,
            filter,
            promiscuous: false,
            fanout: None,
            block_timeout: Self::DEFAULT_BLOCK_TIMEOUT,
        }
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
    /// Frames that the filter accepted and that found no room.
    pub dropped: u64,
    /// How often the ring ran out of blocks.
    pub freezes: u64,
}

impl std::ops::AddAssign for RingStatistics {
    fn add_assign(&mut self, other: Self) {
        self.received += other.received;
        self.dropped += other.dropped;
        self.freezes += other.freezes;
    }
}

/// A mapped capture ring on one device.
#[derive(Debug)]
pub struct Ring {
    // The mapping goes first: the kernel frees the ring's memory once both are gone, in any order.
    blocks: Mapping,
    fd: OwnedFd,
    current: usize,
    device: String,
    link_type: LinkType,
    statistics: RingStatistics,
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

    /// The device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// How frames of this ring begin.
    pub fn link_type(&self) -> LinkType {
        self.link_type
    }

    /// The next block of frames, if the kernel has handed one over. Never blocks: sleep with
    /// [`wait`](crate::wait()).
    pub fn next_block(&mut self) -> Option<Block<'_>> {
        self.blocks.block(self.current)?;
        Some(Block::new(self))
    }

    /// Whether [`Ring::next_block`] has one.
    pub fn has_block(&self) -> bool {
        self.blocks.block(self.current).is_some()
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
        self.statistics.dropped += u64::from(new.tp_drops);
        self.statistics.freezes += u64::from(new.tp_freeze_q_cnt);
        Ok(self.statistics)
    }

    /// The error that made [`wait`](crate::wait()) report this ring as failed; reading it clears
    /// it. After [`CaptureError::DeviceDown`] the ring goes on by itself when the device is up
    /// again; after [`CaptureError::DeviceRemoved`] a new ring has to be opened.
    pub fn take_error(&self) -> Option<CaptureError> {
        let pending = match socket_error(&self.fd) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        };
        let device = || self.device.clone();
        if matches!(bound_link(self.fd.as_fd()), Ok(None)) {
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

    fn block_bytes(&self) -> &[u8] {
        self.blocks.block(self.current).unwrap_or_default()
    }

    fn release_block(&mut self) {
        self.blocks.release(self.current);
        self.current += 1;
        if self.current >= self.blocks.block_count() {
            self.current = 0;
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
