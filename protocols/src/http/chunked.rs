//! The chunked coding (RFC 9112, section 7.1), read strictly.
//!
//! Servers differ in what they make of a bare LF, of a size with a sign, or of one that does not fit: each difference lets
//! one message pass for two. Whatever this reader takes, all servers take in the same way; the rest is an error.

use super::head::Bad;

/// The longest line of a size, with its extensions.
const LONGEST_LINE: usize = 4096;
/// The longest trailers of one message.
const LONGEST_TRAILERS: usize = 64 * 1024;

/// Where in a body the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Within the digits of a size.
    Size,
    /// Behind them, where nothing but extensions may follow.
    SizeEnd,
    /// Within extensions.
    Extension,
    /// Behind the CR of that line.
    SizeLf,
    /// Within a chunk.
    Data,
    /// Behind it.
    DataCr,
    DataLf,
    /// At the first octet of a line behind the last chunk, and within one.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    Over,
}

/// Reads one body.
#[derive(Debug)]
pub(super) struct Chunked {
    at: At,
    /// What is left of the chunk.
    left: u64,
    /// Digits of the size so far.
    digits: u32,
    /// Octets of this line, or of all trailers.
    line: usize,
}

/// What some octets are.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) enum Part<'a> {
    /// Content.
    Data(&'a [u8]),
    /// Of the trailers, with the empty line that ends them.
    Trailer(&'a [u8]),
    /// Sizes and what separates chunks.
    Frame,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            at: At::Size,
            left: 0,
            digits: 0,
            line: 0,
        }
    }
}

impl Chunked {
    /// Whether the body has been read whole.
    pub(super) fn is_over(&self) -> bool {
        self.at == At::Over
    }

