//! Clients that ask one request after the other, each on a connection of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use millrace_lab::{Error, Result, Stage};

use crate::bench::Service;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: live\r\n\r\n";
/// What a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many there are, and what they do.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Clients {
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
                host.enter(move || turns(to, think, self.lasting))
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
fn turns(to: SocketAddr, think: Duration, lasting: Duration) -> std::io::Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 64 << 10];
    let length = first(&mut stream, &mut buffer)?;
    let ends = Instant::now() + lasting;
    let mut count = 1;
    while Instant::now() < ends {
        if !think.is_zero() {
            std::thread::sleep(think);
        }
        stream.write_all(REQUEST)?;
        let answer = buffer.get_mut(..length).unwrap_or_default();
        stream.read_exact(answer)?;
        count += 1;
    }
    Ok(count)
}

/// Asks once; gives the length of the answer.
fn first(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    let malformed = || std::io::Error::other("the answer has no length");
    stream.write_all(REQUEST)?;
    let mut filled = 0;
    loop {
        match stream.read(buffer.get_mut(filled..).unwrap_or_default())? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
        let so_far = buffer.get(..filled).unwrap_or_default();
        let text = String::from_utf8_lossy(so_far);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|(_, value)| value.parse::<usize>().ok());
            let whole = head.len() + 4 + length.ok_or_else(malformed)?;
            if head.len() + 4 + body.len() >= whole {
                return Ok(whole);
            }
        }
        if filled == buffer.len() {
            return Err(malformed());
        }
    }
}
