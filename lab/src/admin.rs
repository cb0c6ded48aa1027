//! The smallest HTTP client that reads a daemon's admin port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Doing, Error, Result};

/// An admin port answers at once or is not well.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than any report or metrics page; whoever sends more is not a daemon of ours.
const LARGEST: u64 = 16 << 20;

/// Status and body of a `GET`, from the calling thread's namespace.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let what = || format!("asking http://{address}{path}");
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).doing(what)?;
    stream.set_read_timeout(Some(PATIENCE)).doing(what)?;
    stream.set_write_timeout(Some(PATIENCE)).doing(what)?;
    // HTTP/1.0, so that the body ends with the connection and is never chunked.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).doing(what)?;
    let mut answer = Vec::new();
    stream.take(LARGEST).read_to_end(&mut answer).doing(what)?;
    parse(&answer).ok_or_else(|| Error::Malformed {
        what: format!("the answer of http://{address}{path}"),
        detail: "not HTTP".to_owned(),
    })
}

fn parse(answer: &[u8]) -> Option<(u16, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(start) = response.parse(answer).ok()? else {
        return None;
    };
    let body = String::from_utf8_lossy(answer.get(start..)?).into_owned();
    Some((response.code?, body))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn status_and_body_are_told_apart() {
        let answer = b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nnot ready";
        assert_eq!(parse(answer), Some((503, "not ready".to_owned())));
        assert_eq!(parse(b"220 mail.example ESMTP\r\n"), None);
        assert_eq!(parse(b"HTTP/1.0 200 OK\r\n"), None);
    }
}
