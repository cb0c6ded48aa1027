//! How captured frames begin, and by which numbers they say what follows.

/// How the bytes of a captured frame begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// Ethernet II, with any number of VLAN tags up to [`crate::link::MAX_TAGS`] (pcap `EN10MB`, 1).
    Ethernet,
    /// Linux "cooked" capture v1, 16 bytes (pcap `LINUX_SLL`, 113).
    LinuxSll,
    /// Linux "cooked" capture v2, 20 bytes (pcap `LINUX_SLL2`, 276).
    LinuxSll2,
    /// The IP header comes first (pcap `RAW`, 101, and its relatives).
    RawIp,
    /// BSD loopback: address family in the capturing host's byte order (pcap `NULL`, 0).
    Null,
    /// OpenBSD loopback: address family in network byte order (pcap `LOOP`, 108).
    Loop,
    /// A message of netfilter's log, with the packet as one of its attributes (pcap `NFLOG`, 239).
    Nflog,
}

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherTypes of MPLS (RFC 3032; the second was for multicast) and of PPPoE sessions (RFC 2516).
pub(crate) const MPLS: [u16; 2] = [0x8847, 0x8848];
pub(crate) const PPPOE_SESSION: u16 = 0x8864;
