//! One HTTP request to an admin port (RFC 9112), bounded in time and size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Time for each step.
const PATIENCE: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const MAX_ANSWER: u64 = 4 << 20;

/// What came back.
pub(super) struct Answer {
    /// Status code.
    pub(super) code: u16,
    /// The body, without the white space around it.
    pub(super) body: String,
}

/// Sends a request and reads the answer.
pub(super) fn send(to: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer is not chunked, and ends with the connection.
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {to}\r\nContent-Length: {}\r\n\r\n{body}",
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
