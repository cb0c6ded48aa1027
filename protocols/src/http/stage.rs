//! What a player writes on: the engine's script, or what a test has in its place.

use millrace_engine::protocol::{ClientEnd, Script, Turn, TurnNumber};

/// What a turn waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As many bytes as the live server had sent, or silence.
    Counted,
    /// Until it is told.
    Told,
    /// The think time alone.
    Answered,
}

/// Takes what is played. `T` is a turn, `N` names one that was written.
pub(super) trait Stage<T, N> {
    fn play(&mut self, bytes: &[u8]);
    fn turn(&mut self, turn: T, pace: Pace) -> N;
    fn answered(&mut self, turn: N);
    fn leave_out(&mut self);
    fn end(&mut self, end: ClientEnd);
}

impl Stage<Turn, TurnNumber> for Script<'_> {
    fn play(&mut self, bytes: &[u8]) {
        Script::play(self, bytes);
    }

    fn turn(&mut self, turn: Turn, pace: Pace) -> TurnNumber {
        let turn = match pace {
            Pace::Counted => turn,
            Pace::Told => turn.until_told(),
            Pace::Answered => turn.answered(),
        };
        Script::turn(self, turn)
    }

    fn answered(&mut self, turn: TurnNumber) {
        Script::answered(self, turn);
    }

    fn leave_out(&mut self) {
        Script::leave_out(self);
    }

    fn end(&mut self, end: ClientEnd) {
        Script::end(self, end);
    }
}
