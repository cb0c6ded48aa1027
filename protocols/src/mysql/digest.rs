//! A statement without its values: what rules of writes name, and reports show.
//!
//! Values become `?`, and lists of them one; space is folded, and comments are left out, but for those that servers execute.
//! `SELECT a FROM t WHERE id IN (1, 2) AND b='x'` is `SELECT a FROM t WHERE id IN (?) AND b = ?`.

use super::tokens::Token;

/// Digests are no longer: what differs later is one.
const LONGEST: usize = 1024;

/// The digest of a statement, token by token.
#[derive(Default)]
pub(super) struct Digest {
    out: Vec<u8>,
}

impl Digest {
    pub(super) fn add(&mut self, token: Token<'_>, spaced: bool) {
        if self.out.len() > LONGEST {
            return;
        }
        match token {
            Token::Value => self.value(),
            Token::Word(word) | Token::Opens(word) => self.word(word),
            Token::Closes => self.word(b"*/"),
            Token::Sign(sign) => self.sign(sign, spaced),
        }
    }

    pub(super) fn text(mut self) -> String {
        self.out.truncate(LONGEST);
        String::from_utf8_lossy(self.out.trim_ascii_end()).into_owned()
    }

    fn ends_with(&self, end: &[u8]) -> bool {
        self.out.ends_with(end)
    }

    /// A space, where one belongs between what is there and a word or a value.
    fn space(&mut self) {
        let sticks = matches!(self.out.last(), None | Some(b' ' | b'(' | b'.'));
        if !sticks {
            self.out.push(b' ');
        }
    }

    fn value(&mut self) {
        // A sign that belongs to the number.
        for sign in [b"-", b"+"] {
            let before = self.out.strip_suffix(sign).map(<[u8]>::trim_ascii_end);
            let is_unary = before
                .is_some_and(|it| matches!(it.last(), Some(b'(' | b',' | b'=' | b'<' | b'>')));
            if is_unary && let Some(len) = before.map(<[u8]>::len) {
                self.out.truncate(len);
            }
        }
        if self.ends_with(b"?,") {
            self.out.pop();
            return;
        }
        self.space();
        self.out.push(b'?');
    }

    fn word(&mut self, word: &[u8]) {
        self.space();
        self.out.extend_from_slice(word);
    }

    fn sign(&mut self, sign: u8, spaced: bool) {
        match sign {
            b',' | b'.' => self.out.push(sign),
            b')' => {
                self.out.push(sign);
                // Rows of values are one, too.
                if self.ends_with(b"(?), (?)") {
                    self.out.truncate(self.out.len() - 5);
                }
            }
            b'(' => {
                if spaced || self.ends_with(b",") {
                    self.space();
                }
                self.out.push(sign);
            }
            b'=' | b'<' | b'>' | b'!' | b':' => {
                let joins = matches!(self.out.last(), Some(b'=' | b'<' | b'>' | b'!' | b':'));
                if !joins {
                    self.space();
                }
                self.out.push(sign);
            }
            _ => {
                self.space();
                self.out.push(sign);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mysql::judge::Judged;

    fn digest(text: &[u8]) -> String {
        Judged::of(text, true).digests().join("; ")
    }

    #[test]
    fn statements_that_differ_in_values_alone_have_one_digest() {
        for (text, expected) in [
            ("SELECT 1", "SELECT ?"),
            (
                "select  a,b\n from t\twhere x='it''s' -- y\n and z = -1.5e-3;",
                "select a, b from t where x = ? and z = ?",
            ),
            (
                "SELECT a FROM t WHERE id IN (1, 2,3 ,0xFF, x'00', NULL)",
                "SELECT a FROM t WHERE id IN (?, NULL)",
            ),
            (
                "INSERT INTO log VALUES (1,'a'),(2,'b') , (3, \"c\")",
                "INSERT INTO log VALUES (?)",
            ),
            (
                "/* who */ SELECT /*!40001 SQL_NO_CACHE */ a # why\n FROM `t 1`.b",
                "SELECT /*!40001 SQL_NO_CACHE */ a FROM `t 1`.b",
            ),
            (
                "SELECT count(*), f (x) FROM t WHERE a>=@b AND c!=1--1",
                "SELECT count(*), f (x) FROM t WHERE a >= @b AND c != ? - - ?",
            ),
            (
                "INSERT INTO t SET b=_binary'\\0\\a',c=?",
                "INSERT INTO t SET b = ?, c = ?",
            ),
            ("SELECT 'unended", "SELECT ..."),
            ("SELECT /* unended", "SELECT ..."),
            ("", ""),
        ] {
            assert_eq!(digest(text.as_bytes()), expected, "{text}");
        }
        assert!(digest("SELECT a, ".repeat(1000).as_bytes()).len() <= LONGEST);
    }

    proptest! {
        #[test]
        fn any_text_has_a_digest(text in prop::collection::vec(prop_oneof![
            any::<u8>(), prop::sample::select(b"/*!-'\"`\\ ()?,;=1ex.".to_vec()),
        ], 0..200)) {
            digest(&text);
        }
    }
}
