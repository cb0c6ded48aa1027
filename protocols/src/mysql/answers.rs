//! Where a server's answers begin and end, and the little in them that matters.
//!
//! <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_com_query_response.html>,
//! <https://mariadb.com/docs/server/reference/clientserver-protocol/4-server-response-packets>.
//!
//! Packets are looked at by their first bytes and counted; only those of a log-in are held, up to [`MOST_HELD`].

use millrace_engine::protocol::Failure;

use super::packets::{LONGEST, Packets, Part};
use super::wire::{Reader, malformed, status};

/// What of a packet is looked at: an OK has a byte, two numbers of nine and the status in it.
const HEAD: usize = 32;
/// The longest packet of a log-in. A key of 4096 bits takes 800 bytes.
const MOST_HELD: usize = 16 << 10;

const OK: u8 = 0x00;
const ERR: u8 = 0xFF;
/// Ends what has no number: an EOF, or where these are not used, an OK.
const END: u8 = 0xFE;
const LOCAL_INFILE: u8 = 0xFB;
/// The length of an EOF. An OK in its place has 7 bytes at least.
const EOF_LEN: u64 = 5;
/// MariaDB reports progress by errors of this number.
const PROGRESS: u16 = 0xFFFF;

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The greeting of a connection: one packet, which is held.
    Greeting,
    /// A log-in: packets, which are held, up to an OK or an error.
    Login,
    /// An OK, an error, or result sets.
    Usual,
    /// A prepared statement's number and definitions.
    Prepare,
    /// Rows.
    Fetch,
    /// Definitions of columns.
    Fields,
    /// One packet.
    Text,
}

/// What is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// No answer is under way.
    #[default]
    Idle,
    /// The first packet of an answer, or of the next one of several results.
    First(Shape),
    /// So many definitions of columns, then whatever ends them, then rows.
    Columns(u64),
    /// What stands between definitions and rows, if anything does.
    ColumnsEnd,
    /// Rows up to their end.
    Rows,
    /// So many definitions of parameters, and then of columns.
    Definitions(u16, u16),
    /// What ends the definitions, and so many of columns after it.
    DefinitionsEnd(u16),
    /// The client's file, before the answer goes on.
    File,
    /// Nothing: the answer is over, and that is still to be said.
    Over,
}

/// Whether a server ends definitions with packets of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Eofs {
    /// The first that ends rows will tell.
    #[default]
    Unknown,
    /// It does.
    Sent,
    /// The client does without (`CLIENT_DEPRECATE_EOF`).
    Deprecated,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A packet of a greeting or a log-in that ends nothing, with its sequence number.
    Packet { number: u8, payload: Vec<u8> },
    /// A statement was prepared.
    Prepared { id: u32, parameters: u16 },
    /// The server asks for a file of the client, which it takes as packets of numbers that follow this one.
    File { number: u8 },
    /// The answer is over; with an error's number if it is one.
    Over { error: Option<u16> },
}

/// Reads a server's side.
#[derive(Debug, Default)]
pub(super) struct Answers {
    packets: Packets,
    next: Next,
    eofs: Eofs,
    /// The beginning of the packet that is under way, or all of it in a log-in.
    held: Vec<u8>,
    /// Its length so far, with all packets that continue it.
    len: u64,
    number: u8,
    /// An answer was taken to be over, and a packet that ends its definitions may still come.
    may_stray: bool,
}

impl Answers {
    /// What was agreed on.
    pub(super) const fn set_eofs(&mut self, eofs: Eofs) {
        self.eofs = eofs;
    }

    /// An answer of this shape comes next.
    pub(super) const fn begin(&mut self, shape: Shape) {
        self.next = Next::First(shape);
    }

