//! What a player writes to: a script, or in tests a list of what was done.

use millrace_engine::protocol::{ClientEnd, Script, Turn, TurnNumber};

/// What lets go on what follows a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// As many bytes as the live server answered: ends of answers are not known.
    Counted,
    /// [`Stage::answered`].
    UntilTold,
    /// Nothing but the client's think time: all was answered.
    Over,
}

/// Takes what is played.
pub(super) trait Stage {
    /// A point at which the client waited.
    type Turn: Copy;
    /// Names one that was written.
    type Number: Copy;

    /// Whether nothing was under way at this turn.
    fn is_settled(turn: Self::Turn) -> bool;
    fn turn(&mut self, turn: Self::Turn, gate: Gate) -> Self::Number;
    fn answered(&mut self, number: Self::Number);
    fn play(&mut self, bytes: &[u8]);
    fn leave_out(&mut self);
    fn end(&mut self, end: ClientEnd);
}

impl Stage for Script<'_> {
    type Turn = Turn;
    type Number = TurnNumber;

    fn is_settled(turn: Turn) -> bool {
        turn.is_settled()
    }

    fn turn(&mut self, turn: Turn, gate: Gate) -> TurnNumber {
        let turn = match gate {
            Gate::Counted => turn,
            Gate::UntilTold => turn.until_told(),
            Gate::Over => turn.answered(),
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
