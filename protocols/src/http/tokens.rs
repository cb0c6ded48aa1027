//! The values of one request's answers, which rules look for.

use super::asks::Server;
use super::awaited;
use super::book::Book;
use super::head::Head;
use super::path::Path;
use super::responses::{Event, ResponseHead};
use super::scan::{self, Scan};
use super::settings::TokenRule;
use super::swap::decode;
use super::users::Users;

/// What one server has answered.
#[derive(Default)]
pub(super) struct Answer {
    /// Values that have no counterpart yet, by their rules.
    pub(super) values: Vec<(usize, Vec<u8>)>,
    pub(super) scan: Option<Scan>,
}

/// The values of both servers' answers to a request.
pub(super) struct Tokens {
    /// Rules that look for values in them.
    rules: Vec<usize>,
    /// Whose the request is, for each rule that tells users apart.
    users: Users,
    pub(super) live: Answer,
    target: Answer,
    /// Bytes of all values that were noted.
    pub(super) held: usize,
}

/// Values that were found: where they begin among those of their server, and their bytes.
pub(super) struct New {
    pub(super) from: usize,
    pub(super) bytes: usize,
}

impl Tokens {
    pub(super) fn new(rules: &[TokenRule], head: &Head<'_>, path: &Path<'_>) -> Self {
        let chosen = rules.iter().enumerate().filter(|(_, rule)| {
            rule.on
                .as_ref()
                .is_none_or(|selector| selector.chooses(head, path.get()))
        });
        Self {
            rules: chosen.map(|(number, _)| number).collect(),
            users: Users::of(head, rules),
            live: Answer::default(),
            target: Answer::default(),
            held: 0,
        }
    }

    /// In bytes, without its values.
    pub(super) fn memory(&self) -> usize {
        let scans = [&self.live, &self.target].map(|it| it.scan.as_ref().map_or(0, Scan::memory));
        let rules = self.rules.capacity() * size_of::<usize>();
        size_of::<Self>() + rules + self.users.memory() + scans.iter().sum::<usize>()
    }

    /// Looks for values in what a server has answered. Those that take more than `most` bytes are not noted.
    pub(super) fn hear(
        &mut self,
        rules: &[TokenRule],
        server: Server,
        event: Event<'_>,
        most: usize,
    ) -> New {
        let answer = match server {
            Server::Live => &mut self.live,
            Server::Target => &mut self.target,
        };
        let from = answer.values.len();
        let is_over = match event {
            Event::Head { head, over } => {
                answer.hear_head(rules, &self.rules, &head);
                over
            }
            Event::Data { data, over } => {
                if let Some(scan) = &mut answer.scan {
                    answer.values.extend(scan.read(rules, data, over));
                }
                over
            }
            Event::More | Event::Interim | Event::Tunnel => false,
        };
        let mut bytes = awaited::bytes_of(answer.values.get(from..).unwrap_or_default());
        if bytes > most {
            answer.values.truncate(from);
            bytes = 0;
        }
        if is_over {
            answer.scan = None;
        }
        self.held += bytes;
        New { from, bytes }
    }

    /// Values that both servers have given belong together.
    pub(super) fn pair(&mut self, rules: &[TokenRule], book: &mut Book) {
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

impl Answer {
    fn hear_head(&mut self, rules: &[TokenRule], chosen: &[usize], head: &ResponseHead) {
        for number in chosen {
            let value = rules
                .get(*number)
                .and_then(|rule| scan::in_head(rule, head));
            self.values.extend(value.map(|value| (*number, value)));
        }
        self.scan = Scan::new(rules, head, |number| chosen.contains(&number));
    }
}
