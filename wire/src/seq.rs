//! TCP sequence numbers: 32-bit, modulo 2^32 (RFC 9293 3.4).

use std::fmt;

/// A TCP sequence or acknowledgement number.
///
/// Arithmetic wraps, comparison is by signed distance, and neither can panic: hostile input
/// compares in some way or other, and the caller's window checks throw it away.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Seq(pub u32);

impl Seq {
    /// The number `n` bytes further on.
    #[must_use]
    pub const fn add(self, n: u32) -> Self {
        Self(self.0.wrapping_add(n))
    }

    /// Signed distance from `other` to `self`: positive when `self` is later.
    pub const fn since(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether `self` lies before `other`.
    pub const fn before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    /// Whether `self` lies behind `other`.
    pub const fn after(self, other: Self) -> bool {
        self.since(other) > 0
    }

    /// The 64-bit stream offset that this number stands for, given that it lies within 2^31 of
    /// the known pair (`known`, `offset`). `None` when that would be before offset 0.
    pub const fn offset_near(self, known: Self, offset: u64) -> Option<u64> {
        offset.checked_add_signed(self.since(known) as i64)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparison_survives_the_wrap() {
        let before = Seq(u32::MAX - 1);
        let behind = before.add(4);
        assert_eq!(behind, Seq(2));
        assert!(before.before(behind) && behind.after(before));
        assert_eq!(behind.since(before), 4);
    }

    #[test]
    fn offsets_continue_over_the_wrap_and_never_go_below_zero() {
        assert_eq!(
            Seq(3).offset_near(Seq(u32::MAX), 1 << 32),
            Some((1 << 32) + 4)
        );
        assert_eq!(Seq(u32::MAX).offset_near(Seq(3), 10), Some(6));
        assert_eq!(Seq(u32::MAX).offset_near(Seq(3), 3), None);
    }
}
