//! The head of a request (RFC 9112, sections 2 to 6): found, checked, and kept as it came.
//!
//! Where a request ends must be beyond doubt: what the live server took for one request, the target must not take for two.
//! So a head is refused if servers are known to read it differently: a bare LF, a folded line, a space before a colon, more
//! than one length, a length beside a coding, any coding but `chunked`, or a coding in HTTP/1.0. nginx answers 400 or 501 to
//! all of these but the bare LF.

use std::mem::MaybeUninit;
use std::ops::Range;

use millrace_engine::protocol::{Failure, FailureKind};

/// The longest head, in octets.
pub(super) const LONGEST_HEAD: usize = 64 * 1024;
/// So many fields a head may have.
const MOST_FIELDS: usize = 256;

/// Why something is no message that can be played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    kind: FailureKind,
    why: &'static str,
}

impl Bad {
    pub(super) const fn form(why: &'static str) -> Self {
        let kind = FailureKind::Unsupported;
        Self { kind, why }
    }

    pub(super) const fn limit(why: &'static str) -> Self {
        let kind = FailureKind::Limit;
        Self { kind, why }
    }
}

impl From<Bad> for Failure {
    fn from(bad: Bad) -> Self {
        Self::new(bad.kind, bad.why)
    }
}

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length in octets, which may be none.
    Sized(u64),
    /// By chunks.
    Chunked,
}

/// A field, as places in the head.
#[derive(Debug)]
struct Line {
    whole: Range<usize>,
    name: Range<usize>,
    value: Range<usize>,
}

/// A whole head.
pub(super) struct Head {
    raw: Vec<u8>,
    method: Range<usize>,
    target: Range<usize>,
    lines: Vec<Line>,
    /// HTTP/1.0 or 1.1.
    minor: u8,
}

/// A field's name and value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    /// Its whole line.
    pub(super) line: &'a [u8],
}

impl Field<'_> {
    pub(super) const fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl Head {
    /// Reads a head that ends with its empty line. All of its lines end with CRLF.
    fn parse(raw: Vec<u8>) -> Result<Self, Bad> {
        let minor = check(&raw)?.ok_or(Bad::form("a head without an end"))?;
        let mut lines = raw.split_inclusive(|byte| *byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let words = first.splitn(3, |byte| *byte == b' ').map(<[u8]>::len);
        let mut words = words.chain([0, 0]);
        let method = 0..words.next().unwrap_or_default();
        let from = method.end + 1;
        let target = from..from + words.next().unwrap_or_default();
        let mut at = first.len();
        let mut fields = Vec::new();
        for line in lines {
            fields.extend(read_line(line, at));
            at += line.len();
        }
        Ok(Self {
            raw,
            method,
            target,
            lines: fields,
            minor,
        })
    }

    fn part(&self, range: &Range<usize>) -> &[u8] {
        self.raw.get(range.clone()).unwrap_or_default()
    }

    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// In bytes.
    pub(super) const fn memory(&self) -> usize {
        self.raw.capacity() + self.lines.capacity() * size_of::<Line>()
    }

    pub(super) fn method(&self) -> &[u8] {
        self.part(&self.method)
    }

    /// The request's target, in the form in which it came (RFC 9112, section 3.2).
    pub(super) fn target(&self) -> &[u8] {
        self.part(&self.target)
    }

    /// The version, as it stands at the end of the first line.
    pub(super) const fn version(&self) -> &'static str {
        match self.minor {
            0 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| Field {
            name: self.part(&line.name),
            value: self.part(&line.value),
            line: self.part(&line.whole),
        })
    }

    /// The values of all fields with this name.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields().filter(move |field| field.is(name));
        fields.map(|field| field.value)
    }

    fn has_word(&self, name: &str, word: &str) -> bool {
        let mut words = self
            .values(name)
            .flat_map(|value| value.split(|byte| *byte == b','));
        words.any(|it| it.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Where its body ends (RFC 9112, section 6.3).
    pub(super) fn framing(&self) -> Result<Framing, Bad> {
        let mut lengths = self.values("Content-Length");
        let mut codings = self.values("Transfer-Encoding");
        let first = (lengths.next(), codings.next());
        if lengths.next().is_some() || codings.next().is_some() {
            return Err(Bad::form("a request has two lengths or codings"));
        }
        match first {
            (None, None) => Ok(Framing::Sized(0)),
            (Some(length), None) => length_of(length)
                .map(Framing::Sized)
                .ok_or(Bad::form("a request's length is no number")),
            (None, Some(_)) if self.minor == 0 => {
                Err(Bad::form("a request of HTTP/1.0 has a coding"))
            }
            (None, Some(coding)) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(_)) => Err(Bad::form("a request has a coding besides chunked")),
            (Some(_), Some(_)) => Err(Bad::form("a request has a length and a coding")),
        }
    }

    pub(super) fn is_connect(&self) -> bool {
        self.method() == b"CONNECT"
    }

    fn asks_for_upgrade(&self) -> bool {
        self.values("Upgrade").next().is_some() && self.has_word("Connection", "upgrade")
    }

    /// Whether another protocol may follow: `CONNECT`, or `Upgrade` (RFC 9110, section 7.8), but for what is offered in
    /// passing.
    pub(super) fn asks_for_tunnel(&self) -> bool {
        self.is_connect() || self.asks_for_upgrade() && !self.offers_h2c()
    }

    /// Whether it offers HTTP/2 and nothing else (RFC 7540, section 3.2): some clients do so with every connection, and most
    /// servers ignore it.
    pub(super) fn offers_h2c(&self) -> bool {
        let mut protocols = self
            .values("Upgrade")
            .flat_map(|value| value.split(|byte| *byte == b','));
        !self.is_connect()
            && self.asks_for_upgrade()
            && protocols.all(|it| it.trim_ascii().eq_ignore_ascii_case(b"h2c"))
    }

    /// Whether it asks for this protocol.
    pub(super) fn asks_for(&self, protocol: &str) -> bool {
        self.asks_for_tunnel() && self.has_word("Upgrade", protocol)
    }

    /// Whether the client waits for an interim answer before it sends the body (RFC 9110, section 10.1.1).
    pub(super) fn expects_continue(&self) -> bool {
        self.has_word("Expect", "100-continue")
    }
}

