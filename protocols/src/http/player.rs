//! Plays one replica: reads the client's requests one by one, and writes what the target gets of them.

mod memory;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;

use millrace_engine::protocol::{ClientEnd, Failure, FailureKind};

use self::state::{At, Input, Lag, Next, after};
use super::asks::Asks;
use super::book::Book;
use super::head::{Head, HeadReader, is_token};
use super::path::Path;
use super::request::{Body, Gathered, Request, Rest};
use super::rewrite;
use super::swap::Swap;
use super::terms::Terms;
use crate::stage::{Pace, Stage};

/// Bytes that may wait here for an answer of the target; the engine keeps the client's others.
const MOST_WAITING: usize = 256 * 1024;
/// How HTTP/2 begins (RFC 9113, section 3.4): its first line.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

/// One replica. `T` is a turn, `N` names one that was written.
pub(super) struct Player<T, N> {
    terms: Arc<Terms>,
    at: At,
    reader: HeadReader,
    asks: Asks,
    /// A turn that nothing has followed yet.
    turn: Option<T>,
    /// Turns that wait for so many answers.
    waits: VecDeque<(N, u64)>,
    /// A turn within a body, which waits for an interim answer.
    interim: Option<N>,
    inputs: VecDeque<Input<T>>,
    lag: Lag,
    /// The client has not been heard yet.
    is_new: bool,
    /// Bytes in them.
    waiting: usize,
    /// The connection's first octets may be HTTP/2.
    is_first: bool,
    /// What may follow the last request.
    next: Next,
    /// The request within whose body this is expects an interim answer, which has not come.
    expects: bool,
    has_left_out: bool,
}

impl<T: Copy, N: Copy + PartialEq> Player<T, N> {
    /// `is_whole`: it begins with the connection.
    pub(super) fn new(terms: Arc<Terms>, is_whole: bool) -> Self {
        let book = Book::new(terms.shared.clone());
        Self {
            asks: Asks::new(terms.rules.clone(), book, terms.listens()),
            terms,
            at: At::Head,
            reader: HeadReader::default(),
            turn: None,
            waits: VecDeque::new(),
            interim: None,
            inputs: VecDeque::new(),
            lag: Lag::None,
            is_new: true,
            waiting: 0,
            is_first: is_whole,
            next: Next::Requests,
            expects: false,
            has_left_out: false,
        }
    }

    /// Whether the target is listened to.
    pub(super) const fn listens(&self) -> bool {
        let is_over = matches!(self.at, At::Tunnel | At::Silence) && self.asks.is_settled();
        self.asks.listens() && !is_over
    }

    /// Whether the client's next bytes are to wait.
    pub(super) fn holds(&self) -> bool {
        self.is_blocked() || !self.inputs.is_empty()
    }

    fn is_blocked(&self) -> bool {
        matches!(self.at, At::Waiting(..)) || self.asks.is_full()
    }

