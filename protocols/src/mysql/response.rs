//! A client's log-in, `HandshakeResponse41`
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_packets_protocol_handshake_response.html>;
//! MariaDB has further capabilities in the filler's last four bytes).

use millrace_engine::protocol::{Failure, FailureKind};

use super::wire::{Reader, capability, malformed, put_lenenc_bytes, put_nul, unsupported};

/// The length of what asks for encryption, and of what every log-in begins with.
const FIXED: usize = 32;

/// A log-in, without what proves the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) capabilities: u32,
    pub(super) extended: u32,
    pub(super) max_packet: u32,
    pub(super) collation: u8,
    pub(super) user: Vec<u8>,
    pub(super) database: Option<Vec<u8>>,
    /// Connect attributes, as they came, without their length.
    pub(super) attributes: Option<Vec<u8>>,
}

impl Response {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or one that cannot be played: encrypted, or of before MySQL 4.1.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Failure> {
        let capabilities = Reader(payload).u16().map_or(0, u32::from);
        if capabilities & capability::PROTOCOL_41 == 0 {
            return Err(unsupported("a client of before MySQL 4.1"));
        }
        if capabilities & capability::SSL != 0 {
            let text = "the client asks for TLS";
            return Err(Failure::new(FailureKind::Encrypted, text));
        }
        Self::fields(payload).ok_or_else(|| malformed("a log-in is cut short"))
    }

    fn fields(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader(payload);
        let (capabilities, max_packet) = (reader.u32()?, reader.u32()?);
        let collation = reader.u8()?;
        reader.bytes(FIXED - 13)?;
        let extended = reader.u32()?;
        let has = |bit| capabilities & bit != 0;
        let user = reader.until_nul()?.to_vec();
        if has(capability::PLUGIN_AUTH_LENENC) {
            reader.lenenc_bytes()?;
        } else if has(capability::SECURE_CONNECTION) {
            let len = reader.u8()?;
            reader.bytes(usize::from(len))?;
        } else {
            reader.until_nul()?;
        }
        let database = has(capability::CONNECT_WITH_DB)
            .then(|| reader.until_nul_or_end().to_vec())
            .filter(|database| !database.is_empty());
        if has(capability::PLUGIN_AUTH) {
            reader.until_nul_or_end();
        }
        // Some clients set the bit and send none.
        let attributes = has(capability::CONNECT_ATTRIBUTES)
            .then(|| reader.lenenc_bytes())
            .flatten();
        Some(Self {
            capabilities,
            // A client of MySQL has nothing there.
            extended: if has(capability::LONG_PASSWORD) {
                0
            } else {
                extended
            },
            max_packet,
            collation,
            user,
            database,
            attributes: attributes.map(<[u8]>::to_vec),
        })
    }

    /// The payload, with this proof of the password.
    pub(super) fn encode(&self, plugin: &str, proof: &[u8]) -> Vec<u8> {
        let mut capabilities = self.capabilities;
        let mut set = |bit: u32, is: bool| match is {
            true => capabilities |= bit,
            false => capabilities &= !bit,
        };
        set(capability::CONNECT_WITH_DB, self.database.is_some());
        set(capability::CONNECT_ATTRIBUTES, self.attributes.is_some());
        let has = |bit| capabilities & bit != 0;
        let mut out = capabilities.to_le_bytes().to_vec();
        out.extend(self.max_packet.to_le_bytes());
        out.push(self.collation);
        out.extend([0; FIXED - 13]);
        out.extend(self.extended.to_le_bytes());
        put_nul(&mut out, &self.user);
        // Proofs are shorter than 251 bytes: with or without the bit for lengths their length is one byte.
        put_lenenc_bytes(&mut out, proof);
        if let Some(database) = &self.database {
            put_nul(&mut out, database);
        }
        if has(capability::PLUGIN_AUTH) {
            put_nul(&mut out, plugin.as_bytes());
        }
        if let Some(attributes) = &self.attributes {
            put_lenenc_bytes(&mut out, attributes);
        }
        out
    }
}

/// `COM_CHANGE_USER`
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_change_user.html>).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChangeUser {
    pub(super) user: Vec<u8>,
    database: Vec<u8>,
    collation: Option<u16>,
    attributes: Option<Vec<u8>>,
}

