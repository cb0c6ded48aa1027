//! The head of a request (RFC 9112, sections 2 to 6): found, checked, and kept as it came.
//!
//! Where a request ends must be beyond doubt: what the live server took for one request, the target must not take for two.
//! So a head is refused if servers are known to read it differently: a bare LF, a folded line, a space before a colon, more
//! than one length, a length beside a coding, any coding but `chunked`, or a coding in HTTP/1.0. nginx answers 400 or 501 to
//! all of these but the bare LF.

use std::borrow::Cow;
use std::mem::MaybeUninit;

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

/// Which fields a head has, of those that decide something: most heads have none of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    length: bool,
    coding: bool,
    upgrade: bool,
    expect: bool,
    /// One that names another method.
    method: bool,
}

impl Seen {
    fn note(&mut self, name: &[u8]) {
        match name.len() {
            6 => self.expect |= name.eq_ignore_ascii_case(b"Expect"),
            7 => self.upgrade |= name.eq_ignore_ascii_case(b"Upgrade"),
            14 => self.length |= name.eq_ignore_ascii_case(b"Content-Length"),
            13 => self.method |= is_method(name, b"x-http-method"),
            17 => {
                self.coding |= name.eq_ignore_ascii_case(b"Transfer-Encoding");
                self.method |= is_method(name, b"x-method-override");
            }
            22 => self.method |= is_method(name, b"x-http-method-override"),
            _ => {}
        }
    }
}

/// Whether a field has this name. Gateways to scripts do not tell `_` from `-`.
fn is_method(name: &[u8], other: &[u8]) -> bool {
    let plain = name.iter().map(|byte| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    });
    plain.eq(other.iter().copied())
}

/// A whole head: a part of what the client sent, or a copy of it.
pub(super) struct Head<'a> {
    raw: Cow<'a, [u8]>,
    outline: Outline,
}

/// What a look at a head shows.
#[derive(Clone, Copy)]
struct Outline {
    /// Octets of all of it, of the method, and of the target.
    len: usize,
    method: usize,
    target: usize,
    /// HTTP/1.0 or 1.1.
    minor: u8,
    seen: Seen,
    /// Not all of its lines end with CRLF.
    has_bare_lf: bool,
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

impl<'a> Head<'a> {
    /// Reads a head that ends with its empty line. All of its lines end with CRLF.
    fn parse(raw: Vec<u8>) -> Result<Self, Bad> {
        let outline = look(&raw)?.ok_or(Bad::form("a head without an end"))?;
        let raw = Cow::Owned(raw);
        Ok(Self { raw, outline })
    }

    /// The head that these octets begin with, if it is whole, and nothing has to be said about it.
    fn at_once(bytes: &'a [u8]) -> Option<Self> {
        // Empty lines before it, and what is no head, are looked at octet by octet.
        bytes.first().filter(|first| is_token(**first))?;
        let outline = look(bytes).ok().flatten()?;
        let raw = bytes.get(..outline.len)?;
        if outline.len > LONGEST_HEAD || outline.has_bare_lf {
            return None;
        }
        let raw = Cow::Borrowed(raw);
        Some(Self { raw, outline })
    }

    /// The same, to be kept.
    pub(super) fn into_owned(self) -> Head<'static> {
        Head {
            raw: Cow::Owned(self.raw.into_owned()),
            outline: self.outline,
        }
    }

    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// In bytes.
    pub(super) const fn memory(&self) -> usize {
        match &self.raw {
            Cow::Owned(raw) => raw.capacity(),
            Cow::Borrowed(_) => 0,
        }
    }

    pub(super) fn method(&self) -> &[u8] {
        self.raw.get(..self.outline.method).unwrap_or_default()
    }

    /// The request's target, in the form in which it came (RFC 9112, section 3.2).
    pub(super) fn target(&self) -> &[u8] {
        let from = self.outline.method + 1;
        let range = from..from + self.outline.target;
        self.raw.get(range).unwrap_or_default()
    }

    /// The version, as it stands at the end of the first line.
    pub(super) const fn version(&self) -> &'static str {
        match self.outline.minor {
            0 => "HTTP/1.0",
            _ => "HTTP/1.1",
        }
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let raw = self.raw.as_ref();
        let mut from = 0;
        let lines = memchr::memchr_iter(b'\n', raw)
            .filter_map(move |at| raw.get(std::mem::replace(&mut from, at + 1)..=at));
        lines.skip(1).filter_map(read_line)
    }

    /// Whether a field names another method.
    pub(super) const fn names_method(&self) -> bool {
        self.outline.seen.method
    }

    /// The values of all fields with this name.
    pub(super) fn values<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b [u8]> {
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
        if !self.outline.seen.length && !self.outline.seen.coding {
            return Ok(Framing::Sized(0));
        }
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
            (None, Some(_)) if self.outline.minor == 0 => {
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
        self.outline.seen.upgrade && self.has_word("Connection", "upgrade")
    }

    /// Whether another protocol may follow: `CONNECT`, or `Upgrade` (RFC 9110, section 7.8), but for what is offered in
    /// passing.
    pub(super) fn asks_for_tunnel(&self) -> bool {
        self.is_connect() || self.asks_for_upgrade() && !self.offers_h2c()
    }

    /// Whether it offers HTTP/2 and nothing else (RFC 7540, section 3.2): some clients do so with every connection, and most
    /// servers ignore it.
    pub(super) fn offers_h2c(&self) -> bool {
        if !self.outline.seen.upgrade {
            return false;
        }
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
        self.outline.seen.expect && self.has_word("Expect", "100-continue")
    }
}

/// A line's field. The empty line has none.
fn read_line(line: &[u8]) -> Option<Field<'_>> {
    let colon = memchr::memchr(b':', line)?;
    let (name, value) = line.split_at_checked(colon)?;
    let value = value.get(1..)?.trim_ascii();
    Some(Field { name, value, line })
}

/// A length (RFC 9110, section 8.6): digits alone.
pub(super) fn length_of(value: &[u8]) -> Option<u64> {
    // Less than 2^63 as well: no server's arithmetic overflows.
    if !(1..=18).contains(&value.len()) {
        return None;
    }
    value.iter().try_fold(0, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(10 * number + digit)
    })
}

/// Looks at a head, with what follows it. `None`: it is the beginning of one.
///
/// Each of its lines is a field, since the parser ignores none: so the lines that end before a field, and the last, are all.
fn look(raw: &[u8]) -> Result<Option<Outline>, Bad> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(raw, &mut fields) {
        Ok(httparse::Status::Complete(len)) => {
            let mut seen = Seen::default();
            // The empty line, and the one before it.
            let is_head = |head: &[u8]| head.ends_with(b"\r\n\r\n");
            let mut has_bare_lf = !raw.get(..len).is_some_and(is_head);
            for field in request.headers.iter() {
                seen.note(field.name.as_bytes());
                // The parser's names are parts of `raw`. Each follows the end of a line.
                let at = field.name.as_ptr().addr().wrapping_sub(raw.as_ptr().addr());
                has_bare_lf |= raw.get(at.wrapping_sub(2)) != Some(&b'\r');
            }
            Ok(request.version.map(|minor| Outline {
                len,
                method: request.method.map_or(0, str::len),
                target: request.path.map_or(0, str::len),
                minor,
                seen,
                has_bare_lf,
            }))
        }
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
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Option<Head<'a>>), Bad> {
        let at_once = self.is_empty().then(|| Head::at_once(bytes));
        if let Some(head) = at_once.flatten() {
            return Ok((head.raw.len(), Some(head)));
        }
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
                look(&self.buffer)?;
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
