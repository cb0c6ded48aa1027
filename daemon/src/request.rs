//! One HTTP request to a daemon of this host (RFC 9112), bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Time for each step.
const PATIENCE: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const MAX_ANSWER: u64 = 4 << 20;

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub code: u16,
    /// The body, without the white space around it.
    pub body: String,
}

/// What an admin port shows at `path`.
///
/// # Errors
/// When nobody answers, or not in time, or not by HTTP.
pub fn get(from: SocketAddr, path: &str) -> io::Result<Answer> {
    let stream = TcpStream::connect_timeout(&from, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, "GET", path, "")
}

/// Gives a command on a daemon's socket.
///
/// # Errors
/// As [`get`].
pub fn post(to: &Path, path: &str, body: &str) -> io::Result<Answer> {
    let stream = UnixStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    exchange(stream, "POST", path, body)
}

fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<Answer> {
    // HTTP/1.0: the answer is not chunked, and ends with the connection.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: millrace\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    parse(&text).ok_or_else(|| io::Error::other("that is not HTTP"))
}

fn parse(text: &str) -> Option<Answer> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let code = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some(Answer {
        code: code.parse().ok()?,
        body: body.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_nonsense_is_not() {
        let answer = parse("HTTP/1.0 202 Accepted\r\nX: y\r\n\r\naccepted\n").unwrap();
        assert_eq!((answer.code, answer.body.as_str()), (202, "accepted"));
        for text in [
            "",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK",
        ] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
