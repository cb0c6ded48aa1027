//! A server that speaks first, in lines (the manner of RFC 5321).

use memchr::memchr;

use super::dialogue::{Found, Request};

pub(super) const GREETING: &[u8] = b"220 millrace-lab ready\r\n";
/// What a line is answered with.
pub(crate) const OK: &[u8] = b"250 ok\r\n";
/// What QUIT is answered with.
pub(crate) const BYE: &[u8] = b"221 bye\r\n";

pub(super) fn next(input: &[u8], out: &mut Vec<u8>) -> Found {
    let Some(end) = memchr(b'\n', input) else {
        return Found::Partial;
    };
    let line = input.get(..end).unwrap_or_default().trim_ascii();
    let close = line.eq_ignore_ascii_case(b"QUIT");
    out.extend_from_slice(if close { BYE } else { OK });
    Found::Request(Request {
        consumed: end + 1,
        body: 0,
        close,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_answered_and_quit_closes() {
        let mut out = Vec::new();
        assert_eq!(next(b"HELO me\r", &mut out), Found::Partial);
        let request = |consumed, close| {
            Found::Request(Request {
                consumed,
                body: 0,
                close,
            })
        };
        assert_eq!(next(b"HELO me\r\nQUIT\r\n", &mut out), request(9, false));
        assert_eq!(next(b"quit\r\n", &mut out), request(6, true));
        assert_eq!(out, [OK, BYE].concat());
    }
}
