//! What a statement's text is to the rules: the digest and the class of each statement in it, or a doubt.

use std::fmt;

use super::class::Statement;
use super::digest::Digest;
use super::plain;
use super::tokens::{Token, Tokens};
use crate::writes::WriteGuard;

/// Longer ones are not shown.
const LONGEST: usize = 1024;

/// A text that was looked at.
#[derive(Default)]
pub(super) struct Judged {
    /// Each with its digest, and whether it writes. Of a doubtful text: as it seems.
    statements: Vec<(String, bool)>,
    /// What a text is shown as of which it is not known what servers do.
    doubtful: Option<String>,
    /// It may prepare statements, by itself or in a procedure.
    pub(super) may_prepare: bool,
    /// It may make the server ask the client for a file.
    pub(super) loads: bool,
}

impl Judged {
    /// Looks at a text, or at the beginning of one.
    pub(super) fn of(text: &[u8], is_whole: bool) -> Self {
        let mut judged = Self::seeming(text);
        let end = plain::doubt(text).or((!is_whole).then_some(text.len()));
        if let Some(end) = end {
            let known = Self::seeming(text.get(..end).unwrap_or_default());
            judged.doubt(known);
            judged.loads = text.windows(4).any(|it| it.eq_ignore_ascii_case(b"LOAD"));
        }
        judged
    }

    /// Looks at the text of a PREPARE, which has but one statement.
    pub(super) fn of_prepared(text: &[u8], is_whole: bool) -> Self {
        let mut judged = Self::of(text, is_whole);
        if judged.statements.len() > 1 {
            judged.statements.truncate(1);
            judged.statements.shrink_to_fit();
            if judged.doubtful.is_none() {
                let statements = judged.statements.clone();
                judged.doubt(Self {
                    statements,
                    ..Self::default()
                });
            }
        }
        judged
    }

    fn doubt(&mut self, known: Self) {
        let mut shown = known.digests().join("; ");
        shown.truncate(shown.floor_char_boundary(LONGEST));
        shown.push_str(if shown.is_empty() { "..." } else { " ..." });
        self.doubtful = Some(shown);
        self.may_prepare = true;
    }

    fn seeming(text: &[u8]) -> Self {
        let mut judged = Self::default();
        let mut tokens = Tokens::new(text);
        let mut current: Option<(Statement, Digest)> = None;
        loop {
            match tokens.next() {
                None => break,
                Some(Token::Sign(b';')) => judged.take(current.take()),
                Some(token) => {
                    let (statement, digest) = current.get_or_insert_default();
                    statement.add(token);
                    digest.add(token, tokens.spaced);
                }
            }
        }
        judged.take(current);
        judged
    }

    fn take(&mut self, statement: Option<(Statement, Digest)>) {
        let Some((statement, digest)) = statement else {
            return;
        };
        self.may_prepare |= statement.may_prepare;
        self.loads |= statement.loads;
        self.statements.push((digest.text(), statement.writes()));
    }

    /// What it is shown as.
    pub(super) fn digests(&self) -> Vec<&str> {
        match &self.doubtful {
            Some(shown) => vec![shown],
            None => self.statements.iter().map(|(it, _)| it.as_str()).collect(),
        }
    }

    /// Bytes that it holds.
    pub(super) fn memory(&self) -> usize {
        let each = self.statements.iter();
        let statements = each.map(|(digest, _)| size_of::<(String, bool)>() + digest.len());
        statements.sum::<usize>() + self.doubtful.as_ref().map_or(0, String::len)
    }

    /// Whether it may be sent; counts it.
    pub(super) fn permits(&self, guard: &WriteGuard) -> bool {
        match &self.doubtful {
            Some(shown) => guard.permits_doubtful(shown, &self.statements),
            None => guard.permits_all(&self.statements),
        }
    }

    /// Whether it may be sent.
    pub(super) fn may_be_sent(&self, guard: &WriteGuard) -> bool {
        match &self.doubtful {
            Some(shown) => guard.would_permit_doubtful(shown, &self.statements),
            None => guard.would_permit_all(&self.statements),
        }
    }
}

/// What a doubtful text seems to be may have values in it.
impl fmt::Debug for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Judged").field(&self.digests()).finish()
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
