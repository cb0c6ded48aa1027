//! What a replica plays instead of its client's stream.

use super::{ClientEnd, Turn, TurnNumber};
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
    /// Requests that were left out.
    pub(super) left_out: u64,
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
    /// think time. Gives its number, for [`Script::answered`].
    pub fn turn(&mut self, turn: Turn) -> TurnNumber {
        let turns = &self.played.turns;
        let last = TurnNumber(turns.next_number().saturating_sub(1));
        if self.played.stream.end().is_some() {
            return last;
        }
        let mark = Mark {
            start: self.len(),
            ..turn.mark
        };
        // A turn without a byte is none: the next one stands for both.
        match self.played.turns.replace_last(mark) {
            true => last,
            false => {
                let number = self.played.turns.next_number();
                self.played.turns.push(self.now, mark);
                TurnNumber(number)
            }
        }
    }

    /// The target has answered all that was played before this turn.
    pub fn answered(&mut self, turn: TurnNumber) {
        self.played.turns.answered(turn.0);
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

    /// A request of the client was left out on purpose: it is counted.
    pub const fn leave_out(&mut self) {
        self.left_out += 1;
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
