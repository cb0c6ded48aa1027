//! HTTP/1.0 and 1.1 (RFC 9110, 9112): requests that are chosen, changed, and timed by where answers end.
//!
//! A request is played as its client sent it, but for what [`Settings`] say: another `Host` and other fields, values that the
//! target gave in place of the live server's, and requests that are left out. Bodies stream through. What follows an upgrade,
//! `CONNECT`, or the preface of HTTP/2 passes byte for byte; so what asks for it counts as a request that writes.
//! Only an offer of HTTP/2 (`Upgrade: h2c`) is taken out, and its request is one like others: the target answers in HTTP/1.1.
//!
//! What servers are known to read in different ways ends its replica: see `head` and `chunked`. A session that is picked up in
//! the middle begins with a request, or ends.
//!
//! - `settings`, `text`: the rule file.
//! - `head`, `chunked`, `request`: requests as they come. `responses`: where answers end.
//! - `path`: what write rules and selectors see.
//! - `rewrite`: heads as the target gets them. `swap`: values in requests. `scan`: values in responses. `book`: which belong
//!   together.
//! - `awaited`, `users`: what requests wait for, and whose they are.
//! - `asks`: requests with the answers of both servers. `tokens`: the values of one request's answers. `player`: one replica. `terms`: what all
//!   replicas have in common.

mod asks;
mod awaited;
mod book;
mod chunked;
mod head;
mod path;
mod player;
mod request;
mod responses;
mod rewrite;
mod scan;
mod settings;
mod swap;
mod terms;
mod text;
mod tokens;
mod users;

use std::sync::Arc;

use millrace_engine::protocol::{
    Beginning, ClientEnd, Conversation, Failure, Live, Protocol, Script, Turn, TurnNumber,
};

use self::player::Player;
pub use self::settings::{Settings, SettingsError, TokenRule};
use self::terms::Terms;
pub use self::text::{
    Around, Editable, Key, Name, Place, Selector, Source, Spot, TextError, Value,
};
use crate::writes::WriteGuard;

/// A rule file that says everything that one can.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The module.
#[derive(Debug)]
pub struct Http {
    terms: Arc<Terms>,
}

impl Http {
    /// One with these settings, whose requests this guard judges. All its replicas share the values of rules that say so.
    pub fn new(settings: Settings, guard: WriteGuard) -> Self {
        let terms = Terms {
            rules: settings.token.clone().into(),
            settings,
            guard,
            shared: Arc::default(),
        };
        Self {
            terms: Arc::new(terms),
        }
    }
}

impl Protocol for Http {
    fn begin(&self, beginning: Beginning) -> Option<Box<dyn Conversation>> {
        let is_whole = beginning == Beginning::Connection;
        let player: Player<Turn, TurnNumber> = Player::new(self.terms.clone(), is_whole);
        Some(Box::new(player))
    }

    fn hears_live(&self) -> bool {
        !self.terms.rules.is_empty()
    }
}

impl Conversation for Player<Turn, TurnNumber> {
    fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        Player::on_client(self, bytes, turn, script)
    }

    fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<Turn>,
        script: &mut Script<'_>,
    ) -> Result<(), Failure> {
        Player::on_client_end(self, end, turn, script);
        Ok(())
    }

    fn on_live(&mut self, live: Live<'_>, _: &mut Script<'_>) -> Result<(), Failure> {
        match live {
            Live::Bytes(bytes) => Player::on_live(self, bytes),
            Live::Missing { .. } => self.lose_live(),
        }
        Ok(())
    }

    fn holds_client(&self) -> bool {
        self.holds()
    }

    fn on_target(&mut self, bytes: &[u8], script: &mut Script<'_>) -> Result<(), Failure> {
        Player::on_target(self, bytes, script)
    }

    fn on_target_end(&mut self, script: &mut Script<'_>) -> Result<(), Failure> {
        Player::on_target_end(self, script)
    }

    fn memory(&self) -> usize {
        Player::memory(self)
    }

    fn wants_answers(&self) -> bool {
        self.listens()
    }
}
