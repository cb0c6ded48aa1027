use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::writes::{Ledger, Rules};

fn guard(allow: &[&str]) -> WriteGuard {
    let rules = Rules {
        read_only: true,
        allow: allow.iter().map(|it| it.parse().unwrap()).collect(),
        deny: Vec::new(),
    };
    WriteGuard::new(Arc::new(rules), Arc::new(Ledger::default()))
}

fn writes(text: &[u8]) -> bool {
    !Judged::of(text, true).permits(&guard(&[]))
}

fn is_doubtful(text: &[u8]) -> bool {
    Judged::of(text, true).doubtful.is_some()
}

#[test]
fn what_surely_reads_is_no_write() {
    for text in [
        "SELECT 1",
        "SELECT 'José'",
        "select a into @x from t; ;",
        "(SELECT 1) UNION (SELECT 2)",
        "SHOW TABLES; use shop; DESC t; explain delete from t",
        "EXPLAIN ANALYZE SELECT 1",
        "/* c */ -- d\n # e\n SELECT 1",
        "SET NAMES utf8mb4; SET autocommit=0, sql_mode=DEFAULT; SET @@session.x = 1",
        "SET @a=password('x', 1), @b = DEFAULT",
        "BEGIN; COMMIT; begin work; ROLLBACK TO a; SAVEPOINT a; RELEASE SAVEPOINT a",
        "START TRANSACTION READ ONLY",
        "WITH a AS (SELECT 1), b AS (DELETE) SELECT * FROM a",
        "SELECT 'x; DELETE FROM t', \"; DROP\", `; DROP`, 'it''s', 'a\\n%', '\u{e4}x'",
        "SELECT /*!40001 SQL_NO_CACHE */ a FROM t",
        "SELECT /*+ MAX_EXECUTION_TIME(9) */ 1 -- \u{e4}\n + 1.5e-3 + .5 + 1. + 0xFF + 0b1 --",
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
        "SET @a=1, PASSWORD FOR x@localhost = PASSWORD('y')",
        "SET @a=1, DEFAULT ROLE r FOR x@localhost",
        "SET @a=1, GLOBAL x=1",
        "SET @a=f(1, 2), @b=(1), Password = 'x'",
        "SET STATEMENT max_statement_time=1 FOR DELETE FROM t",
        "START SLAVE",
        "BEGIN NOT ATOMIC DELETE FROM t; END",
        "WITH a AS (SELECT 1) DELETE FROM t",
        "EXPLAIN ANALYZE UPDATE a, b SET x = 1",
        "PREPARE a FROM 'DELETE FROM t'",
    ] {
        assert!(writes(text.as_bytes()), "{text}");
        assert!(!is_doubtful(text.as_bytes()), "{text}");
    }
}

/// Most of these deleted rows of a server, or may.
#[test]
fn what_is_not_plain_is_doubtful_and_a_write() {
    let texts: [&[u8]; 48] = [
        b"SELECT $$ ' $$ ; DELETE FROM t -- '",
        b"SELECT $a$ ' $a$ ; DELETE FROM t -- '",
        b"SELECT @@$$ ' $$ ; DELETE FROM t -- '",
        b"/*!50000 DELETE */ FROM t",
        b"/*!99999 SELECT */ DELETE FROM t",
        b"SELECT 1 /*! INTO OUTFILE 'x' */",
        b"/*!40101 SET NAMES utf8 */",
        b"/*!999999 -- */ DELETE FROM t",
        b"/*!999999 ' */ DELETE FROM t -- '",
        b"/*!999999 SELECT */ /*!50000 DELETE FROM t */",
        b"/*M!999999 SELECT */ DELETE FROM t",
        b"/*!40001 SQL_NO_CACHE */ SELECT 1",
        b"SELECT /* /*! */ 1",
        b"SELECT 1 -- /*!",
        b"SELECT '/*!'",
        b"SELECT /*+ QB_NAME(`*/ ' `) */ 1 -- '",
        b"SELECT '\\'; DELETE FROM t; -- '",
        b"SELECT '\\'', '\xBF\\' ; DELETE FROM t -- '",
        b"SELECT '\xBF\\n'",
        b"SELECT '\xBF\\\\' ; DELETE FROM t -- '",
        b"SELECT 'a\\\\'",
        b"SELECT 1 AS `\xBF` ; DELETE FROM t -- `",
        b"SELECT 1 AS \xBF` ; DELETE FROM t -- `",
        b"SELECT '\\'' , 1 AS \"\\\" ; DELETE FROM t -- \"",
        b"SELECT 1 AS \"\\\" ; DELETE FROM t -- \"",
        b"SELECT \"a\\n\"",
        b"SELECT \"it's\"",
        b"SELECT \"a`\"",
        b"SELECT `a\\b`",
        b"--\x7f'\nDELETE FROM t -- '",
        b"--\x01'\nDELETE FROM t -- '",
        b"SELECT * FROM t INTO\xA0OUTFILE '/tmp/x'",
        b"SELECT * FROM t FOR\xA0UPDATE",
        b"SELECT 1 AS \xC3\xA4",
        b"SELECT\x0b1",
        b"SELECT 1\0",
        b"SELECT 'a\0'",
        b"# a\0\nSELECT 1",
        b"SELECT a, 1e5INTO OUTFILE '/x'",
        b"SELECT a, .5INTO OUTFILE '/x'",
        b"SELECT a, 1.5INTO OUTFILE '/x'",
        b"SELECT a, 1.INTO OUTFILE '/x'",
        b"SELECT a, 0x1FINTO OUTFILE '/x'",
        b"SELECT a FROM t WHERE a=1e5FOR UPDATE",
        b"SELECT \\NINTO OUTFILE '/x'",
        b"SELECT 'unended",
        b"SELECT /* unended",
        b"SELECT 1e",
    ];
    for text in texts {
        let shown = String::from_utf8_lossy(text);
        assert!(is_doubtful(text), "{shown}");
        assert!(writes(text), "{shown}");
        assert!(!Judged::of(text, true).permits(&guard(&["*"])), "{shown}");
    }
}

