//! The client's messages, once enough of each is there: which are played, and how.

use millrace_engine::protocol::{Failure, FailureKind};

use super::answers::Shape;
use super::attributes;
use super::commands::{self, Command};
use super::judge::Judged;
use super::packets::{Head, LONGEST};
use super::player::{Held, Message, Phase, Player};
use super::statements::AtTarget;
use super::wire::{capability, malformed, unsupported};
use crate::stage::Stage;

/// So much of a statement is looked at. A longer one is taken to write: what its end does is not known.
const MOST_TEXT: u32 = 64 << 10;
/// The longest log-in. Connect attributes have 64 KiB at most.
const MOST_LOGIN: u32 = 80 << 10;
/// A command and the number of a statement.
const NUMBERED: u32 = 5;
/// No statement has this number: a target answers that it does not know it.
const NO_STATEMENT: u32 = 0;

impl<T: Copy, N: Copy> Player<T, N> {
    /// Whether enough of a message is there.
    pub(super) fn is_ready(&self) -> bool {
        let Message::Held(held) = &self.message else {
            return false;
        };
        held.is_whole || held.bytes.len() >= self.needed(held)
    }

    /// So much of a message is needed.
    fn needed(&self, held: &Held) -> usize {
        let most = match (&self.phase, held.bytes.first()) {
            (Phase::Greeted(_), _) => MOST_LOGIN,
            (_, None) => 1,
            (_, Some(command)) => match Command::of(*command) {
                Command::Passes
                | Command::Writes(_)
                | Command::Strange
                | Command::Unsupported(_) => 1,
                Command::Query | Command::Prepare => MOST_TEXT,
                Command::Statement if self.strips(&held.bytes) => MOST_TEXT,
                Command::Statement => NUMBERED,
                Command::ChangeUser => MOST_LOGIN,
            },
        };
        // A length of 24 bits.
        held.head.len.min(most) as usize
    }

    /// Plays a message, or leaves it out. It may have to wait: then it stays.
    pub(super) fn decide<S: Stage<Turn = T, Number = N>>(
        &mut self,
        stage: &mut S,
    ) -> Result<(), Failure> {
        let Message::Held(held) = std::mem::replace(&mut self.message, Message::None) else {
            return Ok(());
        };
        if matches!(self.phase, Phase::Refused(_)) {
            self.follow(&held, None, Message::Dropped);
            return Ok(());
        }
        if matches!(self.phase, Phase::Greeted(_)) {
            return self.log_in(held.head.number, whole(&held)?, stage);
        }
        let is_first = !std::mem::replace(&mut self.has_seen_command, true);
        let Some(command) = held.bytes.first().copied() else {
            self.pass(held, None, stage);
            return Ok(());
        };
        if is_first && self.is_midway && !commands::is_known(command) {
            return Err(unsupported("it was picked up within a command"));
        }
        match Command::of(command) {
            Command::Unsupported(name) => return Err(unsupported(format!("{name} is not played"))),
            Command::Passes => {
                if command == commands::RESET_CONNECTION {
                    self.statements.clear();
                }
                self.pass(held, None, stage);
            }
            Command::Writes(name) => match self.settings.guard.permits(name, true) {
                true => self.pass(held, None, stage),
                false => self.leave_out(&held, None, stage),
            },
            Command::Strange => {
                let digest = format!("COM_{command}");
                match self.settings.guard.permits(&digest, true) {
                    true => self.pass(held, None, stage),
                    false => self.leave_out(&held, None, stage),
                }
            }
            Command::Query => self.query(held, stage)?,
            Command::Prepare => self.prepare(held, stage)?,
            Command::Statement => self.execute(held, stage)?,
            Command::ChangeUser => self.change_user(whole(&held)?, stage)?,
        }
        Ok(())
    }

    /// Plays a message, the rest of it as it comes.
    fn pass<S: Stage<Turn = T, Number = N>>(
        &mut self,
        held: Held,
        statement: Option<u64>,
        stage: &mut S,
    ) {
        self.play(&held.head.encode(), stage);
        self.play(&held.bytes, stage);
        self.loads = false;
        let shape = shape(&held);
        if let Some(shape) = shape.filter(|_| !self.is_target_lost) {
            self.target.expect(shape, statement);
        }
        self.follow(&held, statement, Message::Passes);
    }

    fn leave_out<S: Stage<Turn = T, Number = N>>(
        &mut self,
        held: &Held,
        statement: Option<u64>,
        stage: &mut S,
    ) {
        stage.leave_out();
        self.follow(held, statement, Message::Dropped);
    }

    /// The live server answers it, and the rest of the message is treated so.
    fn follow(&mut self, held: &Held, statement: Option<u64>, rest: Message) {
        if let Some(shape) = shape(held) {
            self.live.expect(shape, statement);
        }
        self.message = match held.is_whole {
            true => Message::None,
            false => rest,
        };
    }

