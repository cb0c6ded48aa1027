//! A server's greeting, `HandshakeV10`
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_v10.html>;
//! MariaDB: <https://mariadb.com/docs/server/reference/clientserver-protocol/1-connecting/connection>).

use millrace_engine::protocol::Failure;

use super::auth::Scramble;
use super::wire::{Reader, capability, malformed, unsupported};

/// What of a greeting matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) capabilities: u32,
    /// Those of MariaDB beyond the first 32; none of a server of MySQL.
    pub(super) extended: u32,
    /// How the server would like accounts to log in.
    pub(super) plugin: String,
    pub(super) scramble: Scramble,
}

impl Greeting {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or one of before MySQL 4.1.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Failure> {
        match payload.first() {
            Some(10) => {}
            Some(_) => return Err(unsupported("a server of before MySQL 4.1")),
            None => return Err(malformed("a greeting is empty")),
        }
        Self::fields(payload).ok_or_else(|| malformed("a greeting is cut short"))
    }

    fn fields(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        // The version of the protocol, that of the server, and the connection's number.
        reader.bytes(1)?;
        reader.until_nul()?;
        reader.bytes(4)?;
        let mut scramble = reader.bytes(8)?.to_vec();
        reader.bytes(1)?;
        let low = reader.u16()?;
        // Collation and status.
        reader.bytes(3)?;
        let high = reader.u16()?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        let scramble_len = usize::from(reader.u8()?);
        reader.bytes(6)?;
        let extended = reader.u32()?;
        let is_mariadb = capabilities & capability::LONG_PASSWORD == 0;
        if capabilities & capability::SECURE_CONNECTION != 0 {
            // Its NUL may be missing.
            let len = scramble_len.saturating_sub(8).max(13).min(reader.0.len());
            scramble.extend_from_slice(reader.bytes(len.max(12))?);
        }
        let plugin = match capabilities & capability::PLUGIN_AUTH {
            0 => super::auth::NATIVE.as_bytes(),
            _ => reader.until_nul_or_end(),
        };
        Some(Self {
            capabilities,
            extended: if is_mariadb { extended } else { 0 },
            plugin: String::from_utf8_lossy(plugin).into_owned(),
            scramble: Scramble::new(&scramble),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// The greeting of such a server.
    pub(in crate::mysql) fn greeting(
        capabilities: u32,
        extended: u32,
        plugin: &str,
        scramble: &[u8; 20],
    ) -> Vec<u8> {
        let [a, b, c, d] = capabilities.to_le_bytes();
        let mut out = b"\x0a8.0.99\0\x07\0\0\0".to_vec();
        out.extend_from_slice(&scramble[..8]);
        out.extend([0, a, b, 45, 2, 0, c, d, 21, 0, 0, 0, 0, 0, 0]);
        out.extend(extended.to_le_bytes());
        out.extend_from_slice(&scramble[8..]);
        out.push(0);
        out.extend_from_slice(plugin.as_bytes());
        out.push(0);
        out
    }

    #[test]
    fn a_greeting_has_two_pieces_of_a_scramble_and_capabilities_in_three() {
        let scramble = b"01234567890123456789";
        let bytes = greeting(0x00FF_F7FE, 7, "mysql_native_password", scramble);
        let read = Greeting::parse(&bytes).unwrap();
        assert_eq!(read.capabilities, 0x00FF_F7FE);
        assert_eq!(read.extended, 7);
        assert_eq!(read.plugin, "mysql_native_password");
        assert_eq!(read.scramble, Scramble::new(scramble));
        // Those of MySQL have nothing there.
        let of_mysql = Greeting::parse(&greeting(0x00FF_F7FF, 7, "x", scramble)).unwrap();
        assert_eq!(of_mysql.extended, 0);
        for len in 0..40 {
            assert!(Greeting::parse(&bytes[..len]).is_err());
        }
        assert!(Greeting::parse(b"\x09old").is_err());
    }
}
