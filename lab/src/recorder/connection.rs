//! One recorded connection: reads and hashes to the end, whatever becomes of the answers.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use twox_hash::xxhash3_128::Hasher;

use super::dialogue::{Dialogue, Found};
use super::{End, Record, Service};
use crate::pattern;

/// First size of the buffer, and the most that an incomplete request may have.
const BUFFER: usize = 16 << 10;
const LARGEST_REQUEST: usize = 1 << 20;
/// Answers are written when so much has gathered, or when the input is used up.
const OUTPUT: usize = 64 << 10;
/// How long a connection may stay silent where `close_idle` is not set: for ever, in the terms of a test.
const FOREVER: Duration = Duration::from_secs(86_400);

pub(super) struct Connection<'a> {
    service: &'a Service,
    dialogue: Dialogue,
    hasher: Hasher,
    bytes: u64,
    requests: u64,
    /// Received and not yet understood: `input[start..filled]`.
    input: Vec<u8>,
    start: usize,
    filled: usize,
    out: Vec<u8>,
    /// The client takes no more answers. Its requests are still counted, as a target's recorder counts them.
    mute: bool,
    /// This side has sent its FIN: what still comes is only hashed.
    closed: bool,
    reset: bool,
    stopped: watch::Receiver<()>,
}

/// Why a step of a connection is its last.
enum Over {
    /// As the record will say.
    Ended(End),
    /// This side is to reset it.
    ToReset,
}

impl<'a> Connection<'a> {
    pub(super) fn new(service: &'a Service) -> Self {
        Self {
            service,
            dialogue: Dialogue::new(service.protocol),
            hasher: Hasher::new(),
            bytes: 0,
            requests: 0,
            input: vec![0; BUFFER],
            start: 0,
            filled: 0,
            out: Vec::new(),
            mute: false,
            closed: false,
            reset: false,
            stopped: service.stopped.clone(),
        }
    }

    /// To its end, of which it puts the record.
    pub(super) async fn serve(mut self, mut stream: TcpStream, peer: SocketAddr) {
        let end = match self.converse(&mut stream).await {
            Over::Ended(end) => end,
            Over::ToReset => {
                // Failing, the client sees a FIN where a reset was wanted; the test will tell.
                let _ = stream.set_zero_linger();
                End::Reset
            }
        };
        // Before the record is: who reads it may rely on the connection's end.
        drop(stream);
        self.service.records.put(Record {
            proto: self.service.protocol,
            port: self.service.port,
            peer,
            bytes: self.bytes,
            hash: format!("{:032x}", self.hasher.finish_128()),
            end,
            requests: self.requests,
        });
    }

    async fn converse(&mut self, stream: &mut TcpStream) -> Over {
        self.out.extend_from_slice(self.dialogue.greeting());
        if let Err(over) = self.flush(stream).await {
            return over;
        }
        loop {
            if let Err(over) = self.read(stream).await {
                return over;
            }
            if let Err(over) = self.answer(stream).await {
                return over;
            }
        }
    }

