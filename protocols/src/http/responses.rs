//! Responses, of the live server or of the target: where each ends (RFC 9112, section 6.3).
//!
//! A response decides nothing about what the target gets but when it gets it, and which values stand in it. So this reader
//! takes more than the one of requests does; where it cannot read on, nobody listens to that side any more.

use std::mem::MaybeUninit;

use super::chunked::{Chunked, Part};
use super::head::{Bad, LONGEST_HEAD, length_of};

const MOST_FIELDS: usize = 256;

/// What a response answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// HEAD: a response without a body, whatever its fields say.
    Head,
    /// CONNECT: a tunnel, if it succeeds.
    Connect,
    /// Anything else.
    Other,
}

/// The head of a response.
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    fields: Vec<(String, Vec<u8>)>,
}

impl ResponseHead {
    /// The values of all fields with this name.
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.fields.iter();
        let fields = fields.filter(move |(it, _)| it.eq_ignore_ascii_case(name));
        fields.map(|(_, value)| value.as_slice())
    }
}

/// What came next.
#[derive(PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Event<'a> {
    /// Nothing that says anything yet.
    More,
    /// An interim response: 1xx, but 101.
    Interim,
    /// A final response begins. With `over` it has no body.
    Head { head: ResponseHead, over: bool },
    /// Some of its body, without chunks. With `over` it ends there.
    Data { data: &'a [u8], over: bool },
    /// Another protocol begins: 101, or success for CONNECT.
    Tunnel,
}

#[derive(Debug)]
enum At {
    Head,
    Sized(u64),
    Chunked(Chunked),
    /// It ends with the connection.
    UntilClose,
    Tunnel,
}

/// Reads responses one after another.
pub(super) struct Responses {
    at: At,
    buffer: Vec<u8>,
    /// Octets of the line that is not complete.
    line: usize,
}

impl Default for Responses {
    fn default() -> Self {
        Self {
            at: At::Head,
            buffer: Vec::new(),
            line: 0,
        }
    }
}

impl Responses {
    #[cfg(test)]
    /// Whether a response has begun that is not over.
    pub(super) fn is_within(&self) -> bool {
        !matches!(self.at, At::Head) || !self.buffer.is_empty()
    }

    /// In bytes.
    pub(super) const fn memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Reads on: how many octets were taken, and what they are. `asked`: what the next response answers. `keeps_fields`: they are
    /// asked for; heads have none otherwise.
    pub(super) fn read<'a>(
        &mut self,
        bytes: &'a [u8],
        asked: Asked,
        keeps_fields: bool,
    ) -> Result<(usize, Event<'a>), Bad> {
        let all = bytes.len();
        match &mut self.at {
            At::Head => self.read_head(bytes, asked, keeps_fields),
            At::Tunnel => Ok((all, Event::More)),
            At::UntilClose => Ok((
                all,
                Event::Data {
                    data: bytes,
                    over: false,
                },
            )),
            At::Sized(left) => {
                let len = usize::try_from(*left).map_or(all, |left| left.min(all));
                *left -= len as u64;
                let over = *left == 0;
                if over {
                    self.at = At::Head;
                }
                let data = bytes.get(..len).unwrap_or_default();
                Ok((len, Event::Data { data, over }))
            }
            At::Chunked(body) => {
                let (len, part) = body.read(bytes)?;
                let over = body.is_over();
                if over {
                    self.at = At::Head;
                }
                let data = match part {
                    Part::Data(data) => data,
                    Part::Trailer(_) | Part::Frame => &[],
                };
                Ok((len, Event::Data { data, over }))
            }
        }
    }

    fn read_head<'a>(
        &mut self,
        bytes: &[u8],
        asked: Asked,
        keeps_fields: bool,
    ) -> Result<(usize, Event<'a>), Bad> {
        // Empty lines before a head are looked at one by one, and so is a head that has not come whole.
        if self.buffer.is_empty()
            && bytes.first() == Some(&b'H')
            && let Some(head) = parse(bytes, asked, keeps_fields)?
            && head.len <= LONGEST_HEAD
        {
            return Ok((head.len, self.begin(head)));
        }
        let mut taken = 0;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.buffer.len() + part.len() > LONGEST_HEAD {
                return Err(Bad::limit("the head of a response is longer than 64 KiB"));
            }
            self.buffer.extend_from_slice(part);
            taken += part.len();
            if !part.ends_with(b"\n") {
                break;
            }
            let line = self.buffer.get(self.line..).unwrap_or_default();
            let is_empty = matches!(line, b"\r\n" | b"\n");
            self.line = self.buffer.len();
            if is_empty && self.line > 2 {
                self.line = 0;
                let raw = std::mem::take(&mut self.buffer);
                let bad = Bad::form("a head without an end");
                let head = parse(&raw, asked, keeps_fields)?.ok_or(bad)?;
                return Ok((taken, self.begin(head)));
            }
        }
        Ok((taken, Event::More))
    }

    fn begin<'a>(&mut self, parsed: Parsed) -> Event<'a> {
        let Parsed { head, body, .. } = parsed;
        match body {
            Follows::Response => Event::Interim,
            Follows::Tunnel => {
                self.at = At::Tunnel;
                Event::Tunnel
            }
            Follows::Body(at) => {
                self.at = at;
                let over = matches!(self.at, At::Head);
                Event::Head { head, over }
            }
        }
    }
}

/// The head of a response, as it was read.
struct Parsed {
    head: ResponseHead,
    /// In octets.
    len: usize,
    body: Follows,
}

