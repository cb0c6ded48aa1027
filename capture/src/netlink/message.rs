//! Netlink messages as bytes: a header, a fixed structure, attributes (`netlink(7)`).

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct rtattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// The kernel uses the low bits of the type; the two high ones are flags.
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;

/// Messages and attributes start at multiples of 4 (`NLMSG_ALIGNTO`, `RTA_ALIGNTO`).
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A request under construction.
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// Starts a request of a type with the fixed structure that belongs to it.
    pub(super) fn new(message_type: u16, sequence: u32, fixed: &[u8]) -> Self {
        let flags = libc::NLM_F_REQUEST as u16;
        let mut bytes = Vec::with_capacity(128);
        bytes.extend([0; 4]);
        bytes.extend(message_type.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(fixed);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, attribute_type: u16, value: &[u8]) -> Self {
        self.bytes.resize(aligned(self.bytes.len()), 0);
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(attribute_type.to_ne_bytes());
        self.bytes.extend(value);
        self
    }

    /// The finished request.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(aligned(self.bytes.len()), 0);
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        for (to, from) in self.bytes.iter_mut().zip(length.to_ne_bytes()) {
            *to = from;
        }
        self.bytes
    }
}

/// One message that the kernel sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) message_type: u16,
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

/// The messages of one datagram. Ends at the first one that does not fit.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message {
            message_type: u16_at(bytes, 4)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER..length)?,
        };
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes behind a fixed structure of `fixed` bytes. Ends at the first that does not fit.
pub(super) fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut bytes = body.get(aligned(fixed)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let attribute_type = u16_at(bytes, 2)? & ATTRIBUTE_TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((attribute_type, value))
    })
}

/// A number of 16 bits in host order.
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u16::from_ne_bytes(*bytes))
}

/// A number of 32 bits in host order.
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_reads_back_as_it_was_built() {
        let bytes = Request::new(26, 7, &[1; 12])
            .attribute(1, &[198, 18, 0, 1])
            .attribute(3, b"abc")
            .attribute(4, &[9, 0, 0, 0])
            .finish();
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].message_type, all[0].sequence), (26, 7));
        let attributes: Vec<_> = attributes(all[0].body, 12).collect();
        assert_eq!(
            attributes,
            [
                (1, &[198, 18, 0, 1][..]),
                (3, &b"abc"[..]),
                (4, &[9, 0, 0, 0][..])
            ]
        );
    }

    #[test]
    fn a_length_of_zero_ends_the_walk() {
        assert_eq!(messages(&[0; 64]).count(), 0);
        assert_eq!(attributes(&[0; 64], 12).count(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                let _ = attributes(message.body, 12).count();
            }
        }
    }
}
