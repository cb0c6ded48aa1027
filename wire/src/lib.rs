//! Views of captured bytes and builders of packets.
//!
//! Everything in this crate is total: no input, however short, long or malicious, makes it panic,
//! and nothing here does I/O. A view borrows the captured bytes and checks them once, when it is
//! made; a builder writes into a buffer that the caller owns.
//!
//! | module | what it reads or writes | source |
//! |---|---|---|
//! | [`link`] | Ethernet, VLAN, QinQ, Linux cooked, BSD loopback, raw IP | IEEE 802.3, 802.1Q, 802.1ad, pcap link types |
//! | [`ipv4`], [`ipv6`] | network headers, options and extension headers | RFC 791, RFC 8200, RFC 2675 |
//! | [`fragment`] | reassembly of IP fragments within fixed bounds | RFC 791, RFC 5722, RFC 8200 |
//! | [`tunnel`] | what is inside VXLAN, GENEVE, GRE, ERSPAN, IP in IP, GUE, GTP-U | RFC 7348, RFC 8926, RFC 2784, RFC 2003 |
//! | [`tcp`] | header, flags and options | RFC 9293, RFC 7323, RFC 2018 |
//! | [`decode`] | all of the above, from frame to TCP segment | |
//! | [`build`] | complete IPv4 and IPv6 packets with a TCP segment | |
//! | [`train`] | packets of a flow in a row as one, for a kernel or card to cut | Linux `tcp_gso_segment` |

pub mod build;
pub mod checksum;
pub mod decode;
pub mod endpoint;
mod field;
pub mod fragment;
pub mod ipv4;
pub mod ipv6;
pub mod link;
pub mod link_type;
mod senders;
pub mod seq;
pub mod tcp;
pub mod train;
pub mod tunnel;

pub use build::{BuildError, PacketBuilder};
pub use decode::{DecodeCounters, DecodeError, Decoder, NotTcp, Verify};
pub use endpoint::{Endpoint, FourTuple};
pub use link_type::LinkType;
pub use seq::Seq;
pub use tcp::{Flags, Mptcp, SackBlocks, TcpHeader, TcpOptions, TcpPacket};
pub use train::Train;
pub use tunnel::{Tunnel, Tunnels};
