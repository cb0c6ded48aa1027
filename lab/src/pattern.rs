//! The bytes that recorder and load send each other, so that each can check them without having kept them.

/// Divides the block's length and is no divisor of any buffer or segment size in use: a hole or a repetition of
/// such a size shifts the pattern.
const PERIOD: usize = 23;
/// A multiple of the period, about 16 KB.
const LENGTH: usize = PERIOD * 712;

/// `abc...w` over and over: the body of the recorder's answer to `GET /bytes/N` is its first N bytes, repeated.
pub(crate) static BLOCK: [u8; LENGTH] = block();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which would refuse to go out of bounds"
)]
const fn block() -> [u8; LENGTH] {
    let mut block = [0; LENGTH];
    let mut index = 0;
    while index < LENGTH {
        block[index] = b'a' + (index % PERIOD) as u8;
        index += 1;
    }
    block
}

/// The part of the repeated block that starts at `offset`, at most `most` bytes, never empty unless `most` is 0.
pub(crate) fn part(offset: u64, most: u64) -> &'static [u8] {
    let start = usize::try_from(offset % LENGTH as u64).unwrap_or_default();
    let rest = BLOCK.get(start..).unwrap_or_default();
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    rest.get(..most).unwrap_or(rest)
}

/// Whether `bytes` are what the repeated block holds from `offset` on.
pub(crate) fn matches(mut offset: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let expected = part(offset, bytes.len() as u64);
        let Some((head, rest)) = bytes.split_at_checked(expected.len()) else {
            return false;
        };
        if head != expected {
            return false;
        }
        offset += head.len() as u64;
        bytes = rest;
    }
    true
}

/// Bytes that depend on a number and nothing else, different everywhere: the body of an upload.
#[derive(Debug)]
pub(crate) struct Unique(u64);

impl Unique {
    pub(crate) fn new(number: u64) -> Self {
        Self(number.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    /// Fills the buffer with the next bytes (xorshift64, Marsaglia 2003).
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            for (byte, random) in chunk.iter_mut().zip(self.0.to_le_bytes()) {
                *byte = random;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_found_at_its_offset_and_nowhere_else() {
        let mut body = Vec::new();
        while body.len() < 50_000 {
            body.extend_from_slice(part(body.len() as u64, 777));
        }
        assert!(matches(0, &body));
        assert!(matches(40_000, &body[40_000..]));
        assert!(!matches(1, &body));
        body[49_999] ^= 1;
        assert!(!matches(0, &body));
    }
}