#[test]
fn a_doubt_is_shown_without_what_is_in_it() {
    for (text, expected) in [
        ("SELECT 'a', 'secret\\'' FROM t", "SELECT ?, ..."),
        (
            "SELECT 1; SELECT a FROM /*! x */ t",
            "SELECT ?; SELECT a FROM ...",
        ),
        ("SELECT 1e5secret", "SELECT ..."),
        ("/*! secret */", "..."),
    ] {
        assert_eq!(Judged::of(text.as_bytes(), true).digests(), [expected]);
    }
    assert_eq!(Judged::of(b"SELECT 1", false).digests(), ["SELECT ? ..."]);
    assert_eq!(Judged::of(b"SELECT 'secr", false).digests(), ["SELECT ..."]);
}

#[test]
fn each_statement_of_a_text_needs_its_permission() {
    let allowed = guard(&["INSERT INTO log*"]);
    let permits = |text: &[u8], is_whole| Judged::of(text, is_whole).permits(&allowed);
    assert!(permits(b"SELECT 1; INSERT INTO log VALUES (1); ;", true));
    assert!(!permits(b"INSERT INTO log VALUES (1); DELETE FROM t", true));
    assert!(!permits(b"INSERT INTO log VALUES (1), ", false));
    assert!(!permits(b"SELECT 1", false));
    let prepared = |text: &[u8]| Judged::of_prepared(text, true).may_be_sent(&allowed);
    assert!(prepared(b"INSERT INTO log VALUES (?);"));
    assert!(!prepared(b"SELECT 1; SELECT 2"));
}

#[test]
fn what_is_kept_of_a_prepare_is_short_and_nothing_shows_its_values() {
    let many = Judged::of_prepared(&b"a;".repeat(10_000), true);
    assert_eq!((many.statements.len(), many.statements.capacity()), (1, 1));
    let many = [&b"a;".repeat(10_000)[..], b"'"].concat();
    assert!(Judged::of_prepared(&many, true).memory() < 2 * LONGEST);
    let secret = Judged::of(b"SELECT '\\'', secret", true);
    assert_eq!(format!("{secret:?}"), "Judged([\"SELECT ...\"])");
}

#[test]
fn what_may_ask_for_a_file_or_prepare_is_known() {
    let of = |text: &[u8]| Judged::of(text, true);
    assert!(of(b"load data local infile 'x' into table t").loads);
    assert!(of(b"SELECT 1; /*! LOAD */ DATA").loads);
    assert!(!of(b"SELECT 'LOAD'").loads);
    assert!(of(b"SELECT 1; call p()").may_prepare);
    assert!(of(b"SELECT /*! x */ 1").may_prepare);
    assert!(!of(b"SELECT 'CALL'").may_prepare);
}

/// Work that grows with the square of the length would take minutes for these.
#[test]
fn long_texts_are_looked_at_at_once() {
    let parts: [&[u8]; 18] = [
        b"1a.",
        b"1.",
        b".1",
        b"1e+",
        b"0x1.",
        b"1.1e",
        b"'",
        b"\"\\",
        b"`",
        b"/*",
        b"/*!",
        b"*/",
        b"--",
        b"-- \n",
        b"#\n",
        b";",
        b"a;",
        b"SELECT /*!40001 SQL_NO_CACHE */",
    ];
    for part in parts {
        let text = part.repeat((1 << 20) / part.len());
        Judged::of(&text, true);
    }
}

proptest! {
    #[test]
    fn any_text_is_judged(text in prop::collection::vec(prop_oneof![
        any::<u8>(), prop::sample::select(b"/*!-'\"`\\ ();1.exa".to_vec()),
    ], 0..200)) {
        let judged = Judged::of(&text, true);
        if judged.doubtful.is_none() {
            // A plain text is ASCII outside of quotes and comments.
            prop_assert!(!text.contains(&0));
        }
    }
}