    /// Waits for more input and hashes it.
    async fn read(&mut self, stream: &mut TcpStream) -> Result<(), Over> {
        self.make_room(stream).await;
        let idle = self
            .service
            .manners
            .close_idle
            .filter(|_| !self.closed)
            .unwrap_or(FOREVER);
        let space = self.input.get_mut(self.filled..).unwrap_or_default();
        let read = tokio::select! {
            biased;
            read = stream.read(space) => read,
            _ = self.stopped.changed() => return Err(self.stop(stream)),
            () = tokio::time::sleep(idle), if idle != FOREVER => {
                self.close(stream).await;
                return Ok(());
            }
        };
        match read {
            Ok(0) if self.reset => Err(Over::Ended(End::Reset)),
            Ok(0) => Err(Over::Ended(End::Fin)),
            Ok(length) => {
                self.took(length);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(_) => Err(Over::Ended(End::Reset)),
        }
    }

    /// Counts what was read behind `filled`.
    fn took(&mut self, length: usize) {
        let end = self.filled + length;
        self.hasher
            .write(self.input.get(self.filled..end).unwrap_or_default());
        self.bytes += length as u64;
        // Nobody looks at what comes when there is nothing left to say.
        self.filled = if self.closed { self.start } else { end };
    }

    /// Moves what is left to the front, and grows the buffer for a request that fills it.
    async fn make_room(&mut self, stream: &mut TcpStream) {
        self.input.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled < self.input.len() {
            return;
        }
        if self.input.len() < LARGEST_REQUEST {
            self.input.resize(self.input.len() * 2, 0);
        } else {
            self.close(stream).await;
        }
    }

    /// Answers all complete requests of the input.
    async fn answer(&mut self, stream: &mut TcpStream) -> Result<(), Over> {
        while !self.closed {
            let input = self.input.get(self.start..self.filled).unwrap_or_default();
            match self.dialogue.next(input, &mut self.out) {
                Found::Partial => break,
                Found::Skipped(length) => self.start += length,
                Found::Refused => {
                    self.flush(stream).await?;
                    self.close(stream).await;
                }
                Found::Request(request) => {
                    self.start += request.consumed;
                    self.requests += 1;
                    self.keep_manners().await?;
                    if request.body > 0 {
                        self.put_body(stream, request.body).await?;
                    }
                    if request.close {
                        self.flush(stream).await?;
                        self.close(stream).await;
                    } else if self.out.len() >= OUTPUT || !self.service.manners.delay.is_zero() {
                        self.flush(stream).await?;
                    }
                }
            }
        }
        self.flush(stream).await
    }

    /// The delay before an answer, or the reset in its place.
    async fn keep_manners(&mut self) -> Result<(), Over> {
        let manners = self.service.manners;
        if manners
            .reset_every
            .is_some_and(|every| every > 0 && self.requests.is_multiple_of(every))
        {
            return Err(Over::ToReset);
        }
        if !manners.delay.is_zero() {
            tokio::time::sleep(manners.delay).await;
        }
        Ok(())
    }

    async fn put_body(&mut self, stream: &mut TcpStream, length: u64) -> Result<(), Over> {
        let mut sent = 0;
        while sent < length && !self.mute {
            let part = pattern::part(sent, length - sent);
            self.out.extend_from_slice(part);
            sent += part.len() as u64;
            if self.out.len() >= OUTPUT {
                self.flush(stream).await?;
            }
        }
        Ok(())
    }

    /// Writes what has gathered. A client that has left makes the rest of the connection mute, no more.
    async fn flush(&mut self, stream: &mut TcpStream) -> Result<(), Over> {
        if self.mute {
            self.out.clear();
        }
        if self.out.is_empty() {
            return Ok(());
        }
        let written = tokio::select! {
            biased;
            written = stream.write_all(&self.out) => written,
            _ = self.stopped.changed() => return Err(self.stop(stream)),
        };
        self.out.clear();
        if let Err(error) = written {
            // The kernel tells of a reset only once: here, or when reading.
            self.reset |= error.kind() == ErrorKind::ConnectionReset;
            self.mute = true;
        }
        Ok(())
    }

    /// Sends a FIN; the client's own end is still waited for.
    async fn close(&mut self, stream: &mut TcpStream) {
        // Refused only when the connection is gone already, which reading will find out.
        let _ = stream.shutdown().await;
        self.closed = true;
        self.mute = true;
        self.start = 0;
        self.filled = 0;
    }

    /// The recorder stops: takes what has arrived and is still unread.
    fn stop(&mut self, stream: &TcpStream) -> Over {
        self.mute = true;
        loop {
            self.count_requests();
            let space = self.input.get_mut(self.filled..).unwrap_or_default();
            match stream.try_read(space) {
                Ok(0) => return Over::Ended(if self.reset { End::Reset } else { End::Fin }),
                Ok(length) => self.took(length),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Over::Ended(End::Open);
                }
                Err(_) => return Over::Ended(End::Reset),
            }
        }
    }

    /// Counts the complete requests of the input and makes room for more, answering nothing.
    fn count_requests(&mut self) {
        while !self.closed {
            let input = self.input.get(self.start..self.filled).unwrap_or_default();
            match self.dialogue.next(input, &mut self.out) {
                Found::Skipped(length) => self.start += length,
                Found::Request(request) => {
                    self.start += request.consumed;
                    self.requests += 1;
                }
                Found::Refused => self.closed = true,
                Found::Partial => break,
            }
        }
        self.out.clear();
        if self.closed {
            self.start = 0;
            self.filled = 0;
        }
        self.input.copy_within(self.start..self.filled, 0);
        self.filled -= self.start;
        self.start = 0;
        if self.filled == self.input.len() {
            self.input.resize(self.input.len() * 2, 0);
        }
    }
}
