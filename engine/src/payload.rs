//! Payload as it is handed to the engine.

use bytes::Bytes;

/// Shorter payload is copied rather than referred to: a reference takes a block of its own, and
/// keeps the memory of the whole that it is a part of.
pub const SHARED_FROM: usize = 8 << 10;

/// The payload of a captured segment.
#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    /// Bytes that the engine copies.
    Borrowed(&'a [u8]),
    /// Bytes that the engine may refer to, if there are many.
    Shared(&'a Bytes),
}

impl<'a> Payload<'a> {
    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// A part of it, to be referred to; `None` if it is to be copied.
    pub(crate) fn share(&self, part: &[u8]) -> Option<Bytes> {
        match self {
            Self::Shared(whole) if part.len() >= SHARED_FROM => part_of(whole, part),
            Self::Shared(_) | Self::Borrowed(_) => None,
        }
    }

    /// A part of it, to be kept.
    pub(crate) fn keep(&self, part: &[u8]) -> Bytes {
        self.share(part)
            .unwrap_or_else(|| Bytes::copy_from_slice(part))
    }
}

/// `bytes` as a reference into `whole`, if that is where they are.
pub fn part_of(whole: &Bytes, bytes: &[u8]) -> Option<Bytes> {
    let start = bytes.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(bytes.len())?;
    (end <= whole.len()).then(|| whole.slice(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_lie_elsewhere_are_no_part() {
        let whole = Bytes::from(vec![0; 100]);
        let other = vec![0; 100];
        assert!(part_of(&whole, &other).is_none());
        assert!(part_of(&whole.slice(10..20), &whole[15..25]).is_none());
        assert!(part_of(&whole.slice(10..20), &whole[5..12]).is_none());
        assert_eq!(part_of(&whole, &whole[100..]).unwrap().len(), 0);
    }

    #[test]
    fn many_bytes_are_referred_to_and_few_are_copied() {
        let whole = Bytes::from(vec![7; 2 * SHARED_FROM]);
        let payload = Payload::Shared(&whole);
        let shared = payload.share(&whole[10..10 + SHARED_FROM]).unwrap();
        assert_eq!(shared.as_ptr(), whole[10..].as_ptr());
        assert!(payload.share(&whole[..10]).is_none());
        assert!(Payload::Borrowed(&whole).share(&whole).is_none());
        assert_ne!(payload.keep(&whole[..10]).as_ptr(), whole.as_ptr());
    }
}