    /// Whether no answer is under way.
    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.next, Next::Idle)
    }

    /// Whether the server waits for a file of the client.
    pub(super) const fn wants_file(&self) -> bool {
        matches!(self.next, Next::File)
    }

    /// The client's file is over: the answer goes on.
    pub(super) const fn file_is_over(&mut self) {
        self.next = Next::First(Shape::Usual);
    }

    /// Bytes are missing: what comes next begins with a packet, and no answer is under way.
    pub(super) fn restart(&mut self) {
        *self = Self {
            eofs: self.eofs,
            ..Self::default()
        };
    }

    /// Reads on up to the next event, from the front of the bytes. `None` once they are used up.
    ///
    /// # Errors
    /// The server does not speak the protocol, or says something that nobody asked for.
    pub(super) fn hear(&mut self, bytes: &mut &[u8]) -> Result<Option<Event>, Failure> {
        loop {
            if self.next == Next::Over {
                self.next = Next::Idle;
                return Ok(Some(Event::Over { error: None }));
            }
            let Some(part) = self.packets.next(bytes) else {
                return Ok(None);
            };
            let is_last = match part {
                Part::Head(head) => {
                    self.number = head.number;
                    false
                }
                Part::Body { bytes, is_last } => {
                    self.hold(bytes)?;
                    is_last
                }
            };
            if is_last {
                let event = self.take()?;
                self.len = 0;
                self.held.clear();
                if event.is_some() {
                    return Ok(event);
                }
            }
        }
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let is_whole = matches!(self.next, Next::First(Shape::Greeting | Shape::Login));
        let most = if is_whole { MOST_HELD } else { HEAD };
        let room = most.saturating_sub(self.held.len());
        self.held.extend(bytes.iter().take(room));
        self.len += bytes.len() as u64;
        match is_whole && self.len > MOST_HELD as u64 {
            true => Err(malformed("a packet of a log-in is too long")),
            false => Ok(()),
        }
    }

    /// Takes the packet that is complete.
    fn take(&mut self) -> Result<Option<Event>, Failure> {
        // The first packet of an answer has the number 1.
        if std::mem::take(&mut self.may_stray) && self.number > 1 && self.is_eof() {
            self.eofs = Eofs::Sent;
            return Ok(None);
        }
        if self.held.first() == Some(&ERR) && self.next != Next::Idle {
            return Ok(self.take_error());
        }
        match self.next {
            Next::Idle | Next::Over => Err(malformed("a server says what nobody asked for")),
            Next::File => self.take_first(Shape::Usual),
            Next::First(shape) => self.take_first(shape),
            Next::Columns(left) => {
                self.next = match left {
                    0 | 1 => self.columns_over(),
                    _ => Next::Columns(left - 1),
                };
                Ok(None)
            }
            Next::ColumnsEnd => Ok(self.take_columns_end()),
            Next::Rows => Ok(self.take_row()),
            Next::Definitions(parameters, columns) => {
                self.next = self.after_definition(parameters, columns);
                Ok(None)
            }
            Next::DefinitionsEnd(columns) => {
                // Where it is not known whether anything stands here, it may be a definition already.
                self.eofs = match self.is_eof() {
                    true => Eofs::Sent,
                    false => Eofs::Deprecated,
                };
                self.next = match self.eofs {
                    Eofs::Sent => definitions(0, columns),
                    Eofs::Deprecated | Eofs::Unknown => self.after_definition(0, columns),
                };
                Ok(None)
            }
        }
    }

    fn after_definition(&mut self, parameters: u16, columns: u16) -> Next {
        let left = match parameters.checked_sub(1) {
            Some(0) => columns,
            Some(left) => return Next::Definitions(left, columns),
            None if columns > 1 => return Next::Definitions(0, columns - 1),
            None => 0,
        };
        match (self.eofs, left) {
            (Eofs::Deprecated, _) => definitions(0, left),
            // What may follow is waited for only where something else does in any case.
            (Eofs::Unknown, 0) => {
                self.may_stray = true;
                Next::Over
            }
            (Eofs::Unknown | Eofs::Sent, _) => Next::DefinitionsEnd(left),
        }
    }

    fn is_eof(&self) -> bool {
        self.held.first() == Some(&END) && self.len == EOF_LEN
    }

    /// An end of rows or columns. What begins like one and is longer is a row with a very long value.
    fn is_end(&self) -> bool {
        self.held.first() == Some(&END) && self.len < u64::from(LONGEST)
    }

    fn take_error(&mut self) -> Option<Event> {
        let code = Reader(self.held.get(1..).unwrap_or_default()).u16();
        let code = code.unwrap_or_default();
        if code == PROGRESS {
            return None;
        }
        self.next = Next::Idle;
        Some(Event::Over { error: Some(code) })
    }

    fn take_first(&mut self, shape: Shape) -> Result<Option<Event>, Failure> {
        let first = self.held.first().copied();
        match shape {
            Shape::Greeting => {
                self.next = Next::Idle;
                Ok(Some(self.packet()))
            }
            Shape::Login if first == Some(OK) => {
                self.next = Next::Idle;
                Ok(Some(Event::Over { error: None }))
            }
            Shape::Login => Ok(Some(self.packet())),
            Shape::Usual => self.take_usual(first),
            Shape::Prepare => self.take_prepared(),
            // Both are a run of packets that an end follows.
            Shape::Fetch | Shape::Fields => {
                self.next = Next::Rows;
                Ok(self.take_row())
            }
            Shape::Text => {
                self.next = Next::Idle;
                Ok(Some(Event::Over { error: None }))
            }
        }
    }

    fn packet(&mut self) -> Event {
        Event::Packet {
            number: self.number,
            payload: std::mem::take(&mut self.held),
        }
    }

    fn take_prepared(&mut self) -> Result<Option<Event>, Failure> {
        let fields = || {
            let mut reader = Reader(&self.held);
            let ok = reader.u8()?;
            Some((ok, reader.u32()?, reader.u16()?, reader.u16()?))
        };
        let Some((OK, id, columns, parameters)) = fields() else {
            return Err(malformed("a prepared statement has no number"));
        };
        self.next = definitions(parameters, columns);
        Ok(Some(Event::Prepared { id, parameters }))
    }

    fn take_usual(&mut self, first: Option<u8>) -> Result<Option<Event>, Failure> {
        match first {
            Some(OK | END) => {
                let status = self.status();
                Ok(self.result_over(status))
            }
            Some(LOCAL_INFILE) => {
                self.next = Next::File;
                let number = self.number;
                Ok(Some(Event::File { number }))
            }
            Some(_) => {
                let mut reader = Reader(&self.held);
                let columns = reader.lenenc().filter(|columns| *columns <= 4096);
                let columns = columns.ok_or_else(|| malformed("an answer has no columns"))?;
                // MariaDB says here whether definitions follow, where the client knows them from a PREPARE
                // (`MARIADB_CLIENT_CACHE_METADATA`).
                let follow = reader.u8().is_none_or(|follow| follow != 0);
                self.next = match follow {
                    true => Next::Columns(columns),
                    false => self.columns_over(),
                };
                Ok(None)
            }
            None => Err(malformed("an answer is empty")),
        }
    }

    fn columns_over(&self) -> Next {
        match self.eofs {
            Eofs::Deprecated => Next::Rows,
            Eofs::Sent | Eofs::Unknown => Next::ColumnsEnd,
        }
    }

    fn take_columns_end(&mut self) -> Option<Event> {
        self.next = Next::Rows;
        if !self.is_eof() {
            return self.take_row();
        }
        self.eofs = Eofs::Sent;
        // With a cursor the rows are fetched by requests of their own.
        let status = self.status();
        match status & status::CURSOR_EXISTS {
            0 => None,
            _ => self.result_over(status),
        }
    }

    fn take_row(&mut self) -> Option<Event> {
        if !self.is_end() {
            return None;
        }
        self.eofs = match self.is_eof() {
            true => Eofs::Sent,
            false => Eofs::Deprecated,
        };
        let status = self.status();
        self.result_over(status)
    }

    /// The status in an OK or an EOF. What is cut short has none.
    fn status(&self) -> u16 {
        let mut reader = Reader(self.held.get(1..).unwrap_or_default());
        let status = if self.is_eof() {
            // After the number of warnings.
            reader.u16().and_then(|_| reader.u16())
        } else {
            // After the rows that were changed, and the last number that was given.
            let numbers = reader.lenenc().and_then(|_| reader.lenenc());
            numbers.and_then(|_| reader.u16())
        };
        status.unwrap_or_default()
    }

    fn result_over(&mut self, status: u16) -> Option<Event> {
        if status & status::MORE_RESULTS != 0 {
            self.next = Next::First(Shape::Usual);
            return None;
        }
        self.next = Next::Idle;
        Some(Event::Over { error: None })
    }
}

const fn definitions(parameters: u16, columns: u16) -> Next {
    match (parameters, columns) {
        (0, 0) => Next::Over,
        _ => Next::Definitions(parameters, columns),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "answers_tests.rs"]
pub(super) mod tests;
