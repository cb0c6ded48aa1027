//! Whether a statement writes.
//!
//! Only what surely reads is a read: a word that is not known here writes, and so does a text of which only the beginning is
//! known, or which is not plain. What functions do that a `SELECT` calls cannot be seen; rules may deny them.

use super::tokens::Token;

/// One statement.
#[derive(Default)]
pub(super) struct Statement {
    reading: Reading,
    /// So many parentheses are open.
    depth: usize,
    /// It has a word that may prepare statements, by itself or in a procedure.
    pub(super) may_prepare: bool,
    /// It has a word that may ask the client for a file.
    pub(super) loads: bool,
}

impl Statement {
    pub(super) fn add(&mut self, token: Token<'_>) {
        match token {
            Token::Sign(b'(') => self.depth += 1,
            Token::Sign(b')') => self.depth = self.depth.saturating_sub(1),
            Token::Sign(b',') if self.depth == 0 => self.reading.comma(),
            Token::Word(word) => {
                self.may_prepare |= is_in(&PREPARES, word);
                self.loads |= is(word, b"LOAD");
                self.reading.add(word, self.depth == 0);
            }
            Token::Value | Token::Sign(_) | Token::Opens(_) | Token::Closes => {}
        }
    }

    /// Whether it may change anything but its own session.
    pub(super) const fn writes(&self) -> bool {
        self.reading.writes()
    }
}

/// What the words of a statement say so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    /// There is none.
    #[default]
    Empty,
    Reads,
    Writes,
    /// The next word decides.
    After(First),
    /// What is not yet known to read, or is explained and not executed.
    With,
    Set,
    Begin,
    Explain,
    /// Executed to be explained.
    Analyze,
}

/// A first word that alone says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Set,
    Start,
    Release,
    Explain,
}

#[derive(Default)]
struct Reading {
    kind: Kind,
    /// The last word was the first of a pair that writes.
    pair: Option<&'static [&'static [u8]]>,
}

/// Words of what may prepare statements.
const PREPARES: [&[u8]; 3] = [b"PREPARE", b"EXECUTE", b"CALL"];
/// Words that change nothing but the session.
const READS: [&[u8]; 9] = [
    b"SELECT",
    b"TABLE",
    b"VALUES",
    b"SHOW",
    b"HELP",
    b"USE",
    b"COMMIT",
    b"ROLLBACK",
    b"SAVEPOINT",
];
/// Other first words of a statement that goes on with what it does.
const VERBS: [&[u8]; 4] = [b"INSERT", b"UPDATE", b"DELETE", b"REPLACE"];
/// What makes a write of anything, the second word behind the first: files, locks, sequences.
const PAIRS: [(&[u8], &[&[u8]]); 3] = [
    (b"INTO", &[b"OUTFILE", b"DUMPFILE"]),
    (b"FOR", &[b"UPDATE"]),
    (b"NEXT", &[b"VALUE"]),
];
const SEQUENCES: [&[u8]; 2] = [b"NEXTVAL", b"SETVAL"];
/// What a SET changes beyond its session.
const GLOBALS: [&[u8]; 3] = [b"GLOBAL", b"PERSIST", b"PERSIST_ONLY"];
/// What is no SET of a variable, though it begins like one.
const OTHER_SETS: [&[u8]; 4] = [b"PASSWORD", b"DEFAULT", b"STATEMENT", b"RESOURCE"];

impl Reading {
    /// Whether the statement, which ends here, writes.
    const fn writes(&self) -> bool {
        matches!(
            self.kind,
            Kind::Writes | Kind::With | Kind::After(First::Start | First::Release)
        )
    }

    /// What follows is assigned as what came first.
    const fn comma(&mut self) {
        if matches!(self.kind, Kind::Set) {
            self.kind = Kind::After(First::Set);
        }
    }

    fn add(&mut self, word: &[u8], is_outermost: bool) {
        let is_pair = self.pair.take().is_some_and(|second| is_in(second, word));
        self.pair = PAIRS
            .iter()
            .find(|(first, _)| is(word, first))
            .map(|(_, second)| *second);
        self.kind = match self.kind {
            _ if is_pair || is_in(&SEQUENCES, word) => Kind::Writes,
            Kind::Empty => first(word),
            Kind::After(first) => second(first, word),
            Kind::Set if is_global(word) => Kind::Writes,
            Kind::With if is_outermost && is_in(&VERBS, word) => Kind::Writes,
            Kind::With if is_outermost && is(word, b"SELECT") => Kind::Reads,
            Kind::Begin if !is(word, b"WORK") => Kind::Writes,
            Kind::Analyze if is_in(&VERBS, word) => Kind::Writes,
            same => same,
        };
    }
}

fn first(word: &[u8]) -> Kind {
    match word.to_ascii_uppercase().as_slice() {
        word if READS.contains(&word) => Kind::Reads,
        b"SET" => Kind::After(First::Set),
        b"START" => Kind::After(First::Start),
        b"RELEASE" => Kind::After(First::Release),
        b"DESC" | b"DESCRIBE" | b"EXPLAIN" => Kind::After(First::Explain),
        b"BEGIN" => Kind::Begin,
        b"WITH" => Kind::With,
        _ => Kind::Writes,
    }
}

fn second(first: First, word: &[u8]) -> Kind {
    match first {
        First::Set if is_in(&OTHER_SETS, word) || is_global(word) => Kind::Writes,
        First::Set => Kind::Set,
        First::Start if is(word, b"TRANSACTION") => Kind::Reads,
        First::Release if is(word, b"SAVEPOINT") => Kind::Reads,
        First::Start | First::Release => Kind::Writes,
        First::Explain if is(word, b"ANALYZE") => Kind::Analyze,
        First::Explain => Kind::Explain,
    }
}

/// Whether a word of a SET names what is beyond the session: `GLOBAL`, `@@global`.
fn is_global(word: &[u8]) -> bool {
    is_in(&GLOBALS, word.strip_prefix(b"@@").unwrap_or(word))
}

const fn is(word: &[u8], name: &[u8]) -> bool {
    word.eq_ignore_ascii_case(name)
}

fn is_in(words: &[&[u8]], word: &[u8]) -> bool {
    words.iter().any(|it| is(word, it))
}
