//! The frames of one block.

use std::iter::FusedIterator;

use super::Ring;
use super::layout::{block, frame, size_at, u8_at, u16_at, u32_at};

/// A run of captured frames, in the order in which the kernel saw them. Goes back to the kernel
/// when dropped, so keep it no longer than it takes to read it.
#[derive(Debug)]
pub struct Block<'a> {
    ring: &'a mut Ring,
}

impl<'a> Block<'a> {
    pub(super) fn new(ring: &'a mut Ring) -> Self {
        Self { ring }
    }

    /// The frames.
    pub fn frames(&self) -> Frames<'_> {
        Frames::new(self.ring.block_bytes())
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        self.ring.release_block();
    }
}

impl<'a> IntoIterator for &'a Block<'_> {
    type Item = Frame<'a>;
    type IntoIter = Frames<'a>;

    fn into_iter(self) -> Frames<'a> {
        self.frames()
    }
}

/// A captured frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The bytes from the link-layer header on ([`Ring::link_type`]), up to the snap length.
    pub data: &'a [u8],
    /// How long the frame was, in bytes; more than `data` when it was cut.
    pub original_len: u32,
    /// When the kernel saw it, in nanoseconds since 1970 (`CLOCK_REALTIME`).
    pub timestamp: u64,
    /// Whether this host sent it.
    pub outgoing: bool,
    /// Whether its transport checksum is still to be filled in by the device: so it is for
    /// traffic of this host, and in namespaces all the way.
    pub checksum_not_ready: bool,
    /// The VLAN tag that the device took off the frame, as TCI (priority, DEI and id).
    pub vlan: Option<u16>,
}

/// The frames of a [`Block`].
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    block: &'a [u8],
    next: usize,
    left: u32,
}

impl<'a> Frames<'a> {
    /// Reads the block from its description on. A block of nonsense has no frames.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            block: bytes,
            next: size_at(bytes, block::FIRST_FRAME).unwrap_or(0),
            left: u32_at(bytes, block::FRAME_COUNT).unwrap_or(0),
        }
    }

    /// The frame at `next`, `None` where any part of it is not inside the block.
    fn read(&mut self) -> Option<Frame<'a>> {
        let header = self.block.get(self.next..)?;
        let start = usize::from(u16_at(header, frame::DATA)?);
        let length = size_at(header, frame::CAPTURED)?;
        let status = u32_at(header, frame::STATUS)?;
        let vlan = u32_at(header, frame::VLAN)? & 0xffff;
        let seconds = u64::from(u32_at(header, frame::SECONDS)?);
        let nanoseconds = u64::from(u32_at(header, frame::NANOSECONDS)?);
        let result = Frame {
            data: header.get(start..start.checked_add(length)?)?,
            original_len: u32_at(header, frame::ORIGINAL)?,
            timestamp: seconds * 1_000_000_000 + nanoseconds,
            outgoing: u8_at(header, frame::PACKET_TYPE)? == libc::PACKET_OUTGOING,
            checksum_not_ready: status & libc::TP_STATUS_CSUMNOTREADY != 0,
            vlan: u16::try_from(vlan)
                .ok()
                .filter(|_| status & libc::TP_STATUS_VLAN_VALID != 0),
        };
        match size_at(header, frame::NEXT)? {
            0 => self.left = 0,
            offset => self.next = self.next.checked_add(offset)?,
        }
        Some(result)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        self.left = self.left.checked_sub(1)?;
        let frame = self.read();
        if frame.is_none() {
            self.left = 0;
        }
        frame
    }
}

impl FusedIterator for Frames<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A block as the kernel writes it, with the given payloads.
    fn build(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0; 48];
        bytes[12..16].copy_from_slice(&(payloads.len() as u32).to_ne_bytes());
        bytes[16..20].copy_from_slice(&48u32.to_ne_bytes());
        for payload in payloads {
            let mut header = vec![0; 80];
            let total = (80 + payload.len()).next_multiple_of(8);
            header[0..4].copy_from_slice(&(total as u32).to_ne_bytes());
            header[4..8].copy_from_slice(&2u32.to_ne_bytes());
            header[8..12].copy_from_slice(&7u32.to_ne_bytes());
            header[12..16].copy_from_slice(&(payload.len() as u32).to_ne_bytes());
            header[16..20].copy_from_slice(&9000u32.to_ne_bytes());
            let status = libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_VLAN_VALID;
            header[20..24].copy_from_slice(&status.to_ne_bytes());
            header[24..26].copy_from_slice(&80u16.to_ne_bytes());
            header[32..36].copy_from_slice(&0x2007u32.to_ne_bytes());
            header[58] = libc::PACKET_OUTGOING;
            bytes.extend(header);
            bytes.extend(*payload);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        bytes
    }

    #[test]
    fn frames_come_in_order_with_all_that_the_kernel_says() {
        let bytes = build(&[b"first", b"second one"]);
        let frames: Vec<_> = Frames::new(&bytes).collect();
        assert_eq!(frames.len(), 2);
        assert_eq!(
            frames[0],
            Frame {
                data: b"first",
                original_len: 9000,
                timestamp: 2_000_000_007,
                outgoing: true,
                checksum_not_ready: true,
                vlan: Some(0x2007),
            }
        );
        assert_eq!(frames[1].data, b"second one");
    }

    #[test]
    fn lengths_that_reach_out_of_the_block_end_it() {
        for offset in [12, 16, 48, 48 + 12] {
            let mut bytes = build(&[b"first", b"second"]);
            bytes[offset..offset + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
            assert!(Frames::new(&bytes).count() <= 2);
        }
    }

    proptest! {
        #[test]
        fn any_block_is_read_to_an_end(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..400),
            first in 0u32..100,
            count in 0u32..1000,
        ) {
            if bytes.len() >= 20 {
                bytes[12..16].copy_from_slice(&count.to_ne_bytes());
                bytes[16..20].copy_from_slice(&first.to_ne_bytes());
            }
            for frame in Frames::new(&bytes) {
                prop_assert!(frame.data.len() <= bytes.len());
            }
        }
    }
}
