//! What the target says, and the log-in there.

use millrace_engine::protocol::{Failure, FailureKind};

use super::answers::{Eofs, Event, Shape};
use super::auth::{self, Exchange};
use super::greeting::Greeting;
use super::live::Login;
use super::packets::packet;
use super::player::{Phase, Player};
use super::response::{ChangeUser, Response};
use super::side::Due;
use super::wire::{capability, malformed};
use crate::stage::Stage;

/// What a session picked up in the middle is taken to have agreed on: all that lets its commands pass, and nothing that
/// changes their form.
const MIDWAY: u32 = capability::LONG_PASSWORD
    | capability::PROTOCOL_41
    | capability::LOCAL_FILES
    | capability::TRANSACTIONS
    | capability::SECURE_CONNECTION
    | capability::MULTI_STATEMENTS
    | capability::MULTI_RESULTS
    | capability::PS_MULTI_RESULTS
    | capability::PLUGIN_AUTH;
/// Its collation: utf8mb4_general_ci, which all servers have.
const MIDWAY_COLLATION: u8 = 45;
/// What changes the stream itself, or the answers in a way that is not read here.
const NEVER: u32 = capability::SSL
    | capability::SSL_VERIFY
    | capability::COMPRESS
    | capability::ZSTD
    | capability::OPTIONAL_METADATA
    | capability::MULTI_FACTOR;
/// What the module itself needs, where the target has it.
const NEEDED: u32 = capability::PROTOCOL_41
    | capability::SECURE_CONNECTION
    | capability::PLUGIN_AUTH
    | capability::PLUGIN_AUTH_LENENC;
/// The longest packet that servers take by default.
const MAX_PACKET: u32 = 1 << 24;

impl<T: Copy, N: Copy> Player<T, N> {
    pub(super) fn on_target<S: Stage<Turn = T, Number = N>>(
        &mut self,
        mut bytes: &[u8],
        stage: &mut S,
    ) -> Result<(), Failure> {
        while !self.is_target_lost {
            match self.target.hear(&mut bytes) {
                Ok(Some((event, due))) => self.take_event(event, due, stage)?,
                Ok(None) => break,
                Err(failure) => match self.phase {
                    Phase::Commands => self.lose_target(stage),
                    Phase::Refused(_) => break,
                    Phase::Greeting | Phase::Greeted(_) | Phase::LoggingIn(_) => {
                        return Err(failure);
                    }
                },
            }
            while let Some(turn) = self.target.free_turn() {
                stage.answered(turn);
            }
        }
        self.go_on(stage)
    }

    pub(super) fn on_target_end<S: Stage<Turn = T, Number = N>>(
        &mut self,
        stage: &mut S,
    ) -> Result<(), Failure> {
        match self.phase {
            Phase::Greeting | Phase::Greeted(_) | Phase::LoggingIn(_) => {
                self.refuse(ended_early())?;
            }
            Phase::Refused(_) => {}
            Phase::Commands => self.lose_target(stage),
        }
        self.go_on(stage)
    }

    fn take_event<S: Stage<Turn = T, Number = N>>(
        &mut self,
        event: Event,
        due: Due,
        stage: &mut S,
    ) -> Result<(), Failure> {
        match (event, due.shape) {
            (Event::Packet { payload, .. }, Shape::Greeting) => {
                let greeting = Greeting::parse(&payload)?;
                match self.is_midway {
                    true => self.log_in_midway(&greeting, stage),
                    false => {
                        self.phase = Phase::Greeted(greeting);
                        Ok(())
                    }
                }
            }
            (Event::Packet { number, payload }, _) => {
                let Phase::LoggingIn(exchange) = &mut self.phase else {
                    return Err(malformed("the target asks for a log-in before its time"));
                };
                if let Some(answer) = exchange.answer(&payload)? {
                    stage.play(&packet(number.wrapping_add(1), &answer));
                }
                Ok(())
            }
            (Event::Over { error: Some(code) }, Shape::Greeting | Shape::Login) => {
                self.refuse(auth::refused(code))
            }
            (Event::Over { error: None }, Shape::Login) => {
                if let Phase::LoggingIn(exchange) =
                    std::mem::replace(&mut self.phase, Phase::Commands)
                {
                    self.last_login = Some(exchange);
                }
                Ok(())
            }
            (Event::Prepared { id, parameters }, _) => match due.statement {
                Some(place) => self.statements.target_prepared(place, id, parameters),
                None => Ok(()),
            },
            (Event::File { number }, _) => {
                self.file_number = number.wrapping_add(1);
                Ok(())
            }
            (Event::Over { error }, _) => {
                if let (Some(place), Some(_)) = (due.statement, error) {
                    self.statements.target_failed(place);
                }
                self.loads &= self.target.is_waiting();
                Ok(())
            }
        }
    }

    /// The target does not let the session in. That is a failure only if the live server did.
    fn refuse(&mut self, failure: Failure) -> Result<(), Failure> {
        self.phase = Phase::Refused(failure);
        self.check_refusal()
    }

    /// Fails where the target has refused what the live server accepted. What is not known of the live server shows by what
    /// the client does next.
    pub(super) fn check_refusal(&self) -> Result<(), Failure> {
        match (&self.phase, self.live.login) {
            (Phase::Refused(failure), Login::Accepted) => Err(failure.clone()),
            _ => Ok(()),
        }
    }

