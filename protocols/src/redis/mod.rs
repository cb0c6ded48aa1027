//! Redis: log-ins with the password that the target wants.
//!
//! A client logs in with `AUTH` or `HELLO ... AUTH`; the name's password at the target stands in place of the live one.
//! All else is played as the client sent it. Where a session's first command is a log-in and the target refuses it, the
//! replica ends. A replica that begins in the middle of a session logs in first, as the default user, where that has a
//! password; the database is the first one then, since an earlier `SELECT` is not known.
//!
//! - `commands`: finds the log-ins in what a client sends.
//! - `reply`: whether the target has refused one.
//! - `writes`: which commands only read.

mod commands;
mod reply;
mod writes;

use std::sync::Arc;

use millrace_engine::protocol::{
    Beginning, ClientEnd, Conversation, Failure, FailureKind, Protocol, Script, Turn,
};

use self::commands::{Commands, Part};
use self::reply::{Reply, Verdict};
use crate::accounts::Accounts;
use crate::writes::WriteGuard;

/// Whom `AUTH` without a name means (<https://redis.io/docs/latest/commands/auth/>).
const DEFAULT_USER: &str = "default";

/// The module.
#[derive(Debug)]
pub struct Redis {
    accounts: Arc<Accounts>,
    guard: WriteGuard,
}

impl Redis {
    /// For targets with these accounts, which get what the guard permits.
    pub const fn new(accounts: Arc<Accounts>, guard: WriteGuard) -> Self {
        Self { accounts, guard }
    }
}

impl Protocol for Redis {
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>> {
        let default = self.accounts.password(DEFAULT_USER);
        let prologue = default.filter(|_| beginning == Beginning::Turn);
        let login = match (prologue, self.accounts.is_empty()) {
            (Some(password), _) => Login::ToSend(commands::auth(password)),
            // Nothing is replaced, and whether the target takes the live password shows as it does without a module.
            (None, true) => Login::Over,
            (None, false) if beginning == Beginning::Connection => Login::Expected,
            (None, false) => Login::Over,
        };
        Some(Box::new(Player {
            accounts: self.accounts.clone(),
            guard: self.guard.clone(),
            commands: Commands::default(),
            login,
        }))
    }
}

/// How far the log-in is.
enum Login {
    /// The client's first command will show whether there is one.
    Expected,
    /// This goes first, before all that the client says.
    ToSend(Vec<u8>),
    /// It was sent, and what the client says goes on meanwhile: without a log-in the target refuses that.
    Sent(Reply),
    /// The target is not listened to any more.
    Over,
}

/// One replica.
struct Player {
    accounts: Arc<Accounts>,
    guard: WriteGuard,
    commands: Commands,
    login: Login,
}

impl Player {
    /// Plays what the client said, with other passwords.
    fn play(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        if let Some(turn) = turn {
            script.turn(turn);
        }
        let (accounts, guard, login) = (&self.accounts, &self.guard, &mut self.login);
        self.commands.read(bytes, |part| {
            let is_first = matches!(login, Login::Expected);
            match part {
                Part::Begins(name) => {
                    let permitted = guard.permits(name, writes::writes(name));
                    if !permitted {
                        script.leave_out();
                    }
                    return permitted;
                }
                Part::Bytes(bytes) => {
                    if is_first {
                        *login = Login::Over;
                    }
                    script.play(bytes);
                }
                Part::Login(command) => {
                    if is_first {
                        *login = Login::Sent(Reply::new(command.is_hello()));
                    }
                    script.play(&command.with_passwords_of(accounts));
                }
            }
            true
        })
    }
}

impl Conversation for Player {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        if let Login::ToSend(command) = &self.login {
            // A turn is seldom anything but the beginning of a command, and what is none must not be taken for one.
            if bytes.first() != Some(&b'*') {
                return Err(Failure::new(
                    FailureKind::Unsupported,
                    "it was picked up within a command",
                ));
            }
            script.play(command);
            self.login = Login::Sent(Reply::new(false));
            // The answer to that log-in is none that the live server gave.
            return self.play(bytes, turn.map(Turn::answered), script);
        }
        self.play(bytes, turn, script)
    }

    fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        script.play(&self.commands.rest());
        if let Some(turn) = turn {
            script.turn(turn);
        }
        script.end(end);
        Ok(())
    }

    fn on_target(&mut self, bytes: &[u8], _: &mut Script<'_>) -> Result<(), Failure> {
        let Login::Sent(reply) = &mut self.login else {
            return Ok(());
        };
        match reply.hear(bytes) {
            Verdict::Unknown => {}
            Verdict::Accepted => self.login = Login::Over,
            // Clients fall back to AUTH where a server does not know HELLO.
            Verdict::NoHello => self.login = Login::Expected,
            Verdict::Refused(why) => {
                return Err(Failure::new(
                    FailureKind::Login,
                    format!("the target refuses the log-in: {why}"),
                ));
            }
        }
        Ok(())
    }

    fn wants_answers(&self) -> bool {
        !matches!(self.login, Login::Over)
    }
}
