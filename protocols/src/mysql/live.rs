//! The live server's side, as far as it was captured: what was agreed on, whether the log-in was accepted, and the numbers of
//! prepared statements.

use std::convert::Infallible;

use millrace_engine::protocol::Failure;

use super::answers::{Eofs, Event, Shape};
use super::greeting::Greeting;
use super::side::Side;
use super::statements::Statements;
use super::wire::capability;

/// More answers than so many are not waited for: they were not captured.
const MOST_DUE: usize = 1024;

/// What came of a log-in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Login {
    #[default]
    Unknown,
    Accepted,
    Refused,
}

/// What was heard of the live server.
#[derive(Debug)]
pub(super) struct Live {
    side: Side<Infallible>,
    /// Bytes are missing, up to the next turn.
    is_lost: bool,
    /// It cannot be understood.
    is_strange: bool,
    /// Its capabilities, if its greeting was captured.
    pub(super) capabilities: Option<u32>,
    pub(super) login: Login,
}

impl Live {
    /// That of a connection heard from its beginning.
    pub(super) fn from_the_beginning() -> Self {
        let first = [Shape::Greeting, Shape::Login];
        Self {
            side: Side::new(first),
            is_lost: false,
            is_strange: false,
            capabilities: None,
            login: Login::Unknown,
        }
    }

    /// That of a session picked up at a turn.
    pub(super) fn midway() -> Self {
        Self {
            side: Side::new([]),
            login: Login::Accepted,
            ..Self::from_the_beginning()
        }
    }

    /// The client has said what it can.
    pub(super) const fn agree(&mut self, capabilities: u32) {
        // Their metadata would be told apart by more than this module looks at.
        self.is_strange = capabilities & capability::OPTIONAL_METADATA != 0;
        let eofs = match capabilities & capability::DEPRECATE_EOF {
            0 => Eofs::Sent,
            _ => Eofs::Deprecated,
        };
        self.side.answers().set_eofs(eofs);
    }

    /// The client asks for something that is answered so.
    pub(super) fn expect(&mut self, shape: Shape, statement: Option<u64>) {
        if shape == Shape::Login {
            self.login = Login::Unknown;
        }
        if self.is_lost {
            return;
        }
        self.side.expect(shape, statement);
        if self.side.len() > MOST_DUE {
            self.lose();
        }
    }

    /// Bytes were not captured.
    pub(super) fn lose(&mut self) {
        self.side.forget();
        self.is_lost = true;
    }

    /// The client had waited for an answer: what comes next answers what it says next.
    pub(super) const fn turn(&mut self) {
        self.is_lost = false;
    }

    /// Hears on.
    ///
    /// # Errors
    /// Its statements are not those that they were taken for.
    pub(super) fn hear(
        &mut self,
        mut bytes: &[u8],
        statements: &mut Statements,
    ) -> Result<(), Failure> {
        while !self.is_lost && !self.is_strange {
            match self.side.hear(&mut bytes) {
                Ok(Some((event, due))) => match event {
                    Event::Packet { payload, .. } if due.shape == Shape::Greeting => {
                        match Greeting::parse(&payload) {
                            Ok(greeting) => self.capabilities = Some(greeting.capabilities),
                            Err(_) => self.lose(),
                        }
                    }
                    Event::Prepared { id, parameters } => {
                        if let Some(place) = due.statement {
                            statements.live_prepared(place, id, parameters)?;
                        }
                    }
                    Event::Over { error } => {
                        self.take_end(error, due.shape, due.statement, statements)
                    }
                    Event::Packet { .. } | Event::File { .. } => {}
                },
                Ok(None) => break,
                Err(_) => self.lose(),
            }
        }
        Ok(())
    }

    fn take_end(
        &mut self,
        error: Option<u16>,
        shape: Shape,
        statement: Option<u64>,
        statements: &mut Statements,
    ) {
        match (shape, error, statement) {
            (Shape::Greeting | Shape::Login, Some(_), _) => self.login = Login::Refused,
            (Shape::Login, None, _) => self.login = Login::Accepted,
            (_, Some(_), Some(place)) => statements.live_failed(place),
            _ => {}
        }
    }
}
