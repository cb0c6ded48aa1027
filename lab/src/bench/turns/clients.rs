//! Clients that ask one request after the other, each on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use millrace_lab::{Error, Result, Stage};

use crate::bench::{KEY, Service};

/// What a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What they ask for.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) enum Asks {
    /// A page, over HTTP.
    Page,
    /// A key, as clients of Redis do.
    Key,
}

impl Asks {
    /// The protocol module for it.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Page => "http",
            Self::Key => "redis",
        }
    }

    fn request(self) -> Vec<u8> {
        match self {
            Self::Page => b"GET / HTTP/1.1\r\nHost: live\r\n\r\n".to_vec(),
            Self::Key => format!("*2\r\n$3\r\nGET\r\n${}\r\n{KEY}\r\n", KEY.len()).into_bytes(),
        }
    }

    /// Bytes of the answer that begins with these, once its head is whole.
    ///
    /// # Errors
    /// When the head does not tell.
    fn whole(self, answer: &str) -> std::io::Result<Option<usize>> {
        let end = match self {
            Self::Page => "\r\n\r\n",
            Self::Key => "\r\n",
        };
        let Some((head, _)) = answer.split_once(end) else {
            return Ok(None);
        };
        let body: Option<usize> = match self {
            Self::Page => {
                let mut lines = head.lines().filter_map(|line| line.split_once(": "));
                let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                length.and_then(|(_, length)| length.parse().ok())
            }
            Self::Key => {
                let length = head
                    .strip_prefix('$')
                    .and_then(|length| length.parse().ok());
                length.map(|length: usize| length + end.len())
            }
        };
        let body = body.ok_or_else(|| std::io::Error::other("the answer has no length"))?;
        Ok(Some(head.len() + end.len() + body))
    }
}

/// How many there are, and what they do.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Clients {
    pub(in crate::bench) asks: Asks,
    pub(in crate::bench) connections: usize,
    /// Microseconds that each thinks between two turns.
    pub(in crate::bench) pause: u64,
    pub(in crate::bench) lasting: Duration,
}

impl Clients {
    /// Asks the live server; gives the number of turns.
    pub(super) fn run(self, stage: &Stage, service: &Service) -> Result<u64> {
        let to = service.live;
        let think = Duration::from_micros(self.pause);
        let clients = (0..self.connections).map(|_| {
            let host = stage.client()?.host.clone();
            Ok(std::thread::spawn(move || {
                host.enter(move || turns(to, self.asks, think, self.lasting))
            }))
        });
        let clients: Vec<_> = clients.collect::<Result<_>>()?;
        let mut turns = 0;
        for client in clients {
            let done = client
                .join()
                .map_err(|_| Error::Unsupported("a client's thread has panicked".to_owned()))?;
            turns += done?.map_err(|source| Error::Io {
                what: "asking the live server".to_owned(),
                source,
            })?;
        }
        Ok(turns)
    }
}

/// Asks one request after the other on one connection; gives their number.
fn turns(to: SocketAddr, asks: Asks, think: Duration, lasting: Duration) -> std::io::Result<u64> {
    let request = asks.request();
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 64 << 10];
    let length = first(&mut stream, (asks, &request), &mut buffer)?;
    let ends = Instant::now() + lasting;
    let mut count = 1;
    while Instant::now() < ends {
        if !think.is_zero() {
            std::thread::sleep(think);
        }
        stream.write_all(&request)?;
        let answer = buffer.get_mut(..length).unwrap_or_default();
        stream.read_exact(answer)?;
        count += 1;
    }
    Ok(count)
}

/// Asks once; gives the length of the answer.
fn first(
    stream: &mut TcpStream,
    (asks, request): (Asks, &[u8]),
    buffer: &mut [u8],
) -> std::io::Result<usize> {
    stream.write_all(request)?;
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        let so_far = buffer.get(..filled).unwrap_or_default();
        let whole = asks.whole(&String::from_utf8_lossy(so_far))?;
        if let Some(whole) = whole.filter(|whole| filled >= *whole) {
            return Ok(whole);
        }
    }
    Err(std::io::Error::other("the answer is too long"))
}

#[cfg(test)]
mod tests {
    use super::Asks;

    #[test]
    fn an_answer_tells_its_length() {
        let page = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(Asks::Page.whole(page).unwrap(), Some(page.len() + 5));
        assert_eq!(Asks::Page.whole(page.trim_end()).unwrap(), None);
        assert!(Asks::Page.whole("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert_eq!(Asks::Key.whole("$200\r\nvv").unwrap(), Some(208));
        assert_eq!(Asks::Key.whole("$20").unwrap(), None);
        assert!(Asks::Key.whole("-ERR\r\n").is_err());
    }
}
