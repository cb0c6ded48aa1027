//! Numbers and strings of the protocol, and the names of its bits.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_basic_data_types.html>,
//! <https://mariadb.com/docs/server/reference/clientserver-protocol/protocol-data-types>.

use millrace_engine::protocol::{Failure, FailureKind};

/// Capabilities of a side
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/group__group__cs__capabilities__flags.html>).
pub(super) mod capability {
    /// Of MySQL: a long password. MariaDB calls it `CLIENT_MYSQL`: where it is not set, more capabilities follow.
    pub(in crate::mysql) const LONG_PASSWORD: u32 = 1;
    pub(in crate::mysql) const CONNECT_WITH_DB: u32 = 1 << 3;
    pub(in crate::mysql) const COMPRESS: u32 = 1 << 5;
    pub(in crate::mysql) const LOCAL_FILES: u32 = 1 << 7;
    pub(in crate::mysql) const PROTOCOL_41: u32 = 1 << 9;
    pub(in crate::mysql) const SSL: u32 = 1 << 11;
    pub(in crate::mysql) const TRANSACTIONS: u32 = 1 << 13;
    pub(in crate::mysql) const SECURE_CONNECTION: u32 = 1 << 15;
    pub(in crate::mysql) const MULTI_STATEMENTS: u32 = 1 << 16;
    pub(in crate::mysql) const MULTI_RESULTS: u32 = 1 << 17;
    pub(in crate::mysql) const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub(in crate::mysql) const PLUGIN_AUTH: u32 = 1 << 19;
    pub(in crate::mysql) const CONNECT_ATTRIBUTES: u32 = 1 << 20;
    pub(in crate::mysql) const PLUGIN_AUTH_LENENC: u32 = 1 << 21;
    pub(in crate::mysql) const DEPRECATE_EOF: u32 = 1 << 24;
    pub(in crate::mysql) const OPTIONAL_METADATA: u32 = 1 << 25;
    pub(in crate::mysql) const ZSTD: u32 = 1 << 26;
    pub(in crate::mysql) const QUERY_ATTRIBUTES: u32 = 1 << 27;
    pub(in crate::mysql) const MULTI_FACTOR: u32 = 1 << 28;
    pub(in crate::mysql) const SSL_VERIFY: u32 = 1 << 30;
    /// `MARIADB_CLIENT_STMT_BULK_OPERATIONS`, of MariaDB's further capabilities.
    pub(in crate::mysql) const MARIADB_BULK: u32 = 1 << 2;
}

/// What a server says about its session with each answer.
pub(super) mod status {
    pub(in crate::mysql) const MORE_RESULTS: u16 = 8;
    pub(in crate::mysql) const CURSOR_EXISTS: u16 = 64;
}

/// A failure because a side does not speak the protocol.
pub(super) fn malformed(text: &str) -> Failure {
    Failure::new(FailureKind::Malformed, text)
}

/// A failure because the module cannot play this.
pub(super) fn unsupported(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Unsupported, text)
}

/// Reads a packet's payload from its beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next so many bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A length-encoded integer. 0xFB (NULL) and 0xFF (an error) are none.
    pub(super) fn lenenc(&mut self) -> Option<u64> {
        let wide = |bytes: &[u8]| {
            let bytes = bytes.iter().rev();
            bytes.fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        match self.u8()? {
            0xFB | 0xFF => None,
            0xFC => self.bytes(2).map(wide),
            0xFD => self.bytes(3).map(wide),
            0xFE => self.bytes(8).map(wide),
            small => Some(u64::from(small)),
        }
    }

    /// Bytes behind their length-encoded number.
    pub(super) fn lenenc_bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.lenenc()?;
        self.bytes(usize::try_from(len).ok()?)
    }

    /// Bytes up to a NUL, which is passed over.
    pub(super) fn until_nul(&mut self) -> Option<&'a [u8]> {
        let len = self.0.iter().position(|byte| *byte == 0)?;
        let taken = self.bytes(len)?;
        self.bytes(1)?;
        Some(taken)
    }

    /// Bytes up to a NUL, or all that is left: servers leave the last NUL of a packet out.
    pub(super) fn until_nul_or_end(&mut self) -> &'a [u8] {
        match self.until_nul() {
            Some(taken) => taken,
            None => std::mem::take(&mut self.0),
        }
    }
}

/// Adds a length-encoded integer.
pub(super) fn put_lenenc(out: &mut Vec<u8>, value: usize) {
    let bytes = (value as u64).to_le_bytes();
    let (sign, len) = match value {
        0..=0xFA => (None, 1),
        0xFB..=0xFFFF => (Some(0xFC), 2),
        0x1_0000..=0xFF_FFFF => (Some(0xFD), 3),
        _ => (Some(0xFE), 8),
    };
    out.extend(sign);
    out.extend(bytes.iter().take(len));
}

/// Adds bytes behind their length-encoded number.
pub(super) fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Adds bytes and a NUL.
pub(super) fn put_nul(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(0);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn length_encoded_integers_are_read_as_they_are_written() {
        for value in [0, 250, 251, 0xFFFF, 0x1_0000, 0xFF_FFFF, 0x100_0000] {
            let mut out = Vec::new();
            put_lenenc(&mut out, value);
            let mut reader = Reader(&out);
            assert_eq!(reader.lenenc(), Some(value as u64));
            assert!(reader.0.is_empty());
            assert_eq!(Reader(&out[..out.len() - 1]).lenenc(), None);
        }
        assert_eq!(Reader(&[0xFB]).lenenc(), None);
    }

    #[test]
    fn strings_end_at_a_nul_and_the_last_may_lack_it() {
        let mut reader = Reader(b"a\0bc");
        assert_eq!(reader.until_nul(), Some(&b"a"[..]));
        assert_eq!(reader.until_nul(), None);
        assert_eq!(reader.until_nul_or_end(), b"bc");
    }
}
