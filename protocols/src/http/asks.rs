//! What was asked and what came of it: requests with the answers of both servers.
//!
//! Both sides answer requests in their order. Where an answer ends says when the next request goes; values that stand at the
//! same place of both answers belong together.

use std::collections::VecDeque;
use std::sync::Arc;

use super::awaited::{self, Awaited};
use super::book::Book;
use super::head::{Bad, Head};
use super::responses::{Asked, Event, ResponseHead, Responses};
use super::scan::{self, Scan};
use super::settings::TokenRule;
use super::swap::{Known, decode};
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

/// What one server has answered to a request.
#[derive(Default)]
struct Answer {
    is_over: bool,
    /// Values that have no counterpart yet, by their rules.
    values: Vec<(usize, Vec<u8>)>,
    scan: Option<Scan>,
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
    /// Rules that look for values in its answers.
    rules: Vec<usize>,
    /// Whose it is, for each rule that tells users apart.
    users: Users,
    live: Answer,
    target: Answer,
    /// Bytes of their values.
    held: usize,
}

impl Exchange {
    /// In bytes, without its values.
    fn memory(&self) -> usize {
        let scans = [&self.live, &self.target].map(|it| it.scan.as_ref().map_or(0, Scan::memory));
        let rules = self.rules.capacity() * size_of::<usize>();
        rules + self.users.memory() + scans.iter().sum::<usize>()
    }

    const fn answer(&mut self, server: Server) -> &mut Answer {
        match server {
            Server::Live => &mut self.live,
            Server::Target => &mut self.target,
        }
    }

    fn waits_for(&self, server: Server) -> bool {
        match server {
            Server::Live => !self.live.is_over,
            Server::Target => self.fate == Fate::Played && !self.target.is_over,
        }
    }

    fn is_over(&self) -> bool {
        self.live.is_over
            && match self.fate {
                Fate::Undecided => false,
                Fate::Played => self.target.is_over,
                Fate::LeftOut => true,
            }
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
        hears && !self.has_tunnel && self.queue.iter().all(|it| it.live.is_over)
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
                .any(|it| it.fate != Fate::Undecided && !it.live.is_over);
        match self.is_settled() {
            true => Pace::Answered,
            // The client did not wait for the whole answer: a pause is no turn.
            false if live_is_late => Pace::Counted,
            false => Pace::Told,
        }
    }

    /// A request has come.
    pub(super) fn ask(&mut self, head: &Head, path: &str) {
        if !self.listens() {
            return;
        }
        if self.queue.len() >= MOST_EXCHANGES {
            self.lose_live();
        }
        let rules = self.rules.iter().enumerate();
        let rules = rules.filter(|(_, rule)| {
            rule.on
                .as_ref()
                .is_none_or(|selector| selector.chooses(head, path))
        });
        let mut exchange = Exchange {
            asked: match head.method() {
                b"HEAD" => Asked::Head,
                b"CONNECT" => Asked::Connect,
                _ => Asked::Other,
            },
            fate: Fate::Undecided,
            rules: rules.map(|(number, _)| number).collect(),
            users: Users::of(head, &self.rules),
            live: Answer::default(),
            target: Answer::default(),
            held: 0,
        };
        exchange.live.is_over = !matches!(self.live, Ear::Hears(_));
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
                self.awaited.add(&exchange.live.values);
            }
        }
        self.clear();
    }

    /// Whether a body may hold values.
    pub(super) fn knows_values(&self) -> bool {
        !self.rules.is_empty()
            && (self.queue.iter().any(|it| !it.live.values.is_empty()) || !self.book.is_empty())
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
        let each = self.queue.iter().map(Exchange::memory);
        let exchanges = self.queue.capacity() * size_of::<Exchange>() + each.sum::<usize>();
        let ears = self.live.memory() + self.target.memory();
        let values = self.held + self.awaited.memory() + self.book.memory();
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
                exchange.live.is_over = true;
                exchange.live.scan = None;
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
        for mut exchange in self.queue.drain(..) {
            exchange.pair(&self.rules, &mut self.book);
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
            let rules = self.rules.clone();
            let waiting = self.queue.iter_mut().find(|it| it.waits_for(server));
            let Some(exchange) = waiting else {
                return Ok(left.len());
            };
            let before = exchange.answer(server).values.len();
            let (taken, event) = responses.read(left, exchange.asked)?;
            left = left.get(taken..).unwrap_or_default();
            let over = match event {
                Event::More => continue,
                Event::Interim => {
                    told.began = true;
                    continue;
                }
                Event::Head { head, over } => {
                    told.began = true;
                    exchange.hear_head(server, &rules, &head);
                    over
                }
                Event::Data { data, over } => {
                    let answer = exchange.answer(server);
                    if let Some(scan) = &mut answer.scan {
                        answer.values.extend(scan.read(&rules, data, over));
                    }
                    over
                }
                Event::Tunnel => {
                    told.began = true;
                    return self.hear_tunnel(server);
                }
            };
            let is_awaited = server == Server::Live && exchange.waits_for(Server::Target);
            let values = &mut exchange.answer(server).values;
            let new = values.get(before..).unwrap_or_default();
            let bytes = awaited::bytes_of(new);
            if self.held + bytes > MOST_HELD {
                values.truncate(before);
            } else {
                if is_awaited {
                    self.awaited.add(new);
                }
                self.held += bytes;
                exchange.held += bytes;
            }
            if over {
                let answer = exchange.answer(server);
                (answer.is_over, answer.scan) = (true, None);
                if server == Server::Target {
                    self.answered += 1;
                    self.awaited.remove(&exchange.live.values);
                }
            }
            if exchange.target.is_over {
                exchange.pair(&rules, &mut self.book);
            }
        }
        Ok(0)
    }

    fn hear_tunnel(&mut self, server: Server) -> Result<usize, Bad> {
        match server {
            Server::Live => {
                self.has_tunnel = true;
                for exchange in &mut self.queue {
                    exchange.live.is_over = true;
                }
                Ok(0)
            }
            // Nothing that follows is a response.
            Server::Target => Err(Bad::form("the target changes the protocol")),
        }
    }

    fn clear(&mut self) {
        while let Some(over) = self.queue.pop_front_if(|it| it.is_over()) {
            self.held = self.held.saturating_sub(over.held);
        }
    }
}

impl Exchange {
    fn hear_head(&mut self, server: Server, rules: &[TokenRule], head: &ResponseHead) {
        let mut values = Vec::new();
        for number in &self.rules {
            let value = rules
                .get(*number)
                .and_then(|rule| scan::in_head(rule, head));
            values.extend(value.map(|value| (*number, value)));
        }
        let scan = Scan::new(rules, head, |number| self.rules.contains(&number));
        let answer = self.answer(server);
        answer.values.extend(values);
        answer.scan = scan;
    }

    /// Values that both servers have given belong together.
    fn pair(&mut self, rules: &[TokenRule], book: &mut Book) {
        let Self {
            live,
            target,
            users,
            ..
        } = self;
        live.values.retain(|(rule, value)| {
            let other = target.values.iter().position(|(it, _)| it == rule);
            let Some(other) = other.map(|at| target.values.swap_remove(at).1) else {
                return true;
            };
            let scope = users.scope(rules, *rule);
            book.note(*rule, scope, value, &other);
            // Scripts of pages hand the value of an encoded cookie back as it was before.
            let plain = decode(value, false);
            if plain != *value {
                book.note(*rule, scope, &plain, &decode(&other, false));
            }
            false
        });
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
        asks.ask(&head.unwrap(), "/");
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
