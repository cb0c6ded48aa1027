//! What was asked and what came of it: requests with the answers of both servers.
//!
//! Both sides answer requests in their order. Where an answer ends says when the next request goes; values that stand at the
//! same place of both answers belong together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::awaited::{Awaited, Values};
use super::book::Book;
use super::head::{Bad, Head};
use super::path::Path;
use super::responses::{Asked, Event, Responses};
use super::settings::TokenRule;
use super::swap::Known;
use super::tokens::Tokens;
use super::users::Users;
use crate::stage::Pace;

/// So many requests may wait for the target; further ones wait with the client's bytes.
const MOST_UNANSWERED: u64 = 512;
/// So many may wait for any server. Nothing holds the live server up: where its answers come later than these, nobody
/// listens to it until the next turn.
const MOST_EXCHANGES: usize = 2048;
/// So many bytes of the live server may precede the requests that they answer, which wait where the client is held back.
const MOST_EARLY: usize = 256 * 1024;

/// So many bytes of values may wait for their counterparts; further ones are not noted.
const MOST_HELD: usize = 1 << 20;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Live,
    Target,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Undecided,
    Played,
    LeftOut,
}

/// A request and its answers.
struct Exchange {
    asked: Asked,
    fate: Fate,
    /// The live server has answered.
    live_over: bool,
    target_over: bool,
    /// Where there are rules.
    tokens: Option<Box<Tokens>>,
}

impl Exchange {
    /// In bytes, without its values.
    fn memory(&self) -> usize {
        self.tokens.as_ref().map_or(0, |tokens| tokens.memory())
    }

    const fn waits_for(&self, server: Server) -> bool {
        match server {
            Server::Live => !self.live_over,
            Server::Target => matches!(self.fate, Fate::Played) && !self.target_over,
        }
    }

    const fn is_over(&self) -> bool {
        self.live_over
            && match self.fate {
                Fate::Undecided => false,
                Fate::Played => self.target_over,
                Fate::LeftOut => true,
            }
    }

    /// Values of the live server that have no counterpart yet.
    fn live_values(&self) -> &Values {
        self.tokens
            .as_ref()
            .map_or(&[], |tokens| &tokens.live.values)
    }
}

/// How well one side is heard.
enum Ear {
    /// Not at all, for good.
    Deaf,
    Hears(Responses),
    /// Not until it is known where an answer begins.
    Lost,
}

impl Ear {
    fn memory(&self) -> usize {
        match self {
            Self::Deaf | Self::Lost => 0,
            Self::Hears(responses) => responses.memory(),
        }
    }
}

/// What the target has said that concerns turns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// An answer has begun, interim or final.
    pub(super) began: bool,
}

/// All of a session.
pub(super) struct Asks {
    rules: Arc<[TokenRule]>,
    queue: VecDeque<Exchange>,
    live: Ear,
    target: Ear,
    book: Book,
    awaited: Awaited,
    /// Bytes of values in all exchanges.
    held: usize,
    /// What the live server has said to requests that have not come yet.
    early: Vec<u8>,
    /// Requests that were played, and those of them that were answered.
    played: u64,
    answered: u64,
    /// The live server has changed the protocol.
    has_tunnel: bool,
}

impl Asks {
    /// `listens`: to the target, and to the live server too where there are rules.
    pub(super) fn new(rules: Arc<[TokenRule]>, book: Book, listens: bool) -> Self {
        let hears = |is_so: bool| match is_so {
            true => Ear::Hears(Responses::default()),
            false => Ear::Deaf,
        };
        Self {
            live: hears(listens && !rules.is_empty()),
            target: hears(listens),
            rules,
            queue: VecDeque::new(),
            book,
            awaited: Awaited::default(),
            held: 0,
            early: Vec::new(),
            played: 0,
            answered: 0,
            has_tunnel: false,
        }
    }

