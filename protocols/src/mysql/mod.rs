//! MySQL and MariaDB: log-ins with the target's passwords, prepared statements by the target's numbers, and turns that wait
//! for the exact end of an answer.
//!
//! A replica waits for the target's greeting, and answers it with the client's own log-in: its user, database, collation and
//! attributes, with the password that the user has at the target. The client's part of the exchange with the live server is
//! not played. After that, commands are played as they are, but for the numbers of prepared statements, and for what rules of
//! writes leave out. Sessions that are encrypted or compressed fail, counted as such.
//!
//! A replica that begins in the middle of a session logs in as the account for that, and knows of no statement that was
//! prepared before. Its client may have agreed on query attributes, which change the form of statements: they are known by
//! their form, and taken out.
//!
//! - `packets`, `wire`: how all is written.
//! - `greeting`, `response`, `auth`, `key`: log-ins.
//! - `answers`, `side`: where a server's answers end.
//! - `commands`, `attributes`: the client's messages.
//! - `tokens`, `digest`, `class`: statements.
//! - `plain`, `judge`: texts, of which only plain ones may read.
//! - `statements`: which prepared statement is which.
//! - `live`: what was captured of the live server.
//! - `player`, `requests`, `login`: one replica, writing to a stage.

mod answers;
mod attributes;
mod auth;
mod class;
mod commands;
mod digest;
mod greeting;
mod judge;
mod key;
mod live;
mod login;
mod packets;
mod plain;
mod player;
mod requests;
mod response;
mod side;
mod statements;
mod tokens;
mod wire;

use std::sync::Arc;

use millrace_engine::protocol::{
    Beginning, ClientEnd, Conversation, Failure, Live, Protocol, Script, Turn, TurnNumber,
};

use self::player::Player;
use crate::accounts::Accounts;
use crate::writes::WriteGuard;

/// What the module needs to know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Passwords at the target. A session whose user has none fails, as [`millrace_engine::protocol::FailureKind::Account`].
    pub accounts: Arc<Accounts>,
    /// Decides which statements are played.
    pub guard: WriteGuard,
    /// Whom a replica logs in as that begins in the middle of a session; without one, the only account if there is but one.
    pub midway_user: Option<String>,
    /// The database that it begins with, if any.
    pub midway_database: Option<String>,
}

impl Settings {
    /// Whom a replica logs in as that begins in the middle of a session.
    fn midway_user(&self) -> Option<&str> {
        let user = self.midway_user.as_deref();
        user.or_else(|| self.accounts.only())
    }
}

/// The module.
///
/// It listens to the target for the whole of each session: statements are prepared at any time, and where answers end tells
/// when the next command may go. So all that the target says is carried to the copier, and not only its length.
#[derive(Debug)]
pub struct MySql {
    settings: Arc<Settings>,
}

impl MySql {
    /// For targets with these settings.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
        }
    }
}

impl Protocol for MySql {
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>> {
        let settings = &self.settings;
        let can_log_in = || {
            let user = settings.midway_user()?;
            settings.accounts.password(user)
        };
        if beginning == Beginning::Turn {
            can_log_in()?;
        }
        let player = Player::<Turn, TurnNumber>::new(settings.clone(), beginning);
        Some(Box::new(Session(player)))
    }

    fn hears_live(&self) -> bool {
        true
    }
}

/// One replica, on the engine's stage.
struct Session(Player<Turn, TurnNumber>);

impl Conversation for Session {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        self.0.on_client(bytes, turn, script)
    }

    fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        self.0.on_client_end(end, turn, script)
    }

    fn on_live(&mut self, live: Live<'_>, _: &mut Script<'_>) -> Result<(), Failure> {
        match live {
            Live::Bytes(bytes) => self.0.on_live(bytes),
            Live::Missing { .. } => {
                self.0.on_live_missing();
                Ok(())
            }
        }
    }

    fn holds_client(&self) -> bool {
        self.0.holds_client()
    }

    fn on_target(&mut self, bytes: &[u8], script: &mut Script<'_>) -> Result<(), Failure> {
        self.0.on_target(bytes, script)
    }

    fn on_target_end(&mut self, script: &mut Script<'_>) -> Result<(), Failure> {
        self.0.on_target_end(script)
    }

    fn memory(&self) -> usize {
        self.0.memory()
    }

    fn unplayed(&self) -> u64 {
        self.0.unplayed()
    }

    fn wants_answers(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
