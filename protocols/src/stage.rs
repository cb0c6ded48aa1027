//! What the modules' players write on: the engine's script, or what a test has in its place.

use millrace_engine::protocol::{ClientEnd, Script, Turn, TurnNumber};

/// What a turn waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As many bytes as the live server had sent, or silence: where answers end is not known.
    Counted,
    /// [`Stage::answered`].
    Told,
    /// The client's think time alone: all was answered.
    Answered,
}

/// Takes what is played.
pub(crate) trait Stage {
    /// A point at which the client waited.
    type Turn: Copy;
    /// Names one that was written.
    type Number: Copy;

    /// Whether nothing was under way at this turn.
    fn is_settled(&self, turn: Self::Turn) -> bool;
    fn turn(&mut self, turn: Self::Turn, pace: Pace) -> Self::Number;
    fn answered(&mut self, number: Self::Number);
    fn play(&mut self, bytes: &[u8]);
    fn leave_out(&mut self);
    fn end(&mut self, end: ClientEnd);
}

impl Stage for Script<'_> {
    type Turn = Turn;
    type Number = TurnNumber;

    fn is_settled(&self, turn: Turn) -> bool {
        turn.is_settled()
    }

    fn turn(&mut self, turn: Turn, pace: Pace) -> TurnNumber {
        let turn = match pace {
            Pace::Counted => turn,
            Pace::Told => turn.until_told(),
            Pace::Answered => turn.answered(),
        };
        Script::turn(self, turn)
    }

    fn answered(&mut self, number: TurnNumber) {
        Script::answered(self, number);
    }

    fn play(&mut self, bytes: &[u8]) {
        Script::play(self, bytes);
    }

    fn leave_out(&mut self) {
        Script::leave_out(self);
    }

    fn end(&mut self, end: ClientEnd) {
        Script::end(self, end);
    }
}