    /// Whether the target is listened to.
    pub(super) const fn listens(&self) -> bool {
        !matches!(self.target, Ear::Deaf)
    }

    /// Whether further requests would be too many.
    pub(super) const fn is_full(&self) -> bool {
        self.played - self.answered >= MOST_UNANSWERED
    }

    pub(super) const fn played(&self) -> u64 {
        self.played
    }

    pub(super) const fn answered(&self) -> u64 {
        self.answered
    }

    /// Whether all that was played is answered, as far as anybody listens.
    pub(super) const fn is_settled(&self) -> bool {
        self.answered >= self.played
    }

    pub(super) const fn has_tunnel(&self) -> bool {
        self.has_tunnel
    }

    /// Whether the live server has answered everything, and speaks HTTP.
    pub(super) fn speaks_on(&self) -> bool {
        let hears = matches!(self.live, Ear::Hears(_));
        hears && !self.has_tunnel && self.queue.iter().all(|it| it.live_over)
    }

    /// What a turn before the next request waits for.
    pub(super) fn pace(&self) -> Pace {
        if !self.listens() {
            return Pace::Counted;
        }
        let live_is_late = matches!(self.live, Ear::Hears(_))
            && self
                .queue
                .iter()
                .any(|it| it.fate != Fate::Undecided && !it.live_over);
        match self.is_settled() {
            true => Pace::Answered,
            // The client did not wait for the whole answer: a pause is no turn.
            false if live_is_late => Pace::Counted,
            false => Pace::Told,
        }
    }

