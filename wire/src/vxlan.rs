//! VXLAN: Ethernet frames in UDP (RFC 7348).

use crate::field::{u8_at, u16_at};

/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// The port that IANA gave to VXLAN.
pub const PORT: u16 = 4789;

const UDP_HEADER: usize = 8;
const VXLAN_HEADER: usize = 8;
/// The "I" flag: the network identifier is valid.
const VALID_ID: u8 = 0x08;

/// Length of what stands in front of the inner frame, in bytes.
pub const HEADERS: usize = UDP_HEADER + VXLAN_HEADER;

/// The inner Ethernet frame of a UDP datagram to the VXLAN port, if it is one.
pub fn inner_frame(datagram: &[u8]) -> Option<&[u8]> {
    let to_vxlan = u16_at(datagram, 2)? == PORT;
    let valid = u8_at(datagram, UDP_HEADER)? & VALID_ID != 0;
    if to_vxlan && valid {
        datagram.get(HEADERS..)
    } else {
        None
    }
}