impl ChangeUser {
    /// Reads one, of a client with these capabilities.
    pub(super) fn parse(payload: &[u8], capabilities: u32) -> Option<Self> {
        let has = |bit| capabilities & bit != 0;
        let mut reader = Reader(payload);
        reader.bytes(1)?;
        let user = reader.until_nul()?.to_vec();
        if has(capability::SECURE_CONNECTION) {
            let len = reader.u8()?;
            reader.bytes(usize::from(len))?;
        } else {
            reader.until_nul()?;
        }
        let database = reader.until_nul_or_end().to_vec();
        let collation = reader.u16();
        if has(capability::PLUGIN_AUTH) {
            reader.until_nul_or_end();
        }
        let attributes = has(capability::CONNECT_ATTRIBUTES)
            .then(|| reader.lenenc_bytes())
            .flatten();
        Some(Self {
            user,
            database,
            collation,
            attributes: attributes.map(<[u8]>::to_vec),
        })
    }

    /// The payload for a server with which these capabilities were agreed on.
    pub(super) fn encode(&self, capabilities: u32, plugin: &str, proof: &[u8]) -> Vec<u8> {
        let has = |bit| capabilities & bit != 0;
        let mut out = vec![super::commands::CHANGE_USER];
        put_nul(&mut out, &self.user);
        put_lenenc_bytes(&mut out, proof);
        put_nul(&mut out, &self.database);
        let Some(collation) = self.collation else {
            return out;
        };
        out.extend(collation.to_le_bytes());
        if has(capability::PLUGIN_AUTH) {
            put_nul(&mut out, plugin.as_bytes());
        }
        if has(capability::CONNECT_ATTRIBUTES) {
            put_lenenc_bytes(&mut out, self.attributes.as_deref().unwrap_or_default());
        }
        out
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use capability::*;

    pub(in crate::mysql) const USUAL: u32 = LONG_PASSWORD
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | MULTI_RESULTS
        | PS_MULTI_RESULTS
        | PLUGIN_AUTH
        | PLUGIN_AUTH_LENENC
        | CONNECT_WITH_DB
        | CONNECT_ATTRIBUTES;

    pub(in crate::mysql) fn response(capabilities: u32) -> Response {
        Response {
            capabilities,
            extended: 0,
            max_packet: 1 << 24,
            collation: 255,
            user: b"app".to_vec(),
            database: Some(b"shop".to_vec()),
            attributes: Some(b"\x04_pid\x0242".to_vec()),
        }
    }

    #[test]
    fn a_login_is_read_as_it_is_written() {
        for capabilities in [USUAL, USUAL & !PLUGIN_AUTH_LENENC, USUAL & !PLUGIN_AUTH] {
            let it = response(capabilities);
            let bytes = it.encode("mysql_native_password", &[7; 20]);
            assert_eq!(Response::parse(&bytes).as_ref(), Ok(&it));
            for len in 0..FIXED + 5 {
                assert!(Response::parse(&bytes[..len]).is_err());
            }
        }
        let of_mariadb = Response {
            capabilities: USUAL & !LONG_PASSWORD,
            extended: 0x1D,
            ..response(USUAL)
        };
        let bytes = of_mariadb.encode("x", b"");
        assert_eq!(Response::parse(&bytes), Ok(of_mariadb));
    }

    #[test]
    fn what_cannot_be_played_is_refused_by_its_kind() {
        let kind = |bytes: &[u8]| Response::parse(bytes).unwrap_err().kind;
        let mut ask = [0; 32];
        ask[..2].copy_from_slice(&((PROTOCOL_41 | SSL) as u16).to_le_bytes());
        assert_eq!(kind(&ask), FailureKind::Encrypted);
        assert_eq!(
            kind(b"\x05\x00\x00\x00\x00root\0"),
            FailureKind::Unsupported
        );
    }

    #[test]
    fn a_change_of_user_is_written_as_the_target_reads_it() {
        let mut asked = b"\x11app\0\x14".to_vec();
        asked.extend([9; 20]);
        asked.extend_from_slice(b"shop\0\x2d\0mysql_native_password\0\x00");
        let it = ChangeUser::parse(&asked, USUAL).unwrap();
        assert_eq!(it.user, b"app");
        let played = it.encode(USUAL, "mysql_native_password", &[9; 20]);
        assert_eq!(played, asked);
        let short = ChangeUser::parse(b"\x11app\0\0shop", USUAL).unwrap();
        assert_eq!(short.encode(USUAL, "x", b""), b"\x11app\0\0shop\0");
    }
}
