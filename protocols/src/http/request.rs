//! Requests with their bodies: streamed, left out, or gathered where values in them are replaced.

use super::chunked::{Chunked, Part};
use super::head::{Bad, Framing, Head};
use super::settings::TokenRule;
use super::swap::Content;
use super::users::Users;

/// Longer bodies are not gathered: they pass as they are. In octets, chunk sizes among them.
pub(super) const LONGEST_BODY: usize = 1 << 20;

/// What of a body is still to come.
#[derive(Debug)]
pub(super) enum Body {
    Sized(u64),
    Chunked(Chunked),
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        match framing {
            Framing::Sized(len) => Self::Sized(len),
            Framing::Chunked => Self::Chunked(Chunked::default()),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Sized(left) => *left == 0,
            Self::Chunked(body) => body.is_over(),
        }
    }

    /// Reads on: how many octets were taken, and what they are.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Part<'a>), Bad> {
        match self {
            Self::Sized(left) => {
                let all = bytes.len();
                let len = usize::try_from(*left).map_or(all, |left| left.min(all));
                *left -= len as u64;
                Ok((len, Part::Data(bytes.get(..len).unwrap_or_default())))
            }
            Self::Chunked(body) => body.read(bytes),
        }
    }

    /// Reads all that a piece has of it: how many octets that is.
    pub(super) fn skip(&mut self, bytes: &[u8]) -> Result<usize, Bad> {
        let mut taken = 0;
        while !self.is_over() && taken < bytes.len() {
            taken += self.read(bytes.get(taken..).unwrap_or_default())?.0;
        }
        Ok(taken)
    }
}

/// A request whose head is read.
pub(super) struct Request<'a> {
    pub(super) head: Head<'a>,
    pub(super) users: Users,
    pub(super) rest: Rest,
}

/// What of its body goes with the head.
pub(super) enum Rest {
    /// All of it, with other values.
    Whole(Box<Gathered>),
    /// This as it came; the remainder follows.
    Begun { raw: Vec<u8>, body: Body },
}

impl<'a> Request<'a> {
    /// In bytes.
    pub(super) fn memory(&self) -> usize {
        let rest = match &self.rest {
            Rest::Whole(gathered) => gathered.memory(),
            Rest::Begun { raw, .. } => raw.capacity(),
        };
        size_of::<Self>() + self.head.memory() + self.users.memory() + rest
    }

    /// The same, to be kept.
    pub(super) fn into_owned(self) -> Request<'static> {
        Request {
            head: self.head.into_owned(),
            users: self.users,
            rest: self.rest,
        }
    }

    pub(super) fn new(head: Head<'a>, framing: Framing, rules: &[TokenRule]) -> Self {
        Self {
            users: Users::of(&head, rules),
            head,
            rest: Rest::Begun {
                raw: Vec::new(),
                body: Body::new(framing),
            },
        }
    }
}

/// A body that is gathered.
pub(super) struct Gathered {
    pub(super) body: Body,
    content: Content,
    /// As it came.
    pub(super) raw: Vec<u8>,
    /// Without its chunks, if it has some.
    data: Vec<u8>,
    trailers: Vec<u8>,
}

impl Gathered {
    /// The body of this request, if values in it can be replaced and it is not known to be too long.
    pub(super) fn new(head: &Head<'_>, framing: Framing) -> Option<Self> {
        let content = Content::of(head)?;
        if let Framing::Sized(len) = framing
            && (len == 0 || len > LONGEST_BODY as u64)
        {
            return None;
        }
        Some(Self {
            body: Body::new(framing),
            content,
            raw: Vec::new(),
            data: Vec::new(),
            trailers: Vec::new(),
        })
    }

    /// In bytes.
    pub(super) const fn memory(&self) -> usize {
        let own = size_of::<Self>();
        own + self.raw.capacity() + self.data.capacity() + self.trailers.capacity()
    }

    /// Reads on: how many octets were taken.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, Bad> {
        let (taken, part) = self.body.read(bytes)?;
        self.raw
            .extend_from_slice(bytes.get(..taken).unwrap_or_default());
        match (part, &self.body) {
            (Part::Data(data), Body::Chunked(_)) => self.data.extend_from_slice(data),
            (Part::Trailer(trailer), _) => self.trailers.extend_from_slice(trailer),
            (Part::Data(_) | Part::Frame, _) => {}
        }
        Ok(taken)
    }

    pub(super) fn is_too_long(&self) -> bool {
        self.raw.len() > LONGEST_BODY
    }

    pub(super) const fn content(&self) -> Content {
        self.content
    }

    pub(super) fn data(&self) -> &[u8] {
        match self.body {
            Body::Sized(_) => &self.raw,
            Body::Chunked(_) => &self.data,
        }
    }

    /// The body with other content: its octets, and its length where the head says it.
    pub(super) fn with(&self, data: Vec<u8>) -> (Vec<u8>, Option<usize>) {
        match self.body {
            Body::Sized(_) => {
                let len = data.len();
                (data, Some(len))
            }
            Body::Chunked(_) => {
                // A chunk of no length would be the last one.
                let mut out = match data.len() {
                    0 => Vec::new(),
                    len => format!("{len:x}\r\n").into_bytes(),
                };
                if !data.is_empty() {
                    out.extend_from_slice(&data);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n");
                out.extend_from_slice(&self.trailers);
                (out, None)
            }
        }
    }
}
