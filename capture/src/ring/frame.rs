//! A captured frame, and how it is read from its slot.

use bytes::Bytes;

use super::layout::{size_at, slot, u8_at, u16_at, u32_at};

/// Either of them says that a checksum needs no look.
const SETTLED: u32 = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_CSUM_VALID;

/// A captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The bytes from the link-layer header on ([`super::Ring::link_type`]), up to the snap length.
    pub data: &'a [u8],
    /// Memory that holds `data`, if the frame has one of its own: who wants to keep bytes of a long
    /// frame keeps this instead of a copy.
    pub own: Option<&'a Bytes>,
    /// How long the frame was, in bytes; more than `data` when it was cut.
    pub original_len: u32,
    /// When the kernel saw it, in nanoseconds since 1970 (`CLOCK_REALTIME`).
    pub timestamp: u64,
    /// Whether this host sent it.
    pub outgoing: bool,
    /// Whether its transport checksum needs no look: the device has verified it, or is still to
    /// fill it in, as it is for traffic of this host, and in namespaces all the way.
    pub checksum_settled: bool,
    /// The VLAN tag that the device took off the frame, as TCI (priority, DEI and id).
    pub vlan: Option<u16>,
}

impl<'a> Frame<'a> {
    /// Reads a slot with the given status word; `None` if any part of the frame would lie outside
    /// of it.
    pub(super) fn read(slot: &'a [u8], status: u32) -> Option<Self> {
        let start = usize::from(u16_at(slot, slot::DATA)?);
        let length = size_at(slot, slot::CAPTURED)?;
        let seconds = u64::from(u32_at(slot, slot::SECONDS)?);
        let nanoseconds = u64::from(u32_at(slot, slot::NANOSECONDS)?);
        let vlan = u16_at(slot, slot::VLAN)?;
        Some(Self {
            data: slot.get(start..start.checked_add(length)?)?,
            own: None,
            original_len: u32_at(slot, slot::ORIGINAL)?,
            timestamp: seconds * 1_000_000_000 + nanoseconds,
            outgoing: u8_at(slot, slot::PACKET_TYPE)? == libc::PACKET_OUTGOING,
            checksum_settled: status & SETTLED != 0,
            vlan: (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(vlan),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A slot as the kernel writes it.
    fn build(payload: &[u8]) -> Vec<u8> {
        let mut slot = vec![0; 80];
        slot[4..8].copy_from_slice(&9000u32.to_ne_bytes());
        slot[8..12].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
        slot[12..14].copy_from_slice(&80u16.to_ne_bytes());
        slot[16..20].copy_from_slice(&2u32.to_ne_bytes());
        slot[20..24].copy_from_slice(&7u32.to_ne_bytes());
        slot[24..26].copy_from_slice(&0x2007u16.to_ne_bytes());
        slot[42] = libc::PACKET_OUTGOING;
        slot.extend(payload);
        slot
    }

    #[test]
    fn a_frame_comes_with_all_that_the_kernel_says() {
        let slot = build(b"second one");
        let status = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_VLAN_VALID;
        assert_eq!(
            Frame::read(&slot, status),
            Some(Frame {
                data: b"second one",
                own: None,
                original_len: 9000,
                timestamp: 2_000_000_007,
                outgoing: true,
                checksum_settled: true,
                vlan: Some(0x2007),
            })
        );
    }

    proptest! {
        #[test]
        fn any_slot_is_read_within_its_bounds(
            bytes in proptest::collection::vec(any::<u8>(), 0..512),
            status in any::<u32>(),
        ) {
            if let Some(frame) = Frame::read(&bytes, status) {
                prop_assert!(frame.data.len() <= bytes.len());
            }
        }
    }
}
