//! The commands (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_command_phase.html>).

use super::answers::Shape;

pub(super) const QUIT: u8 = 0x01;
pub(super) const QUERY: u8 = 0x03;
pub(super) const CHANGE_USER: u8 = 0x11;
pub(super) const STMT_PREPARE: u8 = 0x16;
pub(super) const STMT_EXECUTE: u8 = 0x17;
pub(super) const STMT_SEND_LONG_DATA: u8 = 0x18;
pub(super) const STMT_CLOSE: u8 = 0x19;
pub(super) const STMT_RESET: u8 = 0x1A;
pub(super) const STMT_FETCH: u8 = 0x1C;
pub(super) const RESET_CONNECTION: u8 = 0x1F;
/// Of MariaDB.
pub(super) const STMT_BULK_EXECUTE: u8 = 0xFA;

/// What a command is to the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It passes as it is.
    Passes,
    /// It is a request that writes, called so.
    Writes(&'static str),
    /// Nothing is known of it but its number: it is taken to write.
    Strange,
    /// A statement's text.
    Query,
    /// A statement's text, to be executed later.
    Prepare,
    /// It begins with the number of a prepared statement.
    Statement,
    /// Another log-in.
    ChangeUser,
    /// It turns the session into something else.
    Unsupported(&'static str),
}

impl Command {
    /// What the command of this number is.
    pub(super) const fn of(number: u8) -> Self {
        match number {
            QUERY => Self::Query,
            STMT_PREPARE => Self::Prepare,
            STMT_EXECUTE..=STMT_RESET | STMT_FETCH | STMT_BULK_EXECUTE => Self::Statement,
            CHANGE_USER => Self::ChangeUser,
            0x05 => Self::Writes("COM_CREATE_DB"),
            0x06 => Self::Writes("COM_DROP_DB"),
            0x07 => Self::Writes("COM_REFRESH"),
            0x08 => Self::Writes("COM_SHUTDOWN"),
            0x0C => Self::Writes("COM_PROCESS_KILL"),
            0x12 => Self::Unsupported("COM_BINLOG_DUMP"),
            0x13 => Self::Unsupported("COM_TABLE_DUMP"),
            0x15 => Self::Unsupported("COM_REGISTER_SLAVE"),
            0x1E => Self::Unsupported("COM_BINLOG_DUMP_GTID"),
            0x20 => Self::Unsupported("COM_CLONE"),
            0x21 => Self::Unsupported("COM_SUBSCRIBE_GROUP_REPLICATION_STREAM"),
            // Of MariaDB 10.2: several commands in one.
            0xFE => Self::Unsupported("COM_MULTI"),
            // COM_INIT_DB, COM_FIELD_LIST, COM_STATISTICS, COM_PROCESS_INFO, COM_PING, COM_SET_OPTION.
            QUIT | 0x02 | 0x04 | 0x09 | 0x0A | 0x0E | 0x1B | RESET_CONNECTION => Self::Passes,
            // COM_DEBUG, what servers use among themselves, and what is not known.
            _ => Self::Strange,
        }
    }
}

/// What a command is answered with, if with anything.
pub(super) const fn answer(number: u8) -> Option<Shape> {
    match number {
        QUIT | STMT_CLOSE | STMT_SEND_LONG_DATA => None,
        0x04 => Some(Shape::Fields),
        0x09 => Some(Shape::Text),
        CHANGE_USER => Some(Shape::Login),
        STMT_PREPARE => Some(Shape::Prepare),
        STMT_FETCH => Some(Shape::Fetch),
        _ => Some(Shape::Usual),
    }
}

/// Whether servers know a command of this number.
pub(super) const fn is_known(number: u8) -> bool {
    number < 0x22 || number == STMT_BULK_EXECUTE || number == 0xFE
}