    /// The client has said this.
    pub(super) fn on_client(
        &mut self,
        bytes: &[u8],
        turn: Option<T>,
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_new) {
            self.asks.forget_early();
        }
        if self.holds() {
            self.waiting += bytes.len();
            if self.waiting > MOST_WAITING {
                let text = "too much came while a value of the target was waited for";
                return Err(Failure::new(FailureKind::Limit, text));
            }
            self.inputs.push_back(Input::Client(turn, bytes.to_vec()));
            return Ok(());
        }
        if self.lag == Lag::Held {
            self.lag = Lag::Behind;
        }
        self.hear_client(bytes, turn, stage)
    }

    /// The client says nothing more.
    pub(super) fn on_client_end(
        &mut self,
        end: ClientEnd,
        turn: Option<T>,
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) {
        match self.holds() {
            true => self.inputs.push_back(Input::End(end, turn)),
            false => self.end(end, turn, stage),
        }
    }

    /// The live server has said this.
    pub(super) fn on_live(&mut self, bytes: &[u8]) {
        self.catch_up();
        self.asks.hear_live(bytes);
    }

    /// Something of what the live server has said is missing.
    pub(super) fn lose_live(&mut self) {
        self.catch_up();
        self.asks.lose_live();
    }

    /// Something else than the client is heard: what was held back of it has been.
    fn catch_up(&mut self) {
        if self.lag == Lag::Behind && !self.holds() {
            self.lag = Lag::None;
        }
    }

    /// The target has said this.
    pub(super) fn on_target(
        &mut self,
        bytes: &[u8],
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<(), Failure> {
        self.catch_up();
        let told = self.asks.hear_target(bytes);
        self.expects &= !told.began;
        self.go_on(stage)
    }

    /// The target says nothing more.
    pub(super) fn on_target_end(
        &mut self,
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<(), Failure> {
        self.asks.stop_listening();
        self.expects = false;
        self.go_on(stage)
    }

    /// Does what an answer of the target has made possible.
    fn go_on(&mut self, stage: &mut dyn Stage<Turn = T, Number = N>) -> Result<(), Failure> {
        let interim = (!self.expects || self.asks.is_settled()).then(|| self.interim.take());
        if let Some(turn) = interim.flatten() {
            stage.answered(turn);
        }
        let answered = self.asks.answered();
        while let Some((turn, _)) = self.waits.pop_front_if(|it| it.1 <= answered) {
            stage.answered(turn);
        }
        match std::mem::replace(&mut self.at, At::Head) {
            At::Waiting(request, rule, value) if !self.asks.awaits(rule, &value) => {
                self.send(*request, stage);
            }
            at => self.at = at,
        }
        while !self.is_blocked()
            && let Some(input) = self.inputs.pop_front()
        {
            match input {
                Input::Client(turn, bytes) => {
                    self.waiting -= bytes.len();
                    self.hear_client(&bytes, turn, stage)?;
                }
                Input::End(end, turn) => self.end(end, turn, stage),
            }
        }
        Ok(())
    }

    fn hear_client(
        &mut self,
        bytes: &[u8],
        turn: Option<T>,
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<(), Failure> {
        self.hear_turn(turn, stage);
        let mut left = bytes;
        while !left.is_empty() {
            if self.is_blocked() {
                self.waiting += left.len();
                self.inputs.push_front(Input::Client(None, left.to_vec()));
                break;
            }
            let taken = self.step(left, stage)?;
            left = left.get(taken..).unwrap_or_default();
        }
        if self.is_blocked() {
            self.lag = Lag::Held;
        }
        Ok(())
    }

    fn hear_turn(&mut self, turn: Option<T>, stage: &dyn Stage<Turn = T, Number = N>) {
        let Some(turn) = turn else {
            return;
        };
        match &self.at {
            At::Head if self.reader.is_empty() => {
                // Only where nothing was under way the live server's next byte begins an answer. What was held back waited
                // for answers that have long been heard.
                if self.lag == Lag::None && stage.is_settled(turn) {
                    self.asks.find_live();
                }
                self.turn = Some(turn);
            }
            // Pauses within a head.
            At::Head => {
                self.turn.get_or_insert(turn);
            }
            // The request goes as one, or not at all: what made its client wait does not matter.
            At::Gathering(..)
            | At::Body {
                is_played: false, ..
            }
            | At::Silence => {}
            At::Body {
                is_played: true, ..
            }
            | At::Waiting(..)
            | At::Tunnel => self.turn = Some(turn),
        }
    }

    /// Takes some of the client's bytes: how many. It takes none only where another protocol begins.
    fn step(
        &mut self,
        bytes: &[u8],
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<usize, Failure> {
        match &mut self.at {
            At::Head => self.step_head(bytes, stage),
            At::Body { body, is_played } => {
                let (taken, is_played) = (body.skip(bytes)?, *is_played);
                let over = body.is_over();
                if is_played {
                    self.write_turn_within(stage);
                    stage.play(bytes.get(..taken).unwrap_or_default());
                }
                if over {
                    self.at = At::Head;
                }
                Ok(taken)
            }
            At::Gathering(_, gathered) => {
                let taken = gathered.read(bytes)?;
                if gathered.body.is_over() || gathered.is_too_long() {
                    self.end_gathering(stage);
                }
                Ok(taken)
            }
            At::Tunnel => {
                if let Some(turn) = self.turn.take() {
                    stage.turn(turn, Pace::Counted);
                }
                stage.play(bytes);
                Ok(bytes.len())
            }
            At::Waiting(..) | At::Silence => Ok(bytes.len()),
        }
    }

    fn step_head(
        &mut self,
        bytes: &[u8],
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<usize, Failure> {
        if self.reader.is_empty() && self.next != Next::Requests {
            if self.asks.speaks_on() {
                self.next = Next::Requests;
            } else if self.next.may_tunnel() {
                if self.is_tunnel(bytes) {
                    self.at = At::Tunnel;
                    return Ok(0);
                }
            } else if self.asks.has_tunnel() {
                self.lose_client(stage)?;
                return Ok(bytes.len());
            }
        }
        let before = self.reader.so_far().len();
        match self.reader.read(bytes) {
            Ok((taken, head)) => {
                if let Some(head) = head {
                    self.begin(head, stage)?;
                }
                Ok(taken)
            }
            Err(bad) => {
                let mut so_far = self.reader.take();
                so_far.truncate(before);
                so_far.extend_from_slice(bytes);
                let may_tunnel = self.next.may_tunnel();
                let is_preface = so_far.starts_with(PREFACE) && (self.is_first || may_tunnel);
                if is_preface && !self.terms.permits_preface() {
                    self.leave_out(stage);
                    self.at = At::Silence;
                } else if is_preface || may_tunnel && self.terms.are_open() {
                    self.write_turn(stage);
                    stage.play(&so_far);
                    self.at = At::Tunnel;
                } else if matches!(self.next, Next::Unheard | Next::Http2) {
                    self.lose_client(stage)?;
                } else {
                    return Err(bad.into());
                }
                Ok(bytes.len())
            }
        }
    }

    /// The client goes on in a protocol that the target does not speak with it.
    fn lose_client(&mut self, stage: &mut dyn Stage<Turn = T, Number = N>) -> Result<(), Failure> {
        if self.next == Next::Http2 {
            if self.terms.are_open() {
                let text = "the live server went on in HTTP/2, and the target was not asked to";
                return Err(Failure::new(FailureKind::Unsupported, text));
            }
            self.leave_out(stage);
        }
        self.at = At::Silence;
        Ok(())
    }

    /// Whether what begins here is another protocol, as was asked for. Where the live server is not heard, the first octet
    /// tells: no frame of WebSocket or TLS begins like a request. What does is one, or else nobody could be kept from sending
    /// requests past the rules.
    fn is_tunnel(&self, bytes: &[u8]) -> bool {
        let first = bytes.first().copied().unwrap_or(b'\r');
        let is_request = is_token(first) || matches!(first, b'\r' | b'\n');
        let is_connect = self.next == Next::Connect;
        self.asks.has_tunnel() || !is_request || is_connect && self.terms.are_open()
    }

    /// A head is whole.
    fn begin(
        &mut self,
        head: Head<'_>,
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) -> Result<(), Failure> {
        let framing = head.framing()?;
        let path = Path::of(&head);
        let is_permitted = self.terms.permits(&head, &path);
        (self.is_first, self.next) = (false, Next::after(&head, is_permitted));
        self.expects = head.expects_continue();
        self.asks.ask(&head, &path);
        if !is_permitted {
            self.leave_out(stage);
            self.asks.decide(false);
            // What follows a tunnel's beginning is another server's.
            self.at = match head.is_connect() {
                true => At::Silence,
                false => after(Body::new(framing), false),
            };
            return Ok(());
        }
        let gathered = match self.terms.swaps_bodies() && self.asks.knows_values() {
            true => Gathered::new(&head, framing),
            false => None,
        };
        let request = Request::new(head, framing, &self.terms.rules);
        match gathered {
            Some(gathered) => {
                self.at = At::Gathering(request.into_owned().into(), gathered.into());
            }
            None => self.send(request, stage),
        }
        Ok(())
    }

    /// Leaves a request out, or what follows one. Its turn is written all the same: so the next one is known not to wait for
    /// an answer to this.
    fn leave_out(&mut self, stage: &mut dyn Stage<Turn = T, Number = N>) {
        self.write_turn(stage);
        self.has_left_out = true;
        stage.leave_out();
    }

    /// A gathered body is whole, or too long.
    fn end_gathering(&mut self, stage: &mut dyn Stage<Turn = T, Number = N>) {
        let At::Gathering(mut request, gathered) = std::mem::replace(&mut self.at, At::Head) else {
            return;
        };
        request.rest = match gathered.body.is_over() {
            true => Rest::Whole(gathered),
            false => Rest::Begun {
                raw: gathered.raw,
                body: gathered.body,
            },
        };
        self.send(*request, stage);
    }

    /// Sends a request with the target's values, or waits for them.
    fn send(&mut self, request: Request<'_>, stage: &mut dyn Stage<Turn = T, Number = N>) {
        let asks = &self.asks;
        let find = |rule: usize, value: &[u8]| asks.find(&request.users, rule, value);
        let mut swap = Swap {
            rules: &self.terms.rules,
            knows: &|value| asks.knows(value),
            find: &find,
            waits: None,
        };
        let mut swapped = match asks.knows_values() {
            true => swap.head(&request.head),
            false => rewrite::Swapped::default(),
        };
        let body = match &request.rest {
            Rest::Whole(gathered) => swap
                .body(gathered.content(), gathered.data())
                .map(|data| gathered.with(data)),
            Rest::Begun { .. } => None,
        };
        if let Some((rule, value)) = swap.waits {
            self.at = At::Waiting(request.into_owned().into(), rule, value);
            return;
        }
        let (body, length) = body.map_or((None, None), |(body, len)| (Some(body), len));
        swapped.length = length;
        self.write_turn(stage);
        self.asks.decide(true);
        stage.play(&rewrite::write(
            &request.head,
            &self.terms.settings,
            &swapped,
        ));
        self.at = match request.rest {
            Rest::Whole(gathered) => {
                stage.play(body.as_deref().unwrap_or(&gathered.raw));
                At::Head
            }
            Rest::Begun { raw, body } => {
                stage.play(&raw);
                after(body, true)
            }
        };
    }

    /// Writes the turn that precedes a request.
    fn write_turn(&mut self, stage: &mut dyn Stage<Turn = T, Number = N>) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let pace = match self.asks.pace() {
            // Nothing is under way at the target, and nothing will come.
            Pace::Counted if self.has_left_out && self.asks.played() == 0 => Pace::Answered,
            pace => pace,
        };
        let number = stage.turn(turn, pace);
        // One that nothing has followed stands for this one too.
        self.waits.pop_back_if(|(last, _)| *last == number);
        if pace == Pace::Told {
            self.waits.push_back((number, self.asks.played()));
        }
    }

    /// Writes a turn within a body: what the client waited for, if anything, is an interim answer.
    fn write_turn_within(&mut self, stage: &mut dyn Stage<Turn = T, Number = N>) {
        let Some(turn) = self.turn.take() else {
            return;
        };
        let pace = match (self.asks.listens(), self.expects) {
            (false, _) => Pace::Counted,
            (true, true) if !self.asks.is_settled() => Pace::Told,
            (true, _) => Pace::Answered,
        };
        let number = stage.turn(turn, pace);
        if pace == Pace::Told {
            self.interim = Some(number);
        }
    }

    fn end(
        &mut self,
        end: ClientEnd,
        turn: Option<T>,
        stage: &mut dyn Stage<Turn = T, Number = N>,
    ) {
        self.hear_turn(turn, stage);
        let is_partial = !self.reader.is_empty() || matches!(self.at, At::Gathering(..));
        let may_tunnel = self.next.may_tunnel() && self.terms.are_open();
        if is_partial && may_tunnel && matches!(self.at, At::Head) {
            self.write_turn(stage);
            stage.play(&self.reader.take());
        } else if is_partial {
            // Half a request is none, and nobody can tell what it would do.
            self.leave_out(stage);
        }
        self.write_turn(stage);
        stage.end(end);
    }
}

#[cfg(test)]
#[path = "player_tests/mod.rs"]
mod tests;
