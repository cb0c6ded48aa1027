//! The bytes of a source, as many at once as one packet has.

use std::io::{self, Read};

use super::error::Problem;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// So many zeros are padding.
const PADDING: usize = 4096;

/// Reads a source through one buffer. The buffer grows to the largest amount asked for, and whoever
/// asks has checked that amount against a limit.
pub(super) struct Input {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes of the source that were consumed.
    offset: u64,
}

impl Input {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self {
            source,
            buffer: vec![0; CHUNK],
            start: 0,
            end: 0,
            offset: 0,
        }
    }

    /// Where the next byte lies in the source.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// What is buffered of the source.
    fn ready(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// The next `count` bytes without consuming them; fewer at the end of the source.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], Problem> {
        while self.end - self.start < count && self.fill(count)? {}
        let ready = self.ready();
        Ok(ready.get(..count).unwrap_or(ready))
    }

    /// Whether nothing but zeros follows, as far as one look shows: room that was reserved for packets and not used.
    pub(super) fn is_padding(&mut self) -> Result<bool, Problem> {
        Ok(self.peek(PADDING)?.iter().all(|byte| *byte == 0))
    }

    /// The next `count` bytes.
    pub(super) fn take(&mut self, count: usize) -> Result<&[u8], Problem> {
        let begin = self.offset;
        if self.peek(count)?.len() < count {
            return Err(Problem::Truncated { offset: begin });
        }
        let from = self.start;
        self.start += count;
        self.offset += count as u64;
        Ok(self.buffer.get(from..from + count).unwrap_or_default())
    }

    /// Passes over `count` bytes.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<(), Problem> {
        let begin = self.offset;
        while count > 0 {
            if self.start == self.end && !self.fill(1)? {
                return Err(Problem::Truncated { offset: begin });
            }
            let ready = (self.end - self.start) as u64;
            let step = ready.min(count);
            // No more than is buffered.
            self.start += step as usize;
            self.offset += step;
            count -= step;
        }
        Ok(())
    }

    /// Reads on, making room for `count` bytes in all. `false` at the end.
    fn fill(&mut self, count: usize) -> Result<bool, Problem> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < count {
            self.buffer.resize(count, 0);
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        loop {
            match self.source.read(room) {
                Ok(read) => {
                    self.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What a decompressor finds at the end of a file that was cut.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Problem::Truncated {
                        offset: self.offset,
                    });
                }
                Err(source) => {
                    let offset = self.offset + self.end as u64;
                    return Err(Problem::Read { offset, source });
                }
            }
        }
    }
}