/// What follows a head.
enum Follows {
    /// The final response.
    Response,
    /// Another protocol.
    Tunnel,
    /// Its body. `At::Head`: it has none.
    Body(At),
}

/// Reads a head, with what follows it. `None`: it is the beginning of one.
fn parse(raw: &[u8], asked: Asked, keeps_fields: bool) -> Result<Option<Parsed>, Bad> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    let read = config.parse_response_with_uninit_headers(&mut response, raw, &mut fields);
    let bad = Bad::form("this is no response of HTTP/1");
    let len = match read {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad),
    };
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(bad);
    };
    let body = match status {
        101 => Follows::Tunnel,
        100..200 => Follows::Response,
        200..300 if asked == Asked::Connect => Follows::Tunnel,
        _ => Follows::Body(framing(response.headers, status, minor, asked)?),
    };
    let fields = match keeps_fields {
        true => response
            .headers
            .iter()
            .map(|it| (it.name.to_owned(), it.value.to_vec()))
            .collect(),
        false => Vec::new(),
    };
    let head = ResponseHead { status, fields };
    Ok(Some(Parsed { head, len, body }))
}

/// How a body is delimited; `At::Head`: there is none.
fn framing(
    fields: &[httparse::Header<'_>],
    status: u16,
    minor: u8,
    asked: Asked,
) -> Result<At, Bad> {
    if asked == Asked::Head || matches!(status, 204 | 304) {
        return Ok(At::Head);
    }
    let (mut coding, mut length, mut has_two) = (None, None, false);
    // Most servers write names as the standard does.
    let is = |name: &str, wanted: &str| name == wanted || name.eq_ignore_ascii_case(wanted);
    for field in fields {
        match field.name.len() {
            17 if is(field.name, "Transfer-Encoding") => coding = coding.or(Some(field.value)),
            14 if is(field.name, "Content-Length") => {
                has_two |= length.is_some_and(|length| length != field.value);
                length = Some(field.value);
            }
            _ => {}
        }
    }
    if let Some(coding) = coding {
        let is_chunked = minor > 0 && coding.eq_ignore_ascii_case(b"chunked");
        return Ok(match is_chunked {
            true => At::Chunked(Chunked::default()),
            false => At::UntilClose,
        });
    }
    let Some(length) = length else {
        return Ok(At::UntilClose);
    };
    if has_two {
        return Err(Bad::form("a response has two lengths"));
    }
    match length_of(length) {
        Some(0) => Ok(At::Head),
        Some(length) => Ok(At::Sized(length)),
        None => Err(Bad::form("a response's length is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the responses of a stream are, with the octets that remained unread at an error.
    fn read(text: &[u8], piece: usize, asked: &[Asked]) -> Vec<String> {
        let mut responses = Responses::default();
        let mut said = Vec::new();
        let mut body = String::new();
        let mut asked = asked.iter();
        let mut next = asked.next().copied();
        for mut bytes in text.chunks(piece) {
            while !bytes.is_empty() {
                let Ok((taken, event)) = responses.read(bytes, next.unwrap_or(Asked::Other), true)
                else {
                    said.push("error".into());
                    return said;
                };
                assert!(taken > 0);
                bytes = &bytes[taken..];
                let ended = match event {
                    Event::More => false,
                    Event::Interim => {
                        said.push("interim".into());
                        false
                    }
                    Event::Tunnel => {
                        said.push("tunnel".into());
                        return said;
                    }
                    Event::Head { head, over } => {
                        body = format!("{} ", head.status);
                        over
                    }
                    Event::Data { data, over } => {
                        body.push_str(std::str::from_utf8(data).unwrap());
                        over
                    }
                };
                if ended {
                    said.push(std::mem::take(&mut body));
                    next = asked.next().copied();
                }
            }
        }
        if responses.is_within() {
            said.push(format!("{body}..."));
        }
        said
    }

    fn in_all_pieces(text: &str, asked: &[Asked], expected: &[&str]) {
        for piece in 1..=text.len() {
            assert_eq!(
                read(text.as_bytes(), piece, asked),
                expected,
                "{text:?} {piece}"
            );
        }
    }

    #[test]
    fn each_kind_of_end_is_found() {
        use Asked::{Connect, Head, Other};
        in_all_pieces(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103\r\nLink: x\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\
             HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n\
             HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nT: x\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n\
             HTTP/1.0 200 OK\n\nto the end",
            &[Other, Head, Other, Other, Other, Other, Other],
            &[
                "interim",
                "interim",
                "200 hello",
                "200 ",
                "204 ",
                "304 ",
                "200 abc",
                "200 ",
                "200 to the end...",
            ],
        );
        let tunnel = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x01\x02";
        in_all_pieces(tunnel, &[Other], &["tunnel"]);
        let refused = "HTTP/1.1 407 x\r\nContent-Length: 1\r\n\r\n1";
        let tunnel = format!("{refused}HTTP/1.1 200 Connected\r\nContent-Length: 5\r\n\r\n12345");
        in_all_pieces(&tunnel, &[Connect, Connect], &["407 1", "tunnel"]);
    }

    #[test]
    fn codings_decide_over_lengths_and_two_lengths_are_an_error() {
        let both =
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        in_all_pieces(both, &[Asked::Other], &["200 "]);
        let other = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
        in_all_pieces(other, &[Asked::Other], &["200 0\r\n\r\n..."]);
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "+PONG\r\n\r\n",
        ] {
            in_all_pieces(text, &[Asked::Other], &["error"]);
        }
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(LONGEST_HEAD));
        assert_eq!(read(endless.as_bytes(), 4096, &[]), ["error"]);
    }
}