    /// The password of an account of the target.
    fn password(&self, user: &[u8]) -> Result<String, Failure> {
        let password = str::from_utf8(user).ok();
        let password = password.and_then(|user| self.settings.accounts.password(user));
        let text = "no password is configured for the account of a session";
        let failure = || Failure::new(FailureKind::Account, text);
        password.map(str::to_owned).ok_or_else(failure)
    }

    /// The client's log-in becomes one at the target.
    pub(super) fn log_in<S: Stage<Turn = T, Number = N>>(
        &mut self,
        number: u8,
        payload: &[u8],
        stage: &mut S,
    ) -> Result<(), Failure> {
        let mut response = Response::parse(payload)?;
        let mut agreed = response.capabilities & self.live.capabilities.unwrap_or(u32::MAX);
        if agreed & (capability::COMPRESS | capability::ZSTD) != 0 {
            let text = "the client and the live server compress";
            return Err(Failure::new(FailureKind::Compressed, text));
        }
        // Without the live server's greeting the form of statements may be either, and is made the one without attributes.
        let has_attributes = agreed & capability::QUERY_ATTRIBUTES != 0;
        let is_known = !has_attributes || self.live.capabilities.is_some();
        self.has_attributes = is_known.then_some(has_attributes);
        if !is_known {
            agreed &= !capability::QUERY_ATTRIBUTES;
        }
        self.client_capabilities = Some(agreed);
        self.live.agree(agreed);
        response.capabilities = agreed | response.capabilities & capability::LONG_PASSWORD;
        self.send_login(response, number, stage)
    }

    fn log_in_midway<S: Stage<Turn = T, Number = N>>(
        &mut self,
        greeting: &Greeting,
        stage: &mut S,
    ) -> Result<(), Failure> {
        let user = self.settings.midway_user().unwrap_or_default().to_owned();
        let is_mariadb = greeting.capabilities & capability::LONG_PASSWORD == 0;
        let response = Response {
            capabilities: match is_mariadb {
                true => MIDWAY & !capability::LONG_PASSWORD,
                false => MIDWAY,
            },
            extended: capability::MARIADB_BULK,
            max_packet: MAX_PACKET,
            collation: MIDWAY_COLLATION,
            user: user.into_bytes(),
            database: self
                .settings
                .midway_database
                .clone()
                .map(String::into_bytes),
            attributes: None,
        };
        self.phase = Phase::Greeted(greeting.clone());
        self.send_login(response, 1, stage)
    }

    fn send_login<S: Stage<Turn = T, Number = N>>(
        &mut self,
        mut response: Response,
        number: u8,
        stage: &mut S,
    ) -> Result<(), Failure> {
        let Phase::Greeted(greeting) = std::mem::replace(&mut self.phase, Phase::Greeting) else {
            return Err(malformed("a client logs in before it was greeted"));
        };
        let password = self.password(&response.user)?;
        let has = greeting.capabilities;
        let is_of_mysql = response.capabilities & capability::LONG_PASSWORD;
        let database = response
            .database
            .as_ref()
            .map_or(0, |_| capability::CONNECT_WITH_DB);
        response.capabilities =
            ((response.capabilities | NEEDED | database) & has & !NEVER) | is_of_mysql;
        response.extended &= greeting.extended;
        if has & capability::CONNECT_ATTRIBUTES == 0 {
            response.attributes = None;
        }
        if response.attributes.is_none() {
            response.capabilities &= !capability::CONNECT_ATTRIBUTES;
        }
        // A server of MySQL would not see that more capabilities follow.
        response.capabilities |= has & capability::LONG_PASSWORD;
        self.target_capabilities = response.capabilities;
        let eofs = match response.capabilities & capability::DEPRECATE_EOF {
            0 => Eofs::Sent,
            _ => Eofs::Deprecated,
        };
        self.target.answers().set_eofs(eofs);
        let exchange = Exchange::new(&greeting.plugin, &greeting.scramble, &password);
        let payload = response.encode(exchange.method().0, &exchange.proof());
        self.phase = Phase::LoggingIn(exchange);
        self.play(&packet(number, &payload), stage);
        self.target.expect(Shape::Login, None);
        Ok(())
    }

    /// The client changes its account, and so does the replica.
    pub(super) fn change_user<S: Stage<Turn = T, Number = N>>(
        &mut self,
        payload: &[u8],
        stage: &mut S,
    ) -> Result<(), Failure> {
        let capabilities = self.client_capabilities.unwrap_or(MIDWAY);
        let change = ChangeUser::parse(payload, capabilities);
        let change = change.ok_or_else(|| malformed("a change of the user is cut short"))?;
        let password = self.password(&change.user)?;
        let Some(last) = &self.last_login else {
            return Err(malformed("the user changes before the log-in"));
        };
        let (plugin, scramble) = last.method();
        let exchange = Exchange::new(plugin, scramble, &password);
        let plugin = exchange.method().0;
        let payload = change.encode(self.target_capabilities, plugin, &exchange.proof());
        self.play(&packet(0, &payload), stage);
        self.phase = Phase::LoggingIn(exchange);
        self.target.expect(Shape::Login, None);
        self.live.expect(Shape::Login, None);
        self.statements.clear();
        Ok(())
    }
}

fn ended_early() -> Failure {
    let text = "the target ended the connection before the log-in was over";
    Failure::new(FailureKind::Login, text)
}
