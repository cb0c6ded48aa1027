//! Whether a statement writes.
//!
//! Only what surely reads is a read: a word that is not known here writes, and so does a text of which only the beginning is
//! known. What functions do that a `SELECT` calls cannot be seen; rules may deny them.

use super::tokens::{Escapes, Token, Tokens};

/// Whether any statement of a text may change anything but its own session.
pub(super) fn writes(text: &[u8]) -> bool {
    let with = |escapes| any_writes(Tokens::new(text, escapes));
    // Where strings end depends on the session's sql_mode: what writes in either reading does.
    let is_doubtful = text
        .windows(2)
        .any(|it| matches!(it, [b'\\', b'\'' | b'"']));
    with(Escapes::Backslash) || (is_doubtful && with(Escapes::None))
}

/// Whether a text has a statement that may ask the client for a file.
pub(super) fn loads(text: &[u8]) -> bool {
    mentions(text, &[b"LOAD"])
}

/// Whether a text may prepare statements, by itself or in a procedure.
pub(super) fn may_prepare(text: &[u8]) -> bool {
    mentions(text, &[b"PREPARE", b"EXECUTE", b"CALL"])
}

fn mentions(text: &[u8], words: &[&[u8]]) -> bool {
    let mut tokens = Tokens::new(text, Escapes::Backslash);
    tokens.any(|token| matches!(token, Token::Word(word) if is_in(words, word)))
}

fn any_writes(tokens: Tokens<'_>) -> bool {
    let mut statement = Statement::default();
    let mut is_inside = false;
    for token in tokens {
        match token {
            Token::Opens(_) => is_inside = true,
            Token::Closes => is_inside = false,
            Token::Sign(b';') => {
                if statement.writes() {
                    return true;
                }
                statement = Statement::default();
            }
            Token::Sign(b'(') => statement.depth += 1,
            Token::Sign(b')') => statement.depth = statement.depth.saturating_sub(1),
            Token::Word(word) => statement.add(word, is_inside),
            Token::Value | Token::Sign(_) => {}
        }
    }
    statement.writes()
}

/// One statement. Servers execute comments that are for their version, and not the others: both readings are tried.
#[derive(Default)]
struct Statement {
    /// With what stands in such comments.
    whole: Reading,
    /// Without it.
    plain: Reading,
    /// So many parentheses are open.
    depth: usize,
}

impl Statement {
    fn add(&mut self, word: &[u8], is_inside: bool) {
        let is_outermost = self.depth == 0;
        self.whole.add(word, is_outermost);
        if !is_inside {
            self.plain.add(word, is_outermost);
        }
    }

    const fn writes(&self) -> bool {
        self.whole.writes() || self.plain.writes()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_surely_reads_is_no_write() {
        for text in [
            "SELECT 1",
            "select a into @x from t; ;",
            "(SELECT 1) UNION (SELECT 2)",
            "SHOW TABLES; use shop; DESC t; explain delete from t",
            "EXPLAIN ANALYZE SELECT 1",
            "/* c */ -- d\n # e\n SELECT 1",
            "SET NAMES utf8mb4; SET autocommit=0, sql_mode=DEFAULT; SET @@session.x = 1",
            "BEGIN; COMMIT; begin work; ROLLBACK TO a; SAVEPOINT a; RELEASE SAVEPOINT a",
            "START TRANSACTION READ ONLY",
            "WITH a AS (SELECT 1), b AS (DELETE) SELECT * FROM a",
            "SELECT 'x; DELETE FROM t', \"; DROP\", `; DROP`, 'it\\'s'",
            "SELECT /*!40001 SQL_NO_CACHE */ a FROM t",
            "/*!40101 SET NAMES utf8 */",
            "SELECT a AS outfile FROM t LOCK IN SHARE MODE",
            "",
        ] {
            assert!(!writes(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_may_write_is_a_write() {
        for text in [
            "INSERT INTO t SELECT 1",
            "SELECT 1; DELETE FROM t",
            "SELECT a INTO OUTFILE '/tmp/x' FROM t",
            "SELECT a FROM t for  update",
            "SELECT nextval(s), 1",
            "SELECT NEXT VALUE FOR s",
            "CALL p()",
            "DO sleep(1)",
            "frobnicate",
            "SET GLOBAL a=1",
            "SET a=1, @@Persist.b=2",
            "SET PASSWORD = 'x'",
            "SET STATEMENT max_statement_time=1 FOR DELETE FROM t",
            "START SLAVE",
            "BEGIN NOT ATOMIC DELETE FROM t; END",
            "WITH a AS (SELECT 1) DELETE FROM t",
            "EXPLAIN ANALYZE UPDATE a, b SET x = 1",
            "/*!50000 DELETE */ FROM t",
            "/*!99999 SELECT */ DELETE FROM t",
            "SELECT 1 /*! INTO OUTFILE 'x' */",
            "PREPARE a FROM 'DELETE FROM t'",
            // Where a backslash is a character as any other.
            "SELECT '\\'; DELETE FROM t; -- '",
        ] {
            assert!(writes(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_may_ask_for_a_file_is_known() {
        assert!(loads(b"load data local infile 'x' into table t"));
        assert!(loads(b"SELECT 1; /*! LOAD */ DATA"));
        assert!(!loads(b"SELECT 'LOAD'"));
    }

    proptest! {
        #[test]
        fn any_text_has_a_class(text in prop::collection::vec(prop_oneof![
            any::<u8>(), prop::sample::select(b"/*!-'\"`\\ ();".to_vec()),
        ], 0..200)) {
            writes(&text);
        }
    }
}
