//! Packets in and out of the machine, on Linux.
//!
//! - [`ring`]: packets are captured through a ring that is mapped into this process
//!   (`TPACKET_V2`), so that reading short ones costs no system call.
//! - [`queue`]: packets that a firewall rule hands over (NFQUEUE).
//! - [`filter`]: which packets the kernel puts into that ring, as classic BPF: made from a list
//!   of services, or by libpcap from an expression of the operator.
//! - [`send`]: complete IP packets with any source address are sent in batches, through the
//!   kernel's routing ([`Sender::raw`]) or at the link layer of one device ([`Sender::link`]).
//! - [`next_hop`]: where the link layer sends to, kept up to date in the background.
//! - [`mod@file`]: packets are read from and written to files.
//! - [`device`]: which devices there are, and what may be done with them.
//! - [`pace`]: packets that come one by one are gathered.
//! - [`mod@wait`]: sleep until a ring has packets or another thread asks for attention.
//!
//! - [`tun`]: a device that takes what is routed to it and goes with its owner.
//!
//! This crate knows nothing of sessions, and it is the only one with unsafe code; all of that is
//! in `sys` and in the calls into libpcap.

pub mod device;
pub mod error;
pub mod file;
pub mod filter;
mod mac;
pub mod next_hop;
pub mod pace;
pub mod queue;
pub mod ring;
mod routing;
pub mod send;
mod sys;
pub mod tun;
pub mod wait;

pub use device::{ANY, Device, check_privilege};
pub use error::CaptureError;
pub use file::{FileError, Merged, PacketFile, PacketWriter, Recorded, Source};
pub use filter::{
    Expression, Filter, FilterError, FilterSpec, Program, ResponseFilter, ServiceFilter,
};
pub use mac::{MacAddress, ParseMacError};
pub use next_hop::{NextHopConfig, NextHops, StaticHop};
pub use pace::{Pace, sleep_precisely};
pub use queue::{PacketQueue, QueueStatistics, QueuedPacket, Verdict};
pub use ring::{Census, Fanout, Frame, Ring, RingConfig, RingStatistics, Tap};
pub use send::{LinkSocket, SendCounters, SendErrorKind, SendFailure, Sender, SenderConfig};
pub use tun::Tun;
pub use wait::{Readiness, Rest, Waker, wait};
