//! What a replica plays instead of its client's stream.

use millrace_wire::Seq;

use super::{ClientEnd, Turn, TurnNumber};

use crate::payload::Payload;
use crate::pool::BlockPool;
use crate::stream::{ClientStream, End, RunInfo};
use crate::time::Time;
use crate::turns::{Mark, Turns, Wait};

/// Bytes, turns and an end, as a conversation has written them so far.
pub(crate) struct Played {
    pub(crate) stream: ClientStream,
    pub(crate) turns: Turns,
    /// A turn that has no byte yet.
    turn: Option<Mark>,
    skipped: Skipped,
}

impl Played {
    pub(super) fn new() -> Self {
        Self {
            stream: ClientStream::new(Seq(0)),
            turns: Turns::default(),
            turn: None,
            skipped: Skipped::default(),
        }
    }
}

/// What the live server answered to requests that were left out: no target answers it.
#[derive(Debug, Default)]
struct Skipped {
    /// Bytes of whole turns that were left out.
    bytes: u64,
    /// Something was left out since the last turn began.
    since_turn: bool,
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
    /// time. Gives its number, for [`Script::answered`].
    pub fn turn(&mut self, turn: Turn) -> TurnNumber {
        let played = &mut *self.played;
        let left_out = std::mem::take(&mut played.skipped.since_turn);
        let mut mark = turn.mark;
        mark.answer = mark.answer.saturating_sub(played.skipped.bytes);
        // A turn without a byte is none: this one stands for both, and what was answered stays so.
        if played.turn.is_some_and(|it| it.wait == Wait::Over) && mark.wait == Wait::Told {
            mark.wait = Wait::Over;
        }
        if let Some(before) = played.turn.filter(|_| left_out) {
            played.skipped.bytes += mark.answer.saturating_sub(before.answer);
            mark.answer = before.answer;
        }
        played.turn = Some(mark);
        TurnNumber(played.turns.next_number())
    }

    /// The turn begins here.
    fn begin_turn(&mut self) {
        let start = self.len();
        let is_open = self.played.stream.end().is_none();
        if let Some(mark) = self.played.turn.take().filter(|_| is_open) {
            self.played.turns.push(self.now, Mark { start, ..mark });
        }
    }

    /// The target has answered all that was played before this turn.
    pub fn answered(&mut self, turn: TurnNumber) {
        let played = &mut *self.played;
        match &mut played.turn {
            Some(mark) if played.turns.next_number() == turn.0 => mark.wait = Wait::Over,
            Some(_) | None => played.turns.answered(turn.0),
        }
    }

    /// Adds bytes. Behind an end there are none.
    pub fn play(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.begin_turn();
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

    /// A request of the client was left out on purpose: it is counted. Where its turn was written ([`Script::turn`]) and nothing
    /// else is played in it, the next turn waits for no answer to it.
    pub const fn leave_out(&mut self) {
        self.left_out += 1;
        self.played.skipped.since_turn = true;
    }

    /// Ends the replica's stream here. The first end counts.
    pub fn end(&mut self, end: ClientEnd) {
        self.begin_turn();
        let offset = self.len();
        self.played.stream.set_end(End {
            offset,
            kind: end.kind(),
        });
    }
}