/// A line's field; `at`: where it begins. The empty line has none.
fn read_line(line: &[u8], at: usize) -> Option<Line> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let value = line.get(colon + 1..)?;
    let from = at + colon + 1 + (value.len() - value.trim_ascii_start().len());
    Some(Line {
        whole: at..at + line.len(),
        name: at..at + colon,
        value: from..from + value.trim_ascii().len(),
    })
}

/// A length (RFC 9110, section 8.6): digits alone.
pub(super) fn length_of(value: &[u8]) -> Option<u64> {
    // Less than 2^63 as well: no server's arithmetic overflows.
    let is_number = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(value).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// Whether this is a head, or the beginning of one (`None`): its minor version.
fn check(raw: &[u8]) -> Result<Option<u8>, Bad> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(raw, &mut fields) {
        Ok(httparse::Status::Complete(_)) => Ok(request.version),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(Bad::limit("a head has too many fields")),
        Err(
            httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine,
        ) => Err(Bad::form("a field of a request cannot be read")),
        Err(httparse::Error::Status | httparse::Error::Token | httparse::Error::Version) => {
            Err(Bad::form("this is no request of HTTP/1"))
        }
    }
}

/// Collects a head.
#[derive(Default)]
pub(super) struct HeadReader {
    buffer: Vec<u8>,
    /// Where the line begins that is not complete.
    line: usize,
}

impl HeadReader {
    /// Whether nothing of a head has come.
    pub(super) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// In bytes.
    pub(super) const fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// What has come so far.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.line = 0;
        std::mem::take(&mut self.buffer)
    }

    /// What has come so far.
    pub(super) fn so_far(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads on: how many octets were taken, and the head once it is whole. Empty lines before a head are none of it
    /// (RFC 9112, section 2.2), and are not kept.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(usize, Option<Head>), Bad> {
        let mut taken = 0;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.buffer.len() + part.len() > LONGEST_HEAD {
                return Err(Bad::limit("a head is longer than 64 KiB"));
            }
            self.buffer.extend_from_slice(part);
            taken += part.len();
            if self.line == 0 {
                self.check_beginning()?;
            }
            if part.ends_with(b"\n") && self.end_line()? {
                return Ok((taken, Some(Head::parse(self.take())?)));
            }
        }
        Ok((taken, None))
    }

    /// Ends a line; says whether the head has ended.
    fn end_line(&mut self) -> Result<bool, Bad> {
        let line = self.buffer.get(self.line..).unwrap_or_default();
        if !line.ends_with(b"\r\n") {
            return Err(Bad::form("a line of a request does not end with CRLF"));
        }
        let is_empty = line.len() == 2;
        match (is_empty, self.line) {
            (true, 0) => self.buffer.clear(),
            (true, _) => return Ok(true),
            (false, 0) => {
                check(&self.buffer)?;
                self.line = self.buffer.len();
            }
            (false, _) => self.line = self.buffer.len(),
        }
        Ok(false)
    }

    /// What is no HTTP, as TLS, shows with its first octet.
    fn check_beginning(&self) -> Result<(), Bad> {
        match self.buffer.as_slice() {
            [] | [b'\r'] | [b'\r', b'\n', ..] => Ok(()),
            [first, ..] if is_token(*first) => Ok(()),
            [..] => Err(Bad::form("this is no request of HTTP/1")),
        }
    }
}

/// Whether an octet may stand in a token (RFC 9110, section 5.6.2).
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
