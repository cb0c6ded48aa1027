//! The seam for protocol modules: sessions that cannot be replayed byte for byte.
//!
//! A replica plays a *script*: bytes with turns and an end, in sequence numbers of its own. Where a service has no
//! [`Protocol`], the script is the client's stream itself, and nothing is kept or done for it. Where it has one, each
//! replica has a [`Conversation`] that hears both sides, and writes the [`Script`].
//!
//! Sequence numbers, retransmission, windows and the gate are the engine's business. A conversation sees bytes in their
//! order, each once, and never the wire.

mod failure;
mod script;
mod talk;

use std::time::Duration;

pub use self::failure::{Failure, FailureKind};
pub use self::script::Script;
pub(crate) use self::talk::{Heard, Talk};
use crate::stream::EndKind;
use crate::turns::{Mark, Wait};

/// How a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEnd {
    /// With a FIN.
    Fin,
    /// With a RST.
    Reset,
}

impl ClientEnd {
    pub(crate) const fn kind(self) -> EndKind {
        match self {
            Self::Fin => EndKind::Fin,
            Self::Reset => EndKind::Reset,
        }
    }
}

/// Where in its session a replica begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// With the client's first byte.
    Connection,
    /// At a turn of a session whose beginning was not captured, or is not known any more: after a gap, or under pressure.
    Turn,
}

/// A point at which the client had waited for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub(crate) mark: Mark,
}

impl Turn {
    /// Whether nothing was under way: the client had seen all that the live server had sent, and that had received all that
    /// the client had sent. Turns begin after long pauses, too.
    pub const fn is_settled(&self) -> bool {
        self.mark.lockstep
    }
}

impl Turn {
    /// How long the client waited after the live server's answer before it went on.
    pub const fn think_time(&self) -> Duration {
        Duration::from_micros(self.mark.think as u64)
    }

    /// This turn, for a conversation that has heard the whole answer of the target before it writes on: what follows
    /// waits for the think time alone, and for no more bytes of an answer.
    pub const fn answered(mut self) -> Self {
        self.mark.wait = Wait::Over;
        self
    }

    /// This turn, for a conversation that hears where answers end: what follows waits for [`Script::answered`], and neither
    /// for a number of bytes nor for silence. A target that says nothing is waited for as long as any, and no longer.
    pub const fn until_told(mut self) -> Self {
        self.mark.wait = Wait::Told;
        self
    }
}

/// Names a turn of a script: what [`Script::turn`] gives and [`Script::answered`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnNumber(u32);

/// What was captured of the live server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live<'a> {
    /// Its bytes, next to those before.
    Bytes(&'a [u8]),
    /// Bytes that were not captured. What comes next does not follow what came before.
    Missing {
        /// How many.
        bytes: u64,
    },
}

/// Plays one replica: decides what the target gets instead of what the client sent.
pub trait Conversation: Send {
    /// The client sent these bytes, next to those before. `turn`: it had waited for an answer before the first of them.
    ///
    /// # Errors
    /// The replica cannot go on.
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure>;

    /// The client sends nothing more. `turn`: it had waited for an answer before. Whoever has more to play first calls
    /// [`Script::end`] later; a script without an end is given up once nothing has been heard for the idle time-out.
    ///
    /// # Errors
    /// The replica cannot go on.
    fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        if let Some(turn) = turn {
            script.turn(turn);
        }
        script.end(end);
        Ok(())
    }

    /// What the live server sent: after all that its client had said by then, and before what the client says next, also while
    /// the client is held. It comes only where [`Protocol::hears_live`] says so, and never holds anything up: capture may
    /// miss some of it, or all.
    ///
    /// # Errors
    /// The replica cannot go on.
    fn on_live(&mut self, _live: Live<'_>, _script: &mut Script<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Whether what the client sends is to wait, for something that the target has yet to say. Nothing is lost meanwhile: it
    /// stays where the engine keeps it, within the limits of memory, and for as long as a target may take to answer. Asked after each call of this trait; where answers are
    /// not listened to, nothing would ever change it.
    fn holds_client(&self) -> bool {
        false
    }

    /// The target sent these bytes, next to those before. They come only where [`Conversation::wants_answers`] says so.
    ///
    /// # Errors
    /// The replica cannot go on.
    fn on_target(&mut self, bytes: &[u8], script: &mut Script<'_>) -> Result<(), Failure>;

    /// The target sends nothing more. Comes only after all its bytes.
    ///
    /// # Errors
    /// The replica cannot go on.
    fn on_target_end(&mut self, _script: &mut Script<'_>) -> Result<(), Failure> {
        Ok(())
    }

    /// Bytes of the client that it has heard and may still play. Asked when its replica is over: the target lacks them.
    fn unplayed(&self) -> u64 {
        0
    }

    /// Memory that it holds besides itself, in bytes. Asked after each call; it counts towards the copier's limit.
    fn memory(&self) -> usize {
        0
    }

    /// Whether the target's bytes are needed from now on. Their carriage costs: where they are not, only their number
    /// comes here. Once they are not, they never are again.
    fn wants_answers(&self) -> bool;
}

/// Begins conversations.
pub trait Protocol: Send {
    /// The conversation of one replica; `None` where a replica that begins so cannot be played: it is refused, counted as
    /// [`crate::RefusalReason::Protocol`].
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>>;

    /// Whether its conversations want to know what the live server sends: its packets are captured whole then.
    fn hears_live(&self) -> bool {
        false
    }
}
