//! Reading decisions from a fuzzer's bytes.

use millrace_wire::LinkType;

/// What is left of the bytes. Whatever is read beyond their end is zero, so that every input means something.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// The next two bytes, big-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    /// The next four bytes, big-endian.
    pub fn u32(&mut self) -> u32 {
        (u32::from(self.u16()) << 16) | u32::from(self.u16())
    }

    /// A small number, as often negative as positive.
    pub fn delta(&mut self) -> i32 {
        i32::from(self.u8().cast_signed())
    }

    /// The next `len` bytes, or what is left.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One of the link types.
    pub fn link(&mut self) -> LinkType {
        match self.u8() % 6 {
            0 => LinkType::Ethernet,
            1 => LinkType::RawIp,
            2 => LinkType::LinuxSll,
            3 => LinkType::LinuxSll2,
            4 => LinkType::Null,
            _ => LinkType::Loop,
        }
    }
}