    fn query<S: Stage<Turn = T, Number = N>>(
        &mut self,
        mut held: Held,
        stage: &mut S,
    ) -> Result<(), Failure> {
        let by_form = || attributes::are_in(&held.bytes);
        let has_attributes = self.has_attributes.unwrap_or_else(by_form);
        let at = match has_attributes {
            true => attributes::text_at(&held.bytes),
            false => Some(1),
        };
        let at = at.ok_or_else(|| unsupported("attributes of a query cannot be read"))?;
        let text = held.bytes.get(at..).unwrap_or_default();
        let judged = Judged::of(text, held.is_whole);
        if judged.may_prepare {
            self.statements.others_may_count();
        }
        if !judged.permits(&self.settings.guard) {
            self.leave_out(&held, None, stage);
            return Ok(());
        }
        if has_attributes && self.target_capabilities & capability::QUERY_ATTRIBUTES == 0 {
            strip(&mut held, at)?;
        }
        self.pass(held, None, stage);
        self.loads = judged.loads;
        Ok(())
    }

    fn prepare<S: Stage<Turn = T, Number = N>>(
        &mut self,
        held: Held,
        stage: &mut S,
    ) -> Result<(), Failure> {
        let text = held.bytes.get(1..).unwrap_or_default();
        let judged = Judged::of_prepared(text, held.is_whole);
        // It is counted when it is executed.
        let is_played = judged.may_be_sent(&self.settings.guard);
        let place = self.statements.prepare(judged, is_played)?;
        match is_played {
            true => self.pass(held, Some(place), stage),
            false => self.leave_out(&held, Some(place), stage),
        }
        Ok(())
    }

    fn execute<S: Stage<Turn = T, Number = N>>(
        &mut self,
        mut held: Held,
        stage: &mut S,
    ) -> Result<(), Failure> {
        let number = held.bytes.get(1..5).and_then(|it| it.try_into().ok());
        let number = number.map(u32::from_le_bytes);
        let number = number.ok_or_else(|| malformed("a command names no statement"))?;
        let command = held.bytes.first().copied().unwrap_or_default();
        let place = match (self.statements.find(number), command) {
            (Ok(place), _) => place,
            // One that was prepared before a session was picked up needs no closing.
            (Err(_), commands::STMT_CLOSE) => {
                self.follow(&held, None, Message::Dropped);
                return Ok(());
            }
            (Err(failure), _) => return Err(failure),
        };
        let Some(statement) = self.statements.get(place) else {
            return Ok(());
        };
        let at_target = match statement.at_target {
            AtTarget::Awaited if self.is_target_lost => {
                return Err(unsupported(
                    "the target's answer to a PREPARE is not understood",
                ));
            }
            AtTarget::Awaited => {
                self.awaited = Some(place);
                self.message = Message::Held(held);
                return Ok(());
            }
            AtTarget::Is(id) => Some(id),
            AtTarget::Failed => Some(NO_STATEMENT),
            AtTarget::LeftOut => None,
        };
        self.awaited = None;
        let parameters = statement.parameters.unwrap_or_default();
        let executes = matches!(
            command,
            commands::STMT_EXECUTE | commands::STMT_BULK_EXECUTE
        );
        let is_permitted = !executes || statement.judged.permits(&self.settings.guard);
        if executes && statement.judged.may_prepare {
            self.statements.others_may_count();
        }
        let Some(id) = at_target.filter(|_| is_permitted) else {
            if executes {
                stage.leave_out();
            }
            self.close(command, place);
            self.follow(&held, None, Message::Dropped);
            return Ok(());
        };
        if self.strips(&held.bytes) {
            strip_execute(&mut held, parameters)?;
        }
        if let Some(bytes) = held.bytes.get_mut(1..5) {
            bytes.copy_from_slice(&id.to_le_bytes());
        }
        self.close(command, place);
        self.pass(held, None, stage);
        Ok(())
    }

    fn close(&mut self, command: u8, place: u64) {
        if command == commands::STMT_CLOSE {
            self.statements.close(place);
        }
    }

    /// Whether an EXECUTE is in a form that the target does not know.
    fn strips(&self, payload: &[u8]) -> bool {
        let by_form = || payload.len() < 6 || attributes::counts(payload);
        let has_them = self.has_attributes.unwrap_or_else(by_form);
        payload.first() == Some(&commands::STMT_EXECUTE)
            && has_them
            && self.target_capabilities & capability::QUERY_ATTRIBUTES == 0
    }
}

/// What a message is answered with.
fn shape(held: &Held) -> Option<Shape> {
    held.bytes
        .first()
        .map_or(Some(Shape::Usual), |it| commands::answer(*it))
}

/// The message, if it is all there.
fn whole(held: &Held) -> Result<&[u8], Failure> {
    match held.is_whole {
        true => Ok(&held.bytes),
        false => Err(Failure::new(FailureKind::Limit, "a log-in is too long")),
    }
}

/// Takes attributes out of a query, whose text begins there.
fn strip(held: &mut Held, at: usize) -> Result<(), Failure> {
    if held.head.len == LONGEST {
        return Err(unsupported(
            "a query of 16 MiB has attributes that the target does not know",
        ));
    }
    let gone = at.saturating_sub(1);
    held.bytes.drain(1..at.max(1));
    held.head = Head {
        // It has that many bytes.
        len: held.head.len - gone as u32,
        ..held.head
    };
    Ok(())
}

fn strip_execute(held: &mut Held, parameters: u16) -> Result<(), Failure> {
    let bytes = match held.is_whole {
        true => attributes::without(&held.bytes, parameters),
        false => None,
    };
    let text = "parameters are in a form that the target does not know";
    held.bytes = bytes.ok_or_else(|| unsupported(text))?;
    held.head = Head {
        // No longer than it was.
        len: held.bytes.len() as u32,
        ..held.head
    };
    Ok(())
}
