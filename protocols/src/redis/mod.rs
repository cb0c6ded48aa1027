//! Redis: log-ins with the password that the target wants.
//!
//! A client logs in with `AUTH` or `HELLO ... AUTH`; the name's password at the target stands in place of the live one.
//! All else is played as the client sent it. A replica whose log-in the target refuses ends. One that begins in the
//! middle of a session logs in first, as the default user, where that has a password; the database is the first one
//! then, since an earlier `SELECT` is not known.
//!
//! - `commands`: finds the log-ins in what a client sends.
//! - `reply`: whether the target has refused one.

mod commands;
mod reply;

use std::sync::Arc;

use millrace_engine::protocol::{
    Beginning, ClientEnd, Conversation, Failure, Protocol, Script, Turn,
};

use self::commands::{Commands, Part};
use self::reply::{Reply, Verdict};
use crate::accounts::Accounts;

/// Whom `AUTH` without a name means (<https://redis.io/docs/latest/commands/auth/>).
const DEFAULT_USER: &str = "default";
/// Bytes that may wait for the answer to a log-in that stands before them.
const MOST_HELD: usize = 1 << 20;

/// The module.
#[derive(Debug)]
pub struct Redis {
    accounts: Arc<Accounts>,
}

impl Redis {
    /// For targets with these accounts.
    pub const fn new(accounts: Arc<Accounts>) -> Self {
        Self { accounts }
    }
}

impl Protocol for Redis {
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>> {
        let default = self.accounts.password(DEFAULT_USER);
        let prologue = default.filter(|_| beginning == Beginning::Turn);
        let login = match (prologue, self.accounts.is_empty()) {
            (Some(password), _) => Login::First(commands::auth(password)),
            // Nothing is replaced, and whether the target takes the live password shows as it does without a module.
            (None, true) => Login::Over,
            (None, false) if beginning == Beginning::Connection => Login::Expected,
            (None, false) => Login::Over,
        };
        Some(Box::new(Player {
            accounts: self.accounts.clone(),
            commands: Commands::default(),
            login,
            held: Held::default(),
        }))
    }
}

/// How far the log-in is.
#[derive(Debug)]
enum Login {
    /// The client's first command will show whether there is one.
    Expected,
    /// This goes first, before all that the client says.
    First(Vec<u8>),
    /// It was sent first; what the client says is held until the target has answered.
    Before(Reply),
    /// The client's own was sent; what the client says goes on meanwhile.
    Within(Reply),
    /// The target is not listened to any more.
    Over,
}

/// What the client said while a log-in that stands before it was not answered.
#[derive(Debug, Default)]
struct Held {
    pieces: Vec<(Option<Turn>, Vec<u8>)>,
    bytes: usize,
    end: Option<(ClientEnd, Option<Turn>)>,
}

/// One replica.
struct Player {
    accounts: Arc<Accounts>,
    commands: Commands,
    login: Login,
    held: Held,
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
        let (accounts, login) = (&self.accounts, &mut self.login);
        self.commands.read(bytes, |part| {
            let is_first = matches!(login, Login::Expected);
            match part {
                Part::Bytes(bytes) => {
                    if is_first {
                        *login = Login::Over;
                    }
                    script.play(bytes);
                }
                Part::Login(command) => {
                    if is_first {
                        *login = Login::Within(Reply::default());
                    }
                    script.play(&command.with_passwords_of(accounts));
                }
            }
        })
    }

    fn hear(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        let (Login::Before(reply) | Login::Within(reply)) = &mut self.login else {
            return Ok(false);
        };
        match reply.hear(bytes) {
            Verdict::Unknown => Ok(false),
            Verdict::Accepted => Ok(true),
            Verdict::Refused(why) => Err(Failure(format!("the target refuses the log-in: {why}"))),
        }
    }
}

impl Conversation for Player {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        if let Login::First(command) = &self.login {
            script.play(command);
            self.login = Login::Before(Reply::default());
        }
        if let Login::Before(_) = self.login {
            self.held.bytes += bytes.len();
            self.held.pieces.push((turn, bytes.to_vec()));
            return match self.held.bytes > MOST_HELD {
                true => Err(Failure("the target does not answer the log-in".to_owned())),
                false => Ok(()),
            };
        }
        self.play(bytes, turn, script)
    }

    fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        if let Login::Before(_) = self.login {
            self.held.end = Some((end, turn));
            return Ok(());
        }
        script.play(&self.commands.rest());
        if let Some(turn) = turn {
            script.turn(turn);
        }
        script.end(end);
        Ok(())
    }

    fn on_target(&mut self, bytes: &[u8], script: &mut Script<'_>) -> Result<(), Failure> {
        if !self.hear(bytes)? {
            return Ok(());
        }
        self.login = Login::Over;
        let held = std::mem::take(&mut self.held);
        for (turn, bytes) in held.pieces {
            // The answer to the log-in is none that the live server gave.
            self.play(&bytes, turn.map(Turn::answered), script)?;
        }
        match held.end {
            Some((end, turn)) => self.on_client_end(end, turn, script),
            None => Ok(()),
        }
    }

    fn wants_answers(&self) -> bool {
        !matches!(self.login, Login::Over)
    }
}
