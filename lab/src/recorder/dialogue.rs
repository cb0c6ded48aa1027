//! What all protocols have in common: bytes in, one request after the other, answers out. No I/O.

use super::Protocol;
use super::greeting;
use super::http::Http;
use super::resp;

/// The state of one connection's protocol.
#[derive(Debug)]
pub(super) enum Dialogue {
    Http(Http),
    Resp,
    Greeting,
}

/// What was found at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing complete: more input is needed first.
    Partial,
    /// Bytes that are not yet a complete request and need no answer, or have had an interim one.
    Skipped(usize),
    /// A complete request.
    Request(Request),
    /// Nothing of this protocol: the connection is to be closed after what was put out.
    Refused,
}

/// A complete request whose answer has been put out, except for a large body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Bytes of input that belong to it.
    pub(super) consumed: usize,
    /// How many bytes of [`crate::pattern`] are to follow what was put out.
    pub(super) body: u64,
    /// Whether the connection ends after it.
    pub(super) close: bool,
}

impl Dialogue {
    pub(super) fn new(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http => Self::Http(Http::default()),
            Protocol::Resp => Self::Resp,
            Protocol::Greeting => Self::Greeting,
        }
    }

    /// What the server says first.
    pub(super) fn greeting(&self) -> &'static [u8] {
        match self {
            Self::Http(_) | Self::Resp => b"",
            Self::Greeting => greeting::GREETING,
        }
    }

    /// Looks at the start of the input and appends what is to be answered.
    pub(super) fn next(&mut self, input: &[u8], out: &mut Vec<u8>) -> Found {
        if input.is_empty() {
            return Found::Partial;
        }
        match self {
            Self::Http(http) => http.next(input, out),
            Self::Resp => resp::next(input, out),
            Self::Greeting => greeting::next(input, out),
        }
    }
}