    /// Reads on: how many octets were taken, and what they are. Takes none only if the body is over or there are none.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Part<'a>), Bad> {
        if self.at == At::Data {
            let len = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            self.left -= len as u64;
            if self.left == 0 {
                self.at = At::DataCr;
            }
            return Ok((len, Part::Data(bytes.get(..len).unwrap_or_default())));
        }
        let was_trailer = self.is_in_trailers();
        let mut taken = 0;
        for byte in bytes {
            if matches!(self.at, At::Data | At::Over) || self.is_in_trailers() != was_trailer {
                break;
            }
            self.step(*byte)?;
            taken += 1;
        }
        let part = match was_trailer {
            true => Part::Trailer(bytes.get(..taken).unwrap_or_default()),
            false => Part::Frame,
        };
        Ok((taken, part))
    }

    fn is_in_trailers(&self) -> bool {
        matches!(
            self.at,
            At::TrailerStart | At::Trailer | At::TrailerLf | At::EndLf | At::Over
        )
    }

    fn step(&mut self, byte: u8) -> Result<(), Bad> {
        self.line += 1;
        let most = match self.is_in_trailers() {
            true => LONGEST_TRAILERS,
            false => LONGEST_LINE,
        };
        if self.line > most {
            return Err(Bad::limit("a line of a chunked body is too long"));
        }
        self.at = match (self.at, byte) {
            (At::Size, _) => self.size(byte)?,
            (At::SizeEnd | At::Extension, b'\r') => At::SizeLf,
            (At::SizeEnd | At::Extension, b'\n') => {
                return Err(Bad::form("a bare LF in a chunked body"));
            }
            (At::SizeEnd, b' ' | b'\t') => At::SizeEnd,
            (At::SizeEnd, b';') | (At::Extension, b'\t' | b' '..=b'~') => At::Extension,
            (At::SizeEnd | At::Extension, _) => {
                return Err(Bad::form("an extension of a chunk cannot be read"));
            }
            (At::SizeLf, b'\n') => self.end_size(),
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                (self.line, self.digits) = (0, 0);
                At::Size
            }
            (At::TrailerStart, b'\r') => At::EndLf,
            (At::TrailerStart | At::Trailer, b'\n') => {
                return Err(Bad::form("a bare LF in trailers"));
            }
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::TrailerStart | At::Trailer, _) => At::Trailer,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            (At::EndLf, b'\n') => At::Over,
            (
                At::SizeLf
                | At::DataCr
                | At::DataLf
                | At::TrailerLf
                | At::EndLf
                | At::Data
                | At::Over,
                _,
            ) => return Err(Bad::form("a line of a chunked body does not end with CRLF")),
        };
        Ok(())
    }

    fn size(&mut self, byte: u8) -> Result<At, Bad> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.digits += 1;
            // Fifteen digits are less than 2^60: no server's arithmetic overflows.
            if self.digits > 15 {
                return Err(Bad::form("the size of a chunk has too many digits"));
            }
            self.left = self.left * 16 + u64::from(digit);
            return Ok(At::Size);
        }
        match byte {
            _ if self.digits == 0 => Err(Bad::form("a chunk has no size")),
            b'\r' => Ok(At::SizeLf),
            b' ' | b'\t' => Ok(At::SizeEnd),
            b';' => Ok(At::Extension),
            _ => Err(Bad::form("the size of a chunk is no number")),
        }
    }

    const fn end_size(&mut self) -> At {
        self.line = 0;
        match self.left {
            0 => At::TrailerStart,
            _ => At::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content and trailers of a body that comes in pieces of this size, and how many octets it has.
    fn read(text: &[u8], piece: usize) -> Result<(String, String, usize), Bad> {
        let mut body = Chunked::default();
        let (mut data, mut trailers, mut len) = (Vec::new(), Vec::new(), 0);
        for mut bytes in text.chunks(piece) {
            while !bytes.is_empty() && !body.is_over() {
                let (taken, part) = body.read(bytes)?;
                assert!(taken > 0);
                match part {
                    Part::Data(part) => data.extend_from_slice(part),
                    Part::Trailer(part) => trailers.extend_from_slice(part),
                    Part::Frame => {}
                }
                bytes = &bytes[taken..];
                len += taken;
            }
        }
        assert!(body.is_over());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(data), text(trailers), len))
    }

    #[test]
    fn content_trailers_and_end_are_found_in_any_pieces() {
        let whole =
            b"5\r\nhello\r\n00A \t; name = \"v\" ;b\r\n, world...\r\n0 \r\nX: y\r\nZ: a\r\n\r\n";
        let text = [&whole[..], b"GET / HTTP/1.1"].concat();
        for piece in 1..=text.len() {
            let (data, trailers, len) = read(&text, piece).unwrap();
            assert_eq!(data, "hello, world...", "pieces of {piece}");
            assert_eq!(trailers, "X: y\r\nZ: a\r\n\r\n");
            assert_eq!(len, whole.len());
        }
        assert_eq!(
            read(b"0\r\n\r\n", 5).unwrap(),
            (String::new(), "\r\n".into(), 5)
        );
    }

    #[test]
    fn what_servers_read_differently_is_an_error() {
        for text in [
            &b"5\nhello\r\n0\r\n\r\n"[..],
            b"5\r\nhelloX\r\n0\r\n\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5;x\nhello\r\n0\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nX: y\n\r\n",
            b"+5\r\nhello\r\n0\r\n\r\n",
            b"-1\r\n",
            b"0x5\r\nhello",
            b"\r\n",
            b";x\r\n",
            b" 5\r\n",
            b"5_\r\n",
            b"10000000000000005\r\n",
            b"5 junk\r\nhello\r\n0\r\n\r\n",
            b"5\tx;y\r\nhello\r\n0\r\n\r\n",
            b"5;a=\0\r\nhello\r\n0\r\n\r\n",
            b"5;a=\x7f\r\nhello\r\n0\r\n\r\n",
            b"5;a=\x85\r\nhello\r\n0\r\n\r\n",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n",
        ] {
            assert!(read(text, text.len()).is_err(), "{text:?}");
            assert!(read(text, 1).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lines_without_end_are_not_read_for_ever() {
        let endless = [&b"5;"[..], &[b'x'; LONGEST_LINE]].concat();
        assert!(read(&endless, 100).is_err());
        let endless = [&b"0\r\n"[..], &b"a: b\r\n".repeat(LONGEST_TRAILERS / 6 + 1)].concat();
        assert!(read(&endless, 1000).is_err());
    }
}
