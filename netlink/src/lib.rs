//! Talking to the kernel over netlink (`netlink(7)`): routing, sockets, firewall, IPsec.
//!
//! - [`socket`]: questions, dumps, and changes with an acknowledgement.
//! - [`news`]: what others have changed.
//! - [`message`]: messages as bytes.
//!
//! What a message says is for its reader: whoever asks knows the few attributes that count, and skips the rest.
//!
//! The crates netlink-packet-core, -route and -sock-diag (0.9, 0.34, 0.5) would do a part of this, but not what others'
//! rules are read for here. They read a message as a whole or not at all: one attribute that a later kernel made
//! longer, or one device name that is not UTF-8, and a rule of somebody else that leads answers past ours is not seen.
//! They do not know the masks of ports in rules, nor nftables and IPsec, which would stay by hand beside them.

pub mod message;
pub mod news;
pub mod socket;

pub use message::Attributes;
pub use news::News;
pub use socket::Netlink;
