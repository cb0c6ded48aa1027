//! HTTP/1.1 (RFC 9112), as far as a server needs it that answers by a number in the path.

use std::io::Write as _;

use httparse::{EMPTY_HEADER, Status};

use super::dialogue::{Found, Request};

/// Header lines of one request; what has more is no client of ours.
const MOST_HEADERS: usize = 64;
/// The largest body that `GET /bytes/N` is answered with.
const LARGEST_BODY: u64 = 1 << 30;

/// A body that is being read.
#[derive(Debug, Default)]
pub(super) struct Http {
    upload: Option<Upload>,
}

#[derive(Clone, Copy, Debug)]
struct Upload {
    left: u64,
    close: bool,
}

impl Http {
    pub(super) fn next(&mut self, input: &[u8], out: &mut Vec<u8>) -> Found {
        match self.upload.take() {
            Some(upload) => self.take_body(upload, input, out),
            None => self.take_head(input, out),
        }
    }

    fn take_body(&mut self, upload: Upload, input: &[u8], out: &mut Vec<u8>) -> Found {
        let left = usize::try_from(upload.left).unwrap_or(usize::MAX);
        if input.len() < left {
            self.upload = Some(Upload {
                left: upload.left - input.len() as u64,
                ..upload
            });
            return Found::Skipped(input.len());
        }
        stored(out);
        Found::Request(Request {
            consumed: left,
            body: 0,
            close: upload.close,
        })
    }

    fn take_head(&mut self, input: &[u8], out: &mut Vec<u8>) -> Found {
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let length = match request.parse(input) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Found::Partial,
            Err(_) => return refuse(out, "400 Bad Request"),
        };
        let Some(wanted) = Wanted::read(request.headers, request.version == Some(0)) else {
            return refuse(out, "501 Not Implemented");
        };
        if wanted.upload > 0 {
            if wanted.expects_continue {
                out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            }
            self.upload = Some(Upload {
                left: wanted.upload,
                close: wanted.close,
            });
            return Found::Skipped(length);
        }
        let path = request.path.unwrap_or_default();
        let body = match request.method {
            Some("GET" | "HEAD") => body_length(path),
            _ => None,
        };
        match body {
            Some(body) => {
                head(out, "200 OK", body, wanted.close);
                let body = if request.method == Some("HEAD") {
                    0
                } else {
                    body
                };
                Found::Request(Request {
                    consumed: length,
                    body,
                    close: wanted.close,
                })
            }
            None => {
                stored(out);
                Found::Request(Request {
                    consumed: length,
                    body: 0,
                    close: wanted.close,
                })
            }
        }
    }
}

/// What the header lines ask for.
struct Wanted {
    upload: u64,
    close: bool,
    expects_continue: bool,
}

impl Wanted {
    /// Nothing for a framing that this server does not know.
    fn read(headers: &[httparse::Header<'_>], old: bool) -> Option<Self> {
        let mut wanted = Self {
            upload: 0,
            close: old,
            expects_continue: false,
        };
        for header in headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                wanted.upload = std::str::from_utf8(value).ok()?.parse().ok()?;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return None;
            } else if header.name.eq_ignore_ascii_case("connection") {
                wanted.close = if old {
                    !value.eq_ignore_ascii_case(b"keep-alive")
                } else {
                    value.eq_ignore_ascii_case(b"close")
                };
            } else if header.name.eq_ignore_ascii_case("expect") {
                wanted.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        Some(wanted)
    }
}

/// The N of `/bytes/N`, whatever query follows.
fn body_length(path: &str) -> Option<u64> {
    let number = path.strip_prefix("/bytes/")?;
    let number = number.split('?').next()?;
    number.parse().ok().filter(|length| *length <= LARGEST_BODY)
}

/// The answer to everything but `GET /bytes/N`.
fn stored(out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
}

fn head(out: &mut Vec<u8>, status: &str, length: u64, close: bool) {
    let connection = if close { "Connection: close\r\n" } else { "" };
    // Writing to memory cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{connection}\r\n"
    );
}

fn refuse(out: &mut Vec<u8>, status: &str) -> Found {
    head(out, status, 0, true);
    Found::Refused
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(consumed: usize, body: u64, close: bool) -> Found {
        Found::Request(Request {
            consumed,
            body,
            close,
        })
    }

    #[test]
    fn a_get_is_answered_with_as_many_bytes_as_its_path_says() {
        let mut out = Vec::new();
        let input = b"GET /bytes/70000?n=3 HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert_eq!(
            Http::default().next(input, &mut out),
            request(42, 70_000, false)
        );
        assert!(out.starts_with(b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n"));
    }

    #[test]
    fn connection_close_is_honoured() {
        let input = b"GET /bytes/1 HTTP/1.1\r\nconnection: Close\r\n\r\n";
        assert_eq!(
            Http::default().next(input, &mut Vec::new()),
            request(input.len(), 1, true)
        );
        let input = b"GET / HTTP/1.0\r\n\r\n";
        assert_eq!(
            Http::default().next(input, &mut Vec::new()),
            request(input.len(), 0, true)
        );
    }

    #[test]
    fn an_upload_is_answered_when_its_last_byte_came_and_not_before() {
        let (mut http, mut out) = (Http::default(), Vec::new());
        let head = b"PUT /x HTTP/1.1\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
        assert_eq!(http.next(head, &mut out), Found::Skipped(head.len()));
        assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(http.next(b"123456", &mut out), Found::Skipped(6));
        assert_eq!(
            http.next(b"7890GET / HTTP/1.1\r\n\r\n", &mut out),
            request(4, 0, false)
        );
        assert!(out.ends_with(b"ok\n"));
    }

    #[test]
    fn what_is_not_http_is_refused() {
        assert_eq!(
            Http::default().next(b"\x16\x03\x01\x02\x00\x01", &mut Vec::new()),
            Found::Refused
        );
        let chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(
            Http::default().next(chunked, &mut Vec::new()),
            Found::Refused
        );
        let minus = b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n";
        assert_eq!(Http::default().next(minus, &mut Vec::new()), Found::Refused);
    }
}
