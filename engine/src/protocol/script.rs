//! What a replica plays instead of its client's stream.

use super::{ClientEnd, Turn};
use crate::payload::Payload;
use crate::pool::BlockPool;
use crate::stream::{ClientStream, End, RunInfo};
use crate::time::Time;
use crate::turns::{Mark, Turns};

/// Bytes, turns and an end, as a conversation has written them so far.
pub(crate) struct Played {
    pub(crate) stream: ClientStream,
    pub(crate) turns: Turns,
}

/// Writes on what a replica plays. What was written is sent as windows, congestion and turns allow.
pub struct Script<'a> {
    pub(super) played: &'a mut Played,
    pub(super) pool: &'a mut BlockPool,
    pub(super) now: Time,
    /// Bytes that were written.
    pub(super) written: u64,
    /// No memory was left for them.
    pub(super) is_short_of_memory: bool,
}

impl Script<'_> {
    /// Bytes that were written so far, sent or not.
    pub const fn len(&self) -> u64 {
        self.played.stream.len()
    }

    /// Whether nothing was written so far.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What follows is a turn: it waits until the target has answered as the live server had, and for the client's think
    /// time.
    pub fn turn(&mut self, turn: Turn) {
        if self.played.stream.end().is_some() {
            return;
        }
        let mark = Mark {
            start: self.len(),
            ..turn.mark
        };
        // A turn without a byte is none: the next one stands for both.
        if !self.played.turns.replace_last(mark) {
            self.played.turns.push(self.now, mark);
        }
    }

    /// Adds bytes. Behind an end there are none.
    pub fn play(&mut self, bytes: &[u8]) {
        let info = RunInfo {
            at: self.now,
            answer: 0,
            fresh: false,
        };
        let (offset, payload) = (self.len(), Payload::Borrowed(bytes));
        let stream = &mut self.played.stream;
        match stream.accept(self.pool, offset, bytes, payload, info, |_, _, _| {}) {
            Ok(accepted) => self.written += accepted.new,
            Err(_) => self.is_short_of_memory = true,
        }
    }

    /// Ends the replica's stream here. The first end counts.
    pub fn end(&mut self, end: ClientEnd) {
        let offset = self.len();
        self.played.stream.set_end(End {
            offset,
            kind: end.kind(),
        });
    }
}