    /// A request has come.
    pub(super) fn ask(&mut self, head: &Head<'_>, path: &Path<'_>) {
        if !self.listens() {
            return;
        }
        if self.queue.len() >= MOST_EXCHANGES {
            self.lose_live();
        }
        let tokens = match self.rules.is_empty() {
            true => None,
            false => Some(Box::new(Tokens::new(&self.rules, head, path))),
        };
        let exchange = Exchange {
            asked: match head.method() {
                b"HEAD" => Asked::Head,
                b"CONNECT" => Asked::Connect,
                _ => Asked::Other,
            },
            fate: Fate::Undecided,
            live_over: !matches!(self.live, Ear::Hears(_)),
            target_over: false,
            tokens,
        };
        self.queue.push_back(exchange);
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.hear_live(&early);
        }
    }

    /// The last request was played, or left out.
    pub(super) fn decide(&mut self, is_played: bool) {
        if is_played {
            self.played += 1;
            if !self.listens() {
                self.answered = self.played;
            }
        }
        let undecided = self.queue.iter_mut().rev();
        let mut undecided = undecided.take_while(|it| it.fate == Fate::Undecided);
        if let Some(exchange) = undecided.next() {
            exchange.fate = match is_played {
                true => Fate::Played,
                false => Fate::LeftOut,
            };
            if exchange.waits_for(Server::Target) {
                self.awaited.add(exchange.live_values());
            }
        }
        self.clear();
    }

    /// Whether a body may hold values.
    pub(super) fn knows_values(&self) -> bool {
        !self.rules.is_empty()
            && (self.queue.iter().any(|it| !it.live_values().is_empty()) || !self.book.is_empty())
    }

    /// Whether a value may be known: by any rule.
    pub(super) fn knows(&self, value: &[u8]) -> bool {
        self.awaited.knows(value) || self.book.knows(value)
    }

    /// Whether the target may yet give another one for it.
    pub(super) fn awaits(&self, rule: usize, value: &[u8]) -> bool {
        self.awaited.has(rule, value)
    }

    /// What is known of a value in a request of these users.
    pub(super) fn find(&self, users: &Users, rule: usize, value: &[u8]) -> Known {
        if self.awaits(rule, value) {
            return Known::NotYet;
        }
        let scope = users.scope(&self.rules, rule);
        self.book
            .find(rule, scope, value)
            .map_or(Known::No, Known::Is)
    }

    /// The target has said this. What cannot be read makes deaf.
    pub(super) fn hear_target(&mut self, bytes: &[u8]) -> Told {
        let mut told = Told::default();
        let Ear::Hears(mut responses) = std::mem::replace(&mut self.target, Ear::Lost) else {
            self.target = Ear::Deaf;
            return told;
        };
        let heard = self.hear(Server::Target, &mut responses, bytes, &mut told);
        match heard {
            Ok(0) => self.target = Ear::Hears(responses),
            Ok(_) | Err(_) => self.stop_listening(),
        }
        self.clear();
        told
    }

    /// The live server has said this. What answers nothing yet is kept for a while: the client may be held back.
    pub(super) fn hear_live(&mut self, bytes: &[u8]) {
        if matches!(self.live, Ear::Deaf) {
            return;
        }
        if !self.early.is_empty() {
            return self.keep_early(bytes);
        }
        let Ear::Hears(mut responses) = std::mem::replace(&mut self.live, Ear::Lost) else {
            return;
        };
        let heard = self.hear(Server::Live, &mut responses, bytes, &mut Told::default());
        self.live = Ear::Hears(responses);
        match heard {
            Ok(_) if self.has_tunnel => {}
            Ok(left) => self.keep_early(bytes.get(bytes.len() - left..).unwrap_or_default()),
            Err(_) => self.lose_live(),
        }
        self.clear();
    }

    /// In bytes, besides itself.
    pub(super) fn memory(&self) -> usize {
        let exchanges = self.queue.capacity() * size_of::<Exchange>();
        let ears = self.live.memory() + self.target.memory();
        let values = match self.rules.is_empty() {
            true => 0,
            false => {
                let each = self.queue.iter().map(Exchange::memory);
                let known = self.awaited.memory() + self.book.memory();
                self.held + each.sum::<usize>() + known
            }
        };
        exchanges + ears + values + self.early.capacity()
    }

    fn keep_early(&mut self, bytes: &[u8]) {
        match self.early.len() + bytes.len() > MOST_EARLY {
            true => self.lose_live(),
            false => self.early.extend_from_slice(bytes),
        }
    }

    /// What the live server has said so far answers requests that are not played here.
    pub(super) fn forget_early(&mut self) {
        self.early.clear();
    }

    /// What the live server says is not understood until the next turn.
    pub(super) fn lose_live(&mut self) {
        if !matches!(self.live, Ear::Deaf) {
            self.live = Ear::Lost;
            self.early = Vec::new();
            for exchange in &mut self.queue {
                exchange.live_over = true;
                if let Some(tokens) = &mut exchange.tokens {
                    tokens.live.scan = None;
                }
            }
            self.clear();
        }
    }

    /// The client has waited for an answer: the live server's next byte begins one.
    pub(super) fn find_live(&mut self) {
        if matches!(self.live, Ear::Lost) {
            self.live = Ear::Hears(Responses::default());
        }
    }

    /// The target says nothing more that matters.
    pub(super) fn stop_listening(&mut self) {
        (self.target, self.live) = (Ear::Deaf, Ear::Deaf);
        self.early = Vec::new();
        self.awaited.clear();
        self.held = 0;
        for mut tokens in self.queue.drain(..).filter_map(|it| it.tokens) {
            tokens.pair(&self.rules, &mut self.book);
        }
        self.answered = self.played;
    }

    /// Reads a piece of one side; gives how many bytes answer nothing.
    fn hear(
        &mut self,
        server: Server,
        responses: &mut Responses,
        bytes: &[u8],
        told: &mut Told,
    ) -> Result<usize, Bad> {
        let mut left = bytes;
        while !left.is_empty() {
            let waiting = self.queue.iter_mut().find(|it| it.waits_for(server));
            let Some(exchange) = waiting else {
                return Ok(left.len());
            };
            let (taken, event) = responses.read(left, exchange.asked, !self.rules.is_empty())?;
            left = left.get(taken..).unwrap_or_default();
            let over = match &event {
                Event::More => continue,
                Event::Interim => {
                    told.began = true;
                    continue;
                }
                Event::Head { over, .. } => {
                    told.began = true;
                    *over
                }
                Event::Data { over, .. } => *over,
                Event::Tunnel => {
                    told.began = true;
                    return self.hear_tunnel(server);
                }
            };
            if let Some(tokens) = &mut exchange.tokens {
                let most = MOST_HELD.saturating_sub(self.held);
                let new = tokens.hear(&self.rules, server, event, most);
                self.held += new.bytes;
                if server == Server::Live && exchange.fate == Fate::Played && !exchange.target_over
                {
                    self.awaited
                        .add(tokens.live.values.get(new.from..).unwrap_or_default());
                }
            }
            match (over, server) {
                (false, _) => {}
                (true, Server::Live) => exchange.live_over = true,
                (true, Server::Target) => {
                    exchange.target_over = true;
                    self.answered += 1;
                    self.awaited.remove(exchange.live_values());
                }
            }
            if let Some(tokens) = exchange.tokens.as_mut().filter(|_| exchange.target_over) {
                tokens.pair(&self.rules, &mut self.book);
            }
        }
        Ok(0)
    }

    fn hear_tunnel(&mut self, server: Server) -> Result<usize, Bad> {
        match server {
            Server::Live => {
                self.has_tunnel = true;
                for exchange in &mut self.queue {
                    exchange.live_over = true;
                }
                Ok(0)
            }
            // Nothing that follows is a response.
            Server::Target => Err(Bad::form("the target changes the protocol")),
        }
    }

    fn clear(&mut self) {
        while let Some(over) = self.queue.pop_front_if(|it| it.is_over()) {
            let held = over.tokens.map_or(0, |tokens| tokens.held);
            self.held = self.held.saturating_sub(held);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadReader;
    use super::super::settings::Settings;
    use super::*;

    fn asks() -> Asks {
        let rules = Settings::parse("[[token]]\nfrom = 'body'\nafter = '<'\nbefore = '>'");
        let rules = rules.unwrap().token.into();
        Asks::new(rules, Book::new(Arc::default()), true)
    }

    fn ask(asks: &mut Asks) {
        let text = b"GET / HTTP/1.1\r\n\r\n";
        let (_, head) = HeadReader::default().read(text).unwrap();
        let head = head.unwrap();
        asks.ask(&head, &Path::of(&head));
        asks.decide(true);
    }

    #[test]
    fn what_the_live_server_says_too_early_is_kept_up_to_a_bound() {
        let mut asks = asks();
        for _ in 0..100 {
            asks.hear_live(&[b'x'; 16 * 1024]);
            assert!(asks.early.len() <= MOST_EARLY);
        }
        assert!(matches!(asks.live, Ear::Lost));
        asks.find_live();
        ask(&mut asks);
        assert!(!asks.speaks_on());
        asks.hear_live(b"HTTP/1.1 204 x\r\n\r\n");
        assert!(asks.speaks_on());
    }

    #[test]
    fn a_live_server_that_never_answers_costs_no_more_than_so_many_requests() {
        let mut asks = asks();
        for _ in 0..3 * MOST_EXCHANGES {
            ask(&mut asks);
            asks.hear_target(b"HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\n<a>");
            assert!(asks.queue.len() <= MOST_EXCHANGES);
            assert!(!asks.is_full() && asks.is_settled());
        }
    }

    #[test]
    fn a_target_that_answers_what_was_not_asked_is_not_heard_any_more() {
        let mut asks = asks();
        ask(&mut asks);
        asks.hear_target(b"HTTP/1.1 204 x\r\n\r\n");
        assert!(asks.listens());
        asks.hear_target(b"HTTP/1.1 408 x\r\n\r\n");
        assert!(!asks.listens() && asks.is_settled());
    }
}
