//! The Internet checksum (RFC 1071) and its pseudo-headers (RFC 9293 3.1, RFC 8200 8.1).

use std::net::IpAddr;

/// A running one's-complement sum of 16-bit words.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds `bytes`, which must start at an even offset of the summed data. An odd last byte is
    /// padded with zero, so only the last piece may have odd length.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        // Eight bytes at a time with end-around carry: the sum of 16-bit words does not care in
        // which larger unit it is accumulated (RFC 1071 2 (B) and (C)).
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let (sum, carry) = self.0.overflowing_add(u64::from_be_bytes(*word));
            self.0 = sum + u64::from(carry);
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            let (sum, carry) = self.0.overflowing_add(u64::from_be_bytes(last));
            self.0 = sum + u64::from(carry);
        }
        self
    }

    /// Adds the pseudo-header of a TCP segment of `length` bytes. Mixed address families do not
    /// occur in a packet; were they given, the sum is simply that of their bytes.
    #[must_use]
    pub fn with_pseudo_header(self, source: IpAddr, destination: IpAddr, length: u32) -> Self {
        let sum = match source {
            IpAddr::V4(ip) => self.with(&ip.octets()),
            IpAddr::V6(ip) => self.with(&ip.octets()),
        };
        let sum = match destination {
            IpAddr::V4(ip) => sum.with(&ip.octets()),
            IpAddr::V6(ip) => sum.with(&ip.octets()),
        };
        let [a, b, c, d] = length.to_be_bytes();
        sum.with(&[a, b, c, d, 0, 0, 0, super::tcp::PROTOCOL])
    }

    /// The checksum: the one's complement of the folded sum.
    #[must_use]
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_pnet_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..600)) {
            // pnet calls the sum of nothing 0; it skips one 16-bit word by index; an index behind the end skips none.
            let theirs = pnet::packet::util::checksum(&bytes, usize::MAX);
            prop_assert_eq!(Sum::default().with(&bytes).finish(), theirs);
        }
    }
}
